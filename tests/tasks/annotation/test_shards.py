"""Shards, taken in in any order and after any interruption, make what one process makes."""

import random

import pytest
import yaml

from atelier import images
from atelier.annotators import inspection
from atelier.config.profile import Profile
from atelier.errors import ArtifactError
from tasks import annotate
from tasks.annotation import shards
from tasks.run import paths

CRITERIA = """
domain: toy
version: "1"
literature: {}
criteria:
  light: {positive: clear light, negative: dull light, positive_means: "Bright.",
          negative_means: "Grey.", applies: any, sources: [],
          measure: {name: value_range, positive_at: 70, negative_at: 68.5}}
"""
OUTPUTS = ("images", "raw_judgements", "judgements", "quarantine", "rationale")


@pytest.fixture
def corpus(workspace, profile, paint):
    """A repository whose pictures are judged by measuring; one is broken, one there twice."""
    (paths.CRITERIA / "starter.yaml").write_text(CRITERIA)
    profile["annotate"] |= {"annotator": "measured", "captions": None}
    (workspace / "params/starter.yaml").write_text(yaml.safe_dump(profile))
    for seed in range(11):
        paint(paths.DATA / f"{seed:02}.png", seed)
    (paths.DATA / "03-again.png").write_bytes((paths.DATA / "03.png").read_bytes())
    (paths.DATA / "broken.png").write_bytes(b"no picture")
    return Profile.model_validate(profile)


def outputs():
    texts = {name: (paths.ANNOTATE / f"{name}.jsonl").read_bytes() for name in OUTPUTS}
    return texts | {"summary": (paths.ANNOTATE / "summary.json").read_bytes()}


@pytest.fixture
def stage(corpus, notebook):
    """A function that runs the stage and returns what it wrote."""

    def run():
        annotate.run(corpus, notebook)
        return outputs()

    return run


@pytest.mark.parametrize("count", [1, 3, 12, 50])
def test_the_stage_makes_of_shards_what_it_makes_alone(stage, monkeypatch, count):
    alone = stage()
    parts = shards.plan(count)
    random.Random(count).shuffle(parts)

    assert sum(shards.take_in(shards.judge(part)) for part in parts) == 12
    monkeypatch.setattr(inspection.Inspector, "inspect", None)  # nothing is left to judge
    assert stage() == alone
    assert b"broken.png" in alone["quarantine"]
    assert b"03.png" in alone["quarantine"]


def test_each_bytes_are_in_one_shard_and_shards_are_of_nearly_one_size(corpus):
    parts = shards.plan(5)

    asked = [one.image for part in parts for one in part.pictures]
    assert sorted(asked) == sorted({images.sha256(path) for path in paths.DATA.iterdir()})
    assert [part.name for part in parts] == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    assert {len(part.pictures) for part in parts} <= {2, 3}


def test_a_lost_shard_is_planned_again_and_the_others_are_not(stage):
    alone = stage()
    first, *others = shards.plan(4)
    for part in others:
        shards.take_in(shards.judge(part))

    (again,) = shards.plan(1)

    assert {one.image for one in again.pictures} == {one.image for one in first.pictures}
    assert stage() == alone  # the stage does what no worker did


def test_a_shard_that_is_done_twice_changes_nothing(stage):
    alone = stage()
    for part in shards.plan(2) * 2:
        shards.take_in(shards.judge(part))

    assert shards.plan(2) == []
    assert stage() == alone


def test_a_worker_says_how_its_clone_differs(corpus, paint, monkeypatch):
    (part,) = shards.plan(1)
    with monkeypatch.context() as other:
        other.setattr(shards, "version", lambda package: "0.0")
        with pytest.raises(ArtifactError, match="another code, Python or imaging library"):
            shards.judge(part)

    paint(paths.DATA / part.pictures[0].file, seed=99)
    with pytest.raises(ArtifactError, match="is not the picture that was asked about"):
        shards.judge(part)
    (paths.DATA / part.pictures[0].file).unlink()
    with pytest.raises(ArtifactError, match="run `dvc pull data`"):
        shards.judge(part)

    switched = CRITERIA.replace("positive_at: 70", "positive_at: 71")
    (paths.CRITERIA / "starter.yaml").write_text(switched)
    with pytest.raises(ArtifactError, match="other settings or criteria"):
        shards.judge(part)
