import pytest
import torch

from atelier.params import (
    FluxNetwork,
    LoRA,
    ModelParams,
    SD3Network,
    SDXLNetwork,
    Times,
    Training,
)


def sdxl(predicts):
    return SDXLNetwork(
        kind="sdxl",
        predicts=predicts,
        widths=[16, 32],
        attention=[False, True],
        layers=1,
        head_width=16,
        groups=8,
        text_widths=[8, 16],
        pooled_width=16,
    )


NETWORKS = {
    "flux": FluxNetwork(
        kind="flux",
        double_blocks=1,
        single_blocks=1,
        heads=2,
        head_width=16,
        text_width=16,
        pooled_width=16,
    ),
    "sd3": SD3Network(
        kind="sd3",
        blocks=2,
        heads=2,
        head_width=16,
        text_width=32,
        clip_widths=[8, 16],
        pooled_width=16,
    ),
    "sdxl-epsilon": sdxl("epsilon"),
    "sdxl-v": sdxl("v"),
}


# Kinds that one question is asked of; not every test runs on them.
VARIANTS = {"flux-double": NETWORKS["flux"].model_copy(update={"single_blocks": 0})}


@pytest.fixture(params=NETWORKS)
def family(request):
    return request.param


@pytest.fixture
def painter(family):
    """A real pipeline of each family with 60 to 260 thousand weights, fresh for each test."""
    return tiny(family)


@pytest.fixture
def build():
    """A function that builds a toy painter of a family, with options."""
    return tiny


def tiny(family, seed=0, text_tokens=12, text_chunks=1):
    from atelier.models import codec, quiet, small

    generator = torch.Generator().manual_seed(1)
    pictures = torch.rand(20, 3, 32, 32, generator=generator) * 2 - 1
    corpus = ["a sea in blue, calm edges, harsh edges"]
    with quiet():
        painter = small.painter(
            {**NETWORKS, **VARIANTS}[family],
            codec.fit(pictures, 4, 4),
            corpus,
            text_tokens=text_tokens,
            text_chunks=text_chunks,
            seed=seed,
        )
    # An untrained output layer is zero, under which every prompt paints the same.
    output = "conv_out" if painter.component == "unet" else "proj_out"
    torch.nn.init.normal_(
        getattr(painter.network, output).weight, std=0.2, generator=generator.manual_seed(2)
    )
    return painter


@pytest.fixture
def lora():
    return LoRA(rank=2, alpha=2, rslora=False, dora=False, dropout=0, targets="all-linear")


@pytest.fixture
def training():
    return Training(
        steps=6,
        batch_images=3,
        images_at_once=None,
        warmup_steps=1,
        schedule="cosine",
        optimizer="adamw",
        weight_decay=0.01,
        clip_norm=1.0,
        ema_decay=0.9,
        precision="fp32",
        gradient_checkpointing=False,
        compile=False,
        times=Times(uniform_share=0.5, logit_mean=0.8, logit_std=1.0, shift=1),
        offset_noise=0,
        seed=3,
        checkpoint_steps=2,
        checkpoints_kept=2,
        report_steps=2,
        grids=None,
        explosion=None,
        drift_stop=False,
    )


@pytest.fixture
def model_params():
    return ModelParams(
        family="flux",
        source="base/toy",
        revision=None,
        dtype="float32",
        quantise=None,
        pixels=32,
        text_tokens=12,
        text_chunks=1,
        buckets=None,
        true_sizes=False,
    )
