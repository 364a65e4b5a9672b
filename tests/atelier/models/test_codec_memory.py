"""How much the codec takes at once: settings for memory, with the same latents and pixels."""

import pytest
import torch
from diffusers import AutoencoderKL

from atelier.config.model import Codec
from atelier.errors import ParamsError
from atelier.models import loading, pipelines
from tests.atelier.conftest import toy_model

SIDE = 64


@pytest.fixture
def kl_painter(build):
    """A toy SDXL with the real codec's class instead of our own."""
    torch.manual_seed(0)
    codec = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 16),
        norm_num_groups=8,
        latent_channels=4,
        sample_size=SIDE,
    ).eval()
    painter = build("sdxl-epsilon")
    painter.pipeline().register_modules(vae=codec)
    painter.pipeline().vae_scale_factor = 2
    return painter


@pytest.fixture
def pixels():
    return torch.rand(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def seen(kl_painter, monkeypatch):
    """How many pictures the codec was given each time."""
    found, codec = [], kl_painter.pipeline().vae
    for name in ("encode", "decode"):
        method = getattr(codec, name)

        def counted(batch, *words, method=method, **named):
            found.append(len(batch))
            return method(batch, *words, **named)

        monkeypatch.setattr(codec, name, counted)
    return found


@pytest.mark.numerical
@pytest.mark.parametrize(
    ("limit", "pieces"),
    [(SIDE**2 - 1, [1] * 5), (SIDE**2, [1] * 5), (2 * SIDE**2, [2, 2, 1]), (None, [5])],
)
def test_pictures_above_an_area_are_encoded_and_decoded_in_pieces_to_the_same(
    kl_painter, pixels, seen, limit, pieces
):
    kl_painter.codec_pixels = None
    latents = kl_painter.encode_images(pixels)
    decoded = kl_painter.decode_latents(latents)
    seen.clear()

    kl_painter.codec_pixels = limit

    torch.testing.assert_close(kl_painter.encode_images(pixels), latents, rtol=0, atol=1e-5)
    torch.testing.assert_close(kl_painter.decode_latents(latents), decoded, rtol=0, atol=1e-5)
    assert seen == pieces + pieces


def test_sixteen_pictures_of_1024_pixels_are_never_encoded_together_unless_asked_for():
    assert toy_model().codec.pixels_at_once == 1024 * 1024


def test_a_codec_works_in_tiles_of_the_side_that_is_set(kl_painter, pixels):
    codec = kl_painter.pipeline().vae
    whole = kl_painter.encode_images(pixels)

    pipelines._tile(codec, SIDE // 2)

    sizes = []
    codec.encoder.register_forward_hook(lambda _, given, __: sizes.append(given[0].shape[-1]))
    tiled = kl_painter.encode_images(pixels)
    assert max(sizes) == SIDE // 2
    assert tiled.shape == whole.shape
    assert not torch.equal(tiled, whole)


def test_latents_of_tiles_are_other_latents_to_the_cache(kl_painter):
    pipeline = kl_painter.pipeline()
    whole = pipelines.identity(pipeline, "said")

    pipelines._tile(pipeline.vae, SIDE // 2)
    halves = pipelines.identity(pipeline, "said")
    pipelines._tile(pipeline.vae, SIDE // 4)

    assert len({whole, halves, pipelines.identity(pipeline, "said")}) == 3


def test_settings_reach_the_codec_and_one_that_has_no_tiles_says_so(build, tmp_path):
    build("flux").pipeline().save_pretrained(tmp_path)
    params = toy_model(source=str(tmp_path), text_tokens=12)
    own = params.model_copy(update={"codec": Codec(pixels_at_once=7, tile_pixels=None)})

    assert loading.load(own).codec_pixels == 7

    tiles = params.model_copy(update={"codec": Codec(pixels_at_once=None, tile_pixels=32)})
    with pytest.raises(ParamsError, match=r"model.codec.tile_pixels should be null, is 32"):
        loading.load(tiles)
