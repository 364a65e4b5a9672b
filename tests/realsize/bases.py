"""Bases at the true width of SDXL and FLUX.1-dev, with random weights.

Widths, heads, text widths and codecs are the published ones. What is cut, so that two cores get
through in minutes: depth (a true layer is as large as any other) and the vocabularies of the
text encoders, which have tokenizers of their own.
"""

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from atelier.models.denoiser import quiet
from atelier.models.small import text_encoders

CUT = {
    "sdxl": "transformer layers a block 1, 1, 2 of 1, 2, 10; CLIP's layers 2, 2 of 12, 32",
    "flux": "blocks 1, 1 of 19, 38; T5's layers 1 of 24, CLIP's 1 of 12",
}
_WIDE = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "sample_size": 1024,
}


def save(family, folder, corpus):
    """Write a pipeline to a folder as diffusers does."""
    torch.manual_seed(0)
    with quiet():
        {"sdxl": _sdxl, "flux": _flux}[family](corpus).save_pretrained(folder)


def _sdxl(corpus):
    first, second, tokenizer = text_encoders.clip_pair(
        [768, 1280], 1280, corpus, both_summarise=False
    )
    unet = UNet2DConditionModel(
        sample_size=128,
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        block_out_channels=[320, 640, 1280],
        layers_per_block=2,
        transformer_layers_per_block=[1, 1, 2],
        attention_head_dim=[5, 10, 20],
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    return StableDiffusionXLPipeline(
        vae=AutoencoderKL(**_WIDE, latent_channels=4, scaling_factor=0.13025),
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            timestep_spacing="leading",
            steps_offset=1,
        ),
    )


def _flux(corpus):
    clip, clip_tokenizer = text_encoders.clip_of_bytes(768)
    t5, t5_tokenizer = text_encoders.t5(4096, corpus)
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=128,
        num_attention_heads=24,
        joint_attention_dim=4096,
        pooled_projection_dim=768,
        guidance_embeds=True,
        axes_dims_rope=(16, 56, 56),
    )
    return FluxPipeline(
        vae=AutoencoderKL(
            **_WIDE, latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159,
            use_quant_conv=False, use_post_quant_conv=False,
        ),
        text_encoder=clip,
        tokenizer=clip_tokenizer,
        text_encoder_2=t5,
        tokenizer_2=t5_tokenizer,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )  # fmt: skip
