"""Small pipelines with random weights, from diffusers' real classes.

For starter bases and for tests. Code that loads them loads FLUX.1, SD3.5 and SDXL in the same
way.
"""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import (
    ChromaPipeline,
    ChromaTransformer2DModel,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    ModelMixin,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from torch import nn

from atelier.config.base import (
    ChromaNetwork,
    Flux2KleinNetwork,
    FluxNetwork,
    Network,
    QwenImageNetwork,
    SD3Network,
    SDXLNetwork,
    ZImageNetwork,
)
from atelier.models.denoiser import Denoiser
from atelier.models.families.chroma import Chroma
from atelier.models.families.flux import Flux
from atelier.models.families.flux2_klein import Flux2Klein
from atelier.models.families.qwen_image import QwenImage
from atelier.models.families.sd3 import SD3
from atelier.models.families.sdxl import SDXL
from atelier.models.families.z_image import ZImage
from atelier.models.small import qwen_encoders, text_encoders

# Sampling spends more of its steps near pure noise: at these sizes the large decisions
# (layout, palette) fall there. 1 would be uniform.
_SCHEDULER_SHIFT = 2.0
_SIZE_WIDTH = 8  # sines and cosines for each of SDXL's six sizes, which are constant here
_SDXL_BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def painter(
    network: Network,
    codec: ModelMixin,
    corpus: Iterable[str],
    *,
    text_tokens: int,
    text_chunks: int,
    seed: int,
) -> Denoiser:
    """Build an untrained painter of the family that ``network.kind`` names.

    Args:
        network: Its size.
        codec: The ``vae``, already fitted.
        corpus: Texts whose words become tokens; other words are spelt.
        text_tokens: Length to which T5 pads prompts; CLIP's is 77.
        text_chunks: Of 75 tokens that SDXL's CLIPs read one by one.
        seed: Of all weights.
    """
    built = pipeline(network, codec, corpus, seed=seed)
    match network:
        case ChromaNetwork():
            return Chroma(built, text_tokens=text_tokens)
        case FluxNetwork():
            return Flux(built, text_tokens=text_tokens)
        case Flux2KleinNetwork():
            return Flux2Klein(built, text_tokens=text_tokens)
        case QwenImageNetwork():
            return QwenImage(built, text_tokens=text_tokens)
        case SD3Network():
            return SD3(built, text_tokens=text_tokens)
        case SDXLNetwork():
            return SDXL(built, text_chunks=text_chunks)
        case ZImageNetwork():
            return ZImage(built, text_tokens=text_tokens)


def pipeline(network: Network, codec: ModelMixin, corpus: Iterable[str], *, seed: int) -> Any:
    """Build a pipeline with random, seeded weights; arguments as for ``painter``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match network:
            case ChromaNetwork():
                return _chroma(network, codec, corpus)
            case FluxNetwork():
                return _flux(network, codec, corpus)
            case Flux2KleinNetwork():
                return _flux2_klein(network, codec, corpus)
            case QwenImageNetwork():
                return _qwen_image(network, codec, corpus)
            case SD3Network():
                return _sd3(network, codec, corpus)
            case SDXLNetwork():
                return _sdxl(network, codec, corpus)
            case ZImageNetwork():
                return _z_image(network, codec, corpus)


def _chroma(network: ChromaNetwork, codec: ModelMixin, corpus: Iterable[str]) -> ChromaPipeline:
    t5, t5_tokenizer = text_encoders.t5(network.text_width, corpus)
    transformer = ChromaTransformer2DModel(
        patch_size=1,
        in_channels=4 * codec.config.latent_channels,
        num_layers=network.double_blocks,
        num_single_layers=network.single_blocks,
        attention_head_dim=network.head_width,
        num_attention_heads=network.heads,
        joint_attention_dim=network.text_width,
        axes_dims_rope=_rotary_axes(network.head_width),
        approximator_hidden_dim=network.modulation_width,
    )
    nn.init.zeros_(transformer.proj_out.weight)
    nn.init.zeros_(transformer.proj_out.bias)
    return ChromaPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=_SCHEDULER_SHIFT),
        vae=codec,
        text_encoder=t5,
        tokenizer=t5_tokenizer,
        transformer=transformer.eval(),
    )


def _flux(network: FluxNetwork, codec: ModelMixin, corpus: Iterable[str]) -> FluxPipeline:
    clip, clip_tokenizer = text_encoders.clip_of_bytes(network.pooled_width)
    t5, t5_tokenizer = text_encoders.t5(network.text_width, corpus)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * codec.config.latent_channels,
        num_layers=network.double_blocks,
        num_single_layers=network.single_blocks,
        attention_head_dim=network.head_width,
        num_attention_heads=network.heads,
        joint_attention_dim=network.text_width,
        pooled_projection_dim=network.pooled_width,
        guidance_embeds=False,
        axes_dims_rope=_rotary_axes(network.head_width),
    )
    nn.init.zeros_(transformer.proj_out.weight)  # start from the velocity 0, not from noise
    nn.init.zeros_(transformer.proj_out.bias)
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=_SCHEDULER_SHIFT),
        vae=codec,
        text_encoder=clip,
        tokenizer=clip_tokenizer,
        text_encoder_2=t5,
        tokenizer_2=t5_tokenizer,
        transformer=transformer.eval(),
    )


def _flux2_klein(
    network: Flux2KleinNetwork, codec: ModelMixin, corpus: Iterable[str]
) -> Flux2KleinPipeline:
    # The pipeline reads hidden states 9, 18 and 27.
    encoder, tokenizer = qwen_encoders.qwen3(
        network.text_width, corpus, layers=28, with_head=True
    )
    transformer = Flux2Transformer2DModel(
        in_channels=4 * codec.config.latent_channels,
        num_layers=network.double_blocks,
        num_single_layers=network.single_blocks,
        attention_head_dim=network.head_width,
        num_attention_heads=network.heads,
        joint_attention_dim=3 * network.text_width,
        axes_dims_rope=(network.head_width // 4,) * 4,
        guidance_embeds=False,
    )
    nn.init.zeros_(transformer.proj_out.weight)
    return Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=_SCHEDULER_SHIFT),
        vae=codec,
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=transformer.eval(),
    )


def _qwen_image(
    network: QwenImageNetwork, codec: ModelMixin, corpus: Iterable[str]
) -> QwenImagePipeline:
    transformer = QwenImageTransformer2DModel(
        in_channels=4 * codec.config.z_dim,
        out_channels=codec.config.z_dim,
        num_layers=network.blocks,
        attention_head_dim=network.head_width,
        num_attention_heads=network.heads,
        joint_attention_dim=network.text_width,
        axes_dims_rope=_rotary_axes(network.head_width),
    )
    nn.init.zeros_(transformer.proj_out.weight)
    nn.init.zeros_(transformer.proj_out.bias)
    built = QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=_SCHEDULER_SHIFT),
        vae=codec,
        text_encoder=None,
        tokenizer=None,
        transformer=transformer.eval(),
    )
    encoder, tokenizer = qwen_encoders.qwen25_vl(
        network.text_width, corpus, built.prompt_template_encode
    )
    built.register_modules(text_encoder=encoder, tokenizer=tokenizer)
    return built


def _rotary_axes(head_width: int) -> tuple[int, int, int]:
    """Split a head's width over text, row and column: about a quarter and two equal rests."""
    text = head_width // 4 // 2 * 2
    side = (head_width - text) // 2
    if side % 2:
        text, side = text + 2, side - 1
    return text, side, side


def _sd3(
    network: SD3Network, codec: ModelMixin, corpus: Iterable[str]
) -> StableDiffusion3Pipeline:
    texts = list(corpus)
    first, second, clip_tokenizer = text_encoders.clip_pair(
        network.clip_widths, network.pooled_width, texts, both_summarise=True
    )
    t5, t5_tokenizer = text_encoders.t5(network.text_width, texts)
    width = network.heads * network.head_width
    transformer = SD3Transformer2DModel(
        patch_size=2,
        in_channels=codec.config.latent_channels,
        out_channels=codec.config.latent_channels,
        num_layers=network.blocks,
        attention_head_dim=network.head_width,
        num_attention_heads=network.heads,
        joint_attention_dim=network.text_width,
        caption_projection_dim=width,
        pooled_projection_dim=2 * network.pooled_width,
        qk_norm="rms_norm",
        dual_attention_layers=(0,),  # as SD3.5 medium's first blocks
    )
    nn.init.zeros_(transformer.proj_out.weight)
    nn.init.zeros_(transformer.proj_out.bias)
    return StableDiffusion3Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=_SCHEDULER_SHIFT),
        vae=codec,
        text_encoder=first,
        tokenizer=clip_tokenizer,
        text_encoder_2=second,
        tokenizer_2=clip_tokenizer,
        text_encoder_3=t5,
        tokenizer_3=t5_tokenizer,
        transformer=transformer.eval(),
    )


def _sdxl(
    network: SDXLNetwork, codec: ModelMixin, corpus: Iterable[str]
) -> StableDiffusionXLPipeline:
    first, second, tokenizer = text_encoders.clip_pair(
        network.text_widths, network.pooled_width, corpus, both_summarise=False
    )
    unet = UNet2DConditionModel(
        in_channels=codec.config.latent_channels,
        out_channels=codec.config.latent_channels,
        block_out_channels=network.widths,
        down_block_types=[
            "CrossAttnDownBlock2D" if reads else "DownBlock2D" for reads in network.attention
        ],
        up_block_types=[
            "CrossAttnUpBlock2D" if reads else "UpBlock2D"
            for reads in reversed(network.attention)
        ],
        layers_per_block=network.layers,
        norm_num_groups=network.groups,
        attention_head_dim=[width // network.head_width for width in network.widths],  # heads
        use_linear_projection=True,
        cross_attention_dim=sum(network.text_widths),
        addition_embed_type="text_time",
        addition_time_embed_dim=_SIZE_WIDTH,
        projection_class_embeddings_input_dim=6 * _SIZE_WIDTH + network.pooled_width,
    )
    nn.init.zeros_(unet.conv_out.weight)
    nn.init.zeros_(unet.conv_out.bias)
    return StableDiffusionXLPipeline(
        scheduler=_scheduler(network),
        vae=codec,
        text_encoder=first,
        tokenizer=tokenizer,
        text_encoder_2=second,
        tokenizer_2=tokenizer,
        unet=unet.eval(),
    )


def _z_image(
    network: ZImageNetwork, codec: ModelMixin, corpus: Iterable[str]
) -> ZImagePipeline:
    # The last hidden state but one is read.
    encoder, tokenizer = qwen_encoders.qwen3(
        network.text_width, corpus, layers=2, with_head=False
    )
    transformer = ZImageTransformer2DModel(
        in_channels=codec.config.latent_channels,
        dim=network.heads * network.head_width,
        n_layers=network.blocks,
        n_refiner_layers=network.refiner_blocks,
        n_heads=network.heads,
        n_kv_heads=network.heads,
        cap_feat_dim=network.text_width,
        axes_dims=list(_rotary_axes(network.head_width)),
    )
    for last in transformer.all_final_layer.values():
        nn.init.zeros_(last.linear.weight)
        nn.init.zeros_(last.linear.bias)
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=_SCHEDULER_SHIFT),
        vae=codec,
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=transformer.eval(),
    )


def _scheduler(network: SDXLNetwork) -> EulerDiscreteScheduler | DDIMScheduler:
    """SDXL's own for ε. For v, noise that hides the picture wholly at its last step.

    SDXL's noise leaves 7% of the picture at its end, enough at these sizes to give its mean
    colour away in training and to miss it in sampling (Lin et al. 2023, arXiv:2305.08891).
    """
    if network.predicts == "epsilon":
        return EulerDiscreteScheduler(**_SDXL_BETAS, timestep_spacing="leading", steps_offset=1)
    return DDIMScheduler(
        **_SDXL_BETAS,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )
