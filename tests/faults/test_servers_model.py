"""The model's endpoint down, slow, broken at every point of annotate, then back."""

import shutil
import time
from pathlib import Path

import pytest

from atelier.config.profile import Profile
from atelier.errors import AtelierError
from tasks import annotate
from tasks.run import paths
from tests.conftest import Notebook
from tests.faults.proxy import Proxy

SECTION = "Servers away"
CRITERIA = Path(__file__).parents[2] / "params" / "criteria"
PICTURES = 12
OUTPUTS = ("images", "raw_judgements", "judgements", "rationale", "quarantine")
FATES = ("down", "500", "drop", "lost", "slow", "hang", "dribble")
POINTS = (0, 18, 33)  # requests that pass before; an undisturbed run makes 36


@pytest.fixture
def proxy(model_server):
    with Proxy(int(model_server.address.rpartition(":")[2])) as proxy:
        proxy.seconds = 0.1
        yield proxy


@pytest.fixture
def asked(profile, vlm, proxy):
    """The profile that asks through the proxy, with little patience."""
    url = f"{proxy.address}/v1"
    vlm |= {"base_url": url, "timeout_seconds": 0.5, "tries": 2, "concurrency": 4}
    profile["annotate"] |= {"annotator": "vlm", "vlm": vlm, "captions": None}
    return Profile.model_validate(profile)


def outputs():
    return [(paths.ANNOTATE / f"{name}.jsonl").read_bytes() for name in OUTPUTS]


def break_after(proxy, count, fate):
    if fate != "down":
        proxy.after(count, fate)
        return
    if count == 0:
        proxy.down()
        return
    # A request too many is reset, and so are those behind it: as when a process dies.
    proxy.after(count, "drop")


@pytest.mark.timeout(300)
def test_judgements_are_those_of_an_undisturbed_run(
    asked, proxy, model_server, paint, tmp_path, monkeypatch, figure
):
    def studio(name):
        place = tmp_path / name
        (place / paths.CRITERIA).mkdir(parents=True)
        monkeypatch.chdir(place)
        shutil.copy(CRITERIA / "starter.yaml", paths.CRITERIA)
        for seed in range(PICTURES):
            paint(paths.DATA / f"{seed}.png", seed)

    studio("undisturbed")
    annotate.run(asked, Notebook())
    undisturbed = outputs()
    errors, longest = [], 0.0
    for fate in FATES:
        for point in POINTS:
            studio(f"{fate}-{point}")
            break_after(proxy, point, fate)
            began = time.monotonic()
            try:
                annotate.run(asked, Notebook())
            except AtelierError as error:
                errors.append(str(error))
            longest = max(longest, time.monotonic() - began)
            proxy.mend()
            annotate.run(asked, Notebook())
            assert outputs() == undisturbed, (fate, point)
    assert len(errors) > 6
    assert all("same command goes on" in error for error in errors)
    figure(
        SECTION,
        f"The model's endpoint {', '.join(FATES)} after {', '.join(map(str, POINTS))} of 36 "
        f"requests, then back ({proxy.faults:,} requests met it; `timeout_seconds: 0.5`)",
        len(FATES) * len(POINTS),
        f"judgements byte for byte as undisturbed, no picture set aside; {len(errors)} runs "
        f"ended in one paragraph and went on, after {longest:.0f} s at most",
    )


@pytest.mark.timeout(120)
def test_a_storm(asked, proxy, model_server, paint, tmp_path, monkeypatch, figure):
    monkeypatch.chdir(tmp_path)
    paths.CRITERIA.mkdir(parents=True)
    shutil.copy(CRITERIA / "starter.yaml", paths.CRITERIA)
    for seed in range(PICTURES):
        paint(paths.DATA / f"{seed}.png", seed)
    annotate.run(asked, Notebook())
    undisturbed = outputs()
    shutil.rmtree(paths.ARTIFACTS)
    model_server.follow()
    runs, patient = 0, asked.model_dump()
    patient["annotate"]["vlm"]["tries"] = 8
    patient = Profile.model_validate(patient)
    proxy.storm(7, 0.4, ("500", "drop", "slow"))

    while runs < 20:
        runs += 1
        try:
            annotate.run(patient, Notebook())
            break
        except AtelierError:
            continue

    assert outputs() == undisturbed
    assert set(model_server.asked()["good"].values()) == {1}
    figure(
        SECTION,
        f"40% of the requests to the model's endpoint broken by chance ({proxy.faults:,})",
        1,
        f"judgements as undisturbed after {runs} run(s); no answer was paid twice",
    )
