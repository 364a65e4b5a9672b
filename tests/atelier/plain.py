"""Plain diffusers, as a person would call it: a family's pipeline asked, and its answer read.

Knows how each pipeline is told where to start and not to guide, and in which form it answers;
nothing of the library.
"""

import torch

from atelier.models import codec
from atelier.models.denoiser import quiet

FEWEST = 12  # tokens of the toy painters
TOKENS = {"z_image": 24, "flux2_klein": 28, "qwen_image": 20}  # of whose prompts become chats
_FAMILIES = {
    "ZImagePipeline": "z_image",
    "Flux2KleinPipeline": "flux2_klein",
    "QwenImagePipeline": "qwen_image",
}


def loaded(kind, folder, **parts):
    """A pipeline from a folder; our own codec has to be handed to it."""
    with quiet():  # of what diffusers itself has deprecated
        if '"PatchPCA"' in (folder / "vae" / "config.json").read_text():
            parts["vae"] = codec.PatchPCA.from_pretrained(folder / "vae")
        return kind.from_pretrained(folder, **parts)


def call(pipeline, prompts, latents, *, size=32):
    """Arguments that paint the prompts, unguided, from latents as the library has them."""
    name = type(pipeline).__name__
    tokens = TOKENS.get(_FAMILIES.get(name), FEWEST)
    asked = {"prompt": list(prompts), "height": size, "width": size, "guidance_scale": 1.0}
    if name == "ZImagePipeline":
        asked["guidance_scale"] = 0.0  # counted from the prompt's own prediction
    if name == "QwenImagePipeline":
        asked["true_cfg_scale"] = asked.pop("guidance_scale")
    if name != "StableDiffusionXLPipeline":
        asked["max_sequence_length"] = tokens
    if name == "ChromaPipeline":
        embeds, _, mask, *_ = pipeline.encode_prompt(
            asked.pop("prompt"), do_classifier_free_guidance=False, max_sequence_length=tokens
        )
        asked |= {"prompt_embeds": embeds, "prompt_attention_mask": mask.bool()}
    if name in PACKED:
        latents = pipeline._pack_latents(latents, *latents.shape)
    return {**asked, "latents": latents}


PACKED = {"FluxPipeline", "ChromaPipeline", "QwenImagePipeline"}


def answer(pipeline, found, side=8):
    """Latents as the library has them, of what the pipeline gives for ``latent``."""
    if type(pipeline).__name__ in PACKED:
        found = pipeline._unpack_latents(found, side, side, vae_scale_factor=1)
        return found.reshape(len(found), -1, side, side)  # a video of one frame is a picture
    if type(pipeline).__name__ == "Flux2KleinPipeline":  # it gives the codec's own
        statistics, eps = pipeline.vae.bn, pipeline.vae.config.batch_norm_eps
        mean, variance = (
            one.view(1, -1, 1, 1) for one in (statistics.running_mean, statistics.running_var)
        )
        return (pipeline._patchify_latents(found) - mean) / (variance + eps).sqrt()
    return found


def output_layer(network):
    """The last layer of a family's network."""
    if hasattr(network, "all_final_layer"):
        return network.all_final_layer["2-1"].linear
    return network.conv_out if hasattr(network, "conv_out") else network.proj_out


@torch.no_grad()
def paint(pipeline, prompts, latents, steps):
    """Latents that the pipeline paints, without guidance."""
    asked = call(pipeline, prompts, latents)
    found = pipeline(**asked, num_inference_steps=steps, output_type="latent").images
    return answer(pipeline, found)
