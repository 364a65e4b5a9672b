import pytest
import torch
import yaml
from pydantic import TypeAdapter

from atelier.config.base import Network
from atelier.config.model import ModelParams
from atelier.config.training import LoRA, Training
from atelier.objectives.cpo import CPO
from atelier.objectives.cpo_s import CPOS
from tests.atelier import plain
from tests.atelier.double import double
from tests.conftest import TOY_NETWORKS, small_profile


def network(family, **changes):
    return TypeAdapter(Network).validate_python(yaml.safe_load(TOY_NETWORKS[family]) | changes)


NETWORKS = {
    "flux": network("flux"),
    "sd3": network("sd3"),
    "sdxl-epsilon": network("sdxl", predicts="epsilon"),
    "sdxl-v": network("sdxl", predicts="v"),
    "chroma": network("chroma"),
    "z_image": network("z_image"),
    "flux2_klein": network("flux2_klein"),
    "qwen_image": network("qwen_image"),
}
# Families that came later differ from these in how they paint, not in how they are trained. The
# fast tests ask them the former; `make proofs` asks them everything.
LATER = ("chroma", "z_image", "flux2_klein", "qwen_image")
_FAST = ("test_families", "test_sampling")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        asked = getattr(item, "callspec", None)
        family = asked.params.get("family") if asked else None
        fast = item.path.stem in (*_FAST, f"test_{family}") or (
            item.path.stem == "test_golden" and asked.params["name"] == "cpo-s-mirror-winner"
        )
        if family in LATER and not fast:
            item.add_marker(pytest.mark.slow)


# Kinds that one question is asked of; not every test runs on them.
VARIANTS = {
    "flux-double": NETWORKS["flux"].model_copy(update={"single_blocks": 0}),
    "chroma-double": NETWORKS["chroma"].model_copy(update={"single_blocks": 0}),
}


@pytest.fixture(params=NETWORKS)
def family(request):
    return request.param


@pytest.fixture
def painter(family):
    """A real pipeline of each family with 60 to 260 thousand weights, fresh for each test."""
    return tiny(family)


@pytest.fixture
def float64():
    """Asked for first, it makes the fixtures after it, and the test, compute in float64."""
    with double():
        yield


@pytest.fixture
def build():
    """A function that builds a toy painter of a family, with options."""
    return tiny


def _codec(family, pictures):
    """Four channels at a quarter of the side: PCA, or the class that the family needs."""
    from diffusers import AutoencoderKLFlux2, AutoencoderKLQwenImage

    from atelier.models import codec

    if family not in ("flux2_klein", "qwen_image"):
        return codec.fit(pictures, 4, 4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if family == "qwen_image":
            return AutoencoderKLQwenImage(
                base_dim=8, z_dim=4, dim_mult=[1, 1, 1], num_res_blocks=1,
                temperal_downsample=[False, True],
                latents_mean=[0.1, -0.2, 0.0, 0.3], latents_std=[0.5, 0.2, 1.0, 0.8],
            ).eval()  # fmt: skip
        made = AutoencoderKLFlux2(
            block_out_channels=(8, 8, 8), latent_channels=4, norm_num_groups=4,
            layers_per_block=1, mid_block_add_attention=False,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
        ).eval()  # fmt: skip
        made.bn.running_mean.normal_(std=0.2)
        made.bn.running_var.uniform_(0.02, 0.1)
    return made


def tiny(family, seed=0, text_tokens=None, text_chunks=1):
    from atelier.models.denoiser import quiet
    from atelier.models.small import pipelines

    generator = torch.Generator().manual_seed(1)
    pictures = torch.rand(20, 3, 32, 32, generator=generator) * 2 - 1
    corpus = ["a sea in blue, calm edges, harsh edges"]
    with quiet():
        painter = pipelines.painter(
            {**NETWORKS, **VARIANTS}[family],
            _codec(family, pictures),
            corpus,
            text_tokens=text_tokens or plain.TOKENS.get(family, plain.FEWEST),
            text_chunks=text_chunks,
            seed=seed,
        )
    # An untrained output layer is zero, under which every prompt paints the same.
    torch.nn.init.normal_(
        plain.output_layer(painter.network).weight,
        # FLUX.2 klein reads a word among 28 tokens, and untrained makes little of it.
        std=1.0 if family == "flux2_klein" else 0.2,
        generator=generator.manual_seed(2),
    )
    return painter


# Sections of the small profile; a setting that is new stands in tests/conftest.py alone.


def lora_params(**changes):
    return LoRA.model_validate(small_profile()["sft"]["lora"] | changes)


def training_params(**changes):
    return Training.model_validate(small_profile()["sft"]["training"] | changes)


def objective_params(name, **changes):
    """Those of ``cpo`` or ``cpo-s``."""
    values = small_profile()["cpo"]["objectives"][name] | changes
    return {"cpo": CPO, "cpo-s": CPOS}[name].model_validate(values)


def toy_model(**changes):
    return ModelParams.model_validate(small_profile()["model"] | changes)


@pytest.fixture
def lora():
    return lora_params(rank=2, alpha=2)


@pytest.fixture
def training():
    return training_params(
        steps=6,
        batch_images=3,
        warmup_steps=1,
        schedule="cosine",
        ema_decay=0.9,
        seed=3,
        report_steps=2,
    )


@pytest.fixture
def model_params():
    return toy_model(source="base/toy", text_tokens=12)


IMAGES = 5


@pytest.fixture
def corpus(painter):
    from atelier.training.corpus import Corpus

    prompts = ["", "a sea", "a sea, calm edges", "a sea, harsh edges"]
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(IMAGES, *painter.latent_shape(32), generator=generator)
    every = torch.ones(IMAGES, 1, dtype=torch.long)
    rows = {"caption": every, "winner": 2 * every, "loser": 3 * every, "labelled": 2 * every}
    return Corpus(latents, painter.encode_texts(prompts), rows, empty=0)
