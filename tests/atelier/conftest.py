import pytest
import torch

from atelier.params import FluxNetwork, LoRA, Times, Training


@pytest.fixture
def painter():
    """A real FLUX pipeline of 60 thousand parameters, fresh for each test."""
    return tiny_flux()


def tiny_flux(seed=0):
    from atelier.models import codec, flux, quiet, small

    generator = torch.Generator().manual_seed(1)
    pictures = torch.rand(20, 3, 32, 32, generator=generator) * 2 - 1
    network = FluxNetwork(
        double_blocks=1, single_blocks=1, heads=2, head_width=16, text_width=16, pooled_width=16
    )
    corpus = ["a sea in blue, calm edges, harsh edges"]
    with quiet():
        pipeline = small.pipeline(network, codec.fit(pictures, 4, 4), corpus, seed=seed)
    # An untrained output layer is zero, under which every prompt paints the same.
    torch.nn.init.normal_(
        pipeline.transformer.proj_out.weight, std=0.2, generator=generator.manual_seed(2)
    )
    return flux.Flux(pipeline, text_tokens=12)


@pytest.fixture
def lora():
    return LoRA(rank=2, alpha=2, targets="all-linear")


@pytest.fixture
def training():
    return Training(
        steps=6,
        batch_images=3,
        warmup_steps=1,
        schedule="cosine",
        weight_decay=0.01,
        clip_norm=1.0,
        ema_decay=0.9,
        times=Times(uniform_share=0.5, logit_mean=0.8, logit_std=1.0),
        seed=3,
        checkpoint_steps=2,
        report_steps=2,
    )
