from pathlib import Path

import pytest

from atelier.config.profile import read_profile
from atelier.models.costs import published

# Of the network, of all text encoders, of the codec; as the publishers' files have them.
WEIGHTS = {
    "sdxl": (2_567_463_684, 817_720_320, 83_653_863),
    "flux": (11_901_408_320, 4_885_371_136, 83_819_683),
    "sd3": (2_243_171_520, 5_580_620_800, 83_819_683),
    "chroma": (8_899_983_424, 4_762_310_656, 83_819_683),
    "z-image": (6_154_908_736, 4_022_468_096, 83_819_683),
    "flux2-klein": (3_875_544_576, 4_022_468_096, 84_046_115),
    "qwen-image": (20_430_401_088, 8_292_166_656, 126_892_531),
}


def weights(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_bases_of_shipped_profiles_have_their_published_sizes(name):
    source = read_profile(Path("params") / f"{name}.yaml").model.source
    parts = published.beside(source)
    codec = parts.pop("vae")

    found = (
        weights(published.network(source)),
        sum(map(weights, parts.values())),
        weights(codec),
    )

    assert found == WEIGHTS[name]


def test_every_profile_with_a_base_on_the_hub_is_known():
    profiles = [read_profile(file) for file in Path("params").glob("*.yaml") if "study" not in
                file.name and file.name != "profile.yaml"]  # fmt: skip
    hub = {one.model.source for one in profiles if one.model.revision is not None}

    assert len(hub) == len(WEIGHTS)
    assert all(published.beside(source) for source in hub)


def test_a_folder_says_its_own_sizes_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert published.network("Qwen/Nothing") is None

    (tmp_path / "Qwen/Qwen-Image").mkdir(parents=True)

    assert published.network("Qwen/Qwen-Image") is None
    assert published.beside("Qwen/Qwen-Image") == {}
