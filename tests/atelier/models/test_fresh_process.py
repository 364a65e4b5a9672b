"""A LoRA painted by plain diffusers in a process that never imports our code."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from atelier.models import adapters, sampling

ALIEN = """
import importlib.util, sys
# A torchvision that does not fit its torch dies on import; diffusers can do without.
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: (
    None if name.split(".")[0] == "torchvision" else find_spec(name, *rest)
)
import numpy, torch
from diffusers import DiffusionPipeline
folder, steps = sys.argv[1], int(sys.argv[2])
pipeline = DiffusionPipeline.from_pretrained(folder + "/base")
pipeline.load_lora_weights(folder + "/lora")
start = torch.load(folder + "/start.pt", weights_only=True)
# Lines that tests/atelier/plain.py has, which cannot be imported here.
name, asked = type(pipeline).__name__, {"prompt": ["a sea, calm edges"], "guidance_scale": 1.0}
limit = {} if hasattr(pipeline, "unet") else {"max_sequence_length": 12}
if name in ("FluxPipeline", "ChromaPipeline", "QwenImagePipeline"):
    start = pipeline._pack_latents(start, *start.shape)
if name == "ZImagePipeline":
    asked["guidance_scale"], limit = 0.0, {"max_sequence_length": 24}
if name == "QwenImagePipeline":
    asked["true_cfg_scale"], limit = asked.pop("guidance_scale"), {"max_sequence_length": 20}
if name == "Flux2KleinPipeline":
    limit = {"max_sequence_length": 28}
if name == "ChromaPipeline":
    embeds, _, mask, *_ = pipeline.encode_prompt(
        asked.pop("prompt"), do_classifier_free_guidance=False, **limit
    )
    asked |= {"prompt_embeds": embeds, "prompt_attention_mask": mask.bool()}
images = pipeline(
    **asked, latents=start, height=32, width=32, num_inference_steps=steps, output_type="np",
    **limit,
).images
assert not any(name.startswith("atelier") for name in sys.modules)
numpy.save(folder + "/found.npy", images)
"""


@pytest.mark.slow
def test_plain_diffusers_in_another_process_paints_the_same_picture(
    painter, family, lora, tmp_path
):
    codec = AutoencoderKL(
        block_out_channels=(8, 8, 8), latent_channels=4, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        scaling_factor=0.5, shift_factor=None if painter.component == "unet" else 0.1,
    ).eval()  # fmt: skip
    if family not in ("flux2_klein", "qwen_image"):  # they have real ones already
        painter.pipeline().register_modules(vae=codec)
    painter.pipeline().save_pretrained(tmp_path / "base")
    adapters.add(painter.network, "theta", lora, seed=0)
    for parameter in adapters.weights(painter.network, "theta").values():
        torch.nn.init.normal_(parameter, std=0.3)
    adapters.save(painter, "theta", tmp_path / "lora")
    start = sampling.starting_noise(painter.latent_shape(32), [7])
    torch.save(start, tmp_path / "start.pt")

    subprocess.run(
        [sys.executable, "-I", "-c", ALIEN, str(tmp_path), "3"],
        check=True,
        env=os.environ | {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"},  # torch does not ask us either
    )

    condition, empty = painter.encode_texts(["a sea, calm edges"]), painter.encode_texts([""])
    with adapters.use(painter.network, "theta"):
        latents = painter.sample(start, condition, empty, steps=3, guidance=1.0)
    with adapters.use(painter.network, None):
        untaught = painter.sample(start, condition, empty, steps=3, guidance=1.0)
    ours = sampling.to_bytes(painter.decode_latents(latents)).astype(int)
    theirs = (np.load(tmp_path / "found.npy") * 255).round().astype(int)
    assert abs(ours - theirs).max() <= 1
    plain = sampling.to_bytes(painter.decode_latents(untaught)).astype(int)
    assert abs(ours - plain).max() > 3
