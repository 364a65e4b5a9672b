"""``atelier judge certify``: of the starter's judge, of a folder, and of a person's answers."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from atelier import images
from atelier.certificates import certificate
from atelier.config.annotation import VLMParams
from atelier.config.profile import read_profile
from atelier.criteria import annotations, tree
from atelier.criteria.annotations import Judgement
from atelier.errors import AnnotationError, ArtifactError
from cli.app import app
from tasks.commands import agreement, certify
from tasks.commands.certify import PAINTER, Wish
from tasks.run import paths
from tests.conftest import GALLERY_CRITERIA

ROOT = Path(__file__).parents[3]
PAINTINGS = ROOT.parent / "shared/paintings"


def wish(out, **changes):
    usual = {
        "judge": None, "name": None, "against": [], "folder": None, "pictures": 16, "pairs": 6,
        "seed": 0, "out": out,
    }  # fmt: skip
    return Wish(**usual | changes)


def test_a_clone_certifies_the_starters_judge_by_one_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(agreement, "_CODEC_DRAWINGS", 200)
    monkeypatch.setattr(paths, "JUDGED_BY", tmp_path / "absent.yaml")

    page = certify.run(read_profile(paths.profile("starter")), wish(tmp_path))

    (file,) = tmp_path.glob("*.json")
    found = certificate.read(file)
    criteria = tree.parse(ROOT / "params/criteria/starter.yaml")
    assert certificate.of(tmp_path, "measured-1", criteria) == found
    assert list(found.references) == [PAINTER, "starter-features-1"]
    assert found.standings.keys() == criteria.leaves().keys()
    assert list(found.asked) == [
        "repeated", "mirrored", "recompressed", "resized", "looks", "wrong caption"
    ]  # fmt: skip
    assert found.failing == {}
    alike = [one.against[PAINTER].agree for one in found.standings.values()]
    assert np.mean([one.estimate for one in alike]) > 0.95
    assert found.roots["brushwork"].compared["settled"].estimate == 1
    assert found.version in page.read_text()
    assert "color/harmony" in capsys.readouterr().out


@pytest.fixture
def judged(studio):
    """Judgements of two people about the studio's pictures: Bob contradicts Ann on a third."""
    paths.JUDGED_BY.write_text(GALLERY_CRITERIA)
    path = "edges"
    records = annotations.read(paths.SPLIT / "train.jsonl", annotations.Record)
    known = [
        annotations.Image(
            image=images.sha256(paths.DATA / one.file),
            file=one.file,
            width=32,
            height=32,
            caption=one.caption,
            artwork=one.file,
        )
        for one in records
    ]
    (paths.ANNOTATE / "images.jsonl").write_text(annotations.lines(known))
    rows = {"human ann": [], "human bob": []}
    for place, one in enumerate(known):
        other = "negative" if place % 2 else "positive"
        turned = {"negative": "positive", "positive": "negative"}[other]
        for name, pole in (
            ("human ann", other),
            ("human bob", turned if not place % 3 else other),
        ):
            rows[name].append(
                Judgement(
                    image=one.image, criterion=path, pole=pole, annotator=name, confidence=1.0
                )
            )
    for name, said in rows.items():
        Path(f"{name[-3:]}.jsonl").write_text(annotations.lines(said))
    return studio, path, len(known)


def test_a_person_is_certified_against_another(judged, tmp_path):
    profile, path, count = judged

    certify.run(
        profile, wish(tmp_path / "c", judge=Path("bob.jsonl"), against=[Path("ann.jsonl")])
    )

    (file,) = (tmp_path / "c").glob("human-bob-*.json")
    standing = certificate.read(file).standings[path]
    shown = min(count, 16)
    assert standing.against["human ann"].both == shown
    assert standing.controls == {}
    assert standing.verdict == "open"
    assert standing.against["human ann"].agree.estimate < 1


def test_whose_answers_are_meant_has_to_be_said(judged, tmp_path):
    profile, _, _ = judged
    Path("both.jsonl").write_text(Path("ann.jsonl").read_text() + Path("bob.jsonl").read_text())

    with pytest.raises(AnnotationError, match="of human ann, human bob; say whose by --name"):
        certify.run(profile, wish(tmp_path / "c", judge=Path("both.jsonl")))

    with pytest.raises(AnnotationError, match="no answer of human eve"):
        certify.run(profile, wish(tmp_path / "c", judge=Path("both.jsonl"), name="human eve"))


def test_a_folder_without_pictures_to_examine_says_so(judged, tmp_path, paint):
    profile, _, _ = judged
    paint(tmp_path / "elsewhere" / "a.png", 1)

    with pytest.raises(ArtifactError, match="fewer than two can be used"):
        certify.run(profile, wish(tmp_path / "c", folder=tmp_path / "elsewhere"))


def test_the_annotator_is_examined_on_a_folder_without_anybody_to_compare(
    judged, tmp_path, paint
):
    profile, _, _ = judged
    files = [paint(tmp_path / "elsewhere" / f"{seed}.png", seed) for seed in range(4)]

    certify.run(profile, wish(tmp_path / "c", folder=tmp_path / "elsewhere", pairs=0))

    (file,) = (tmp_path / "c").glob("*.json")
    said = json.loads(file.read_text())
    assert said["references"] == {}
    assert said["pictures"] == len({images.sha256(one) for one in files})


def test_the_command_takes_its_options(workspace):
    result = CliRunner().invoke(app, ["judge", "certify", "--judge", "absent.jsonl"])

    assert result.exit_code == 2
    assert re.search(r"Error: .*images.jsonl is absent", result.output)


@pytest.fixture
def real(tmp_path, monkeypatch):
    """The profile of real paintings, at a size at which brushwork is seen."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(paths, "JUDGED_BY", tmp_path / "absent.yaml")
    monkeypatch.setattr(paths, "ANSWERS", tmp_path / "answers")
    profile = read_profile(paths.profile("paintings"))
    model = profile.model.model_copy(update={"pixels": 384})
    return profile.model_copy(update={"model": model})


@pytest.mark.slow
@pytest.mark.skipif(not PAINTINGS.is_dir(), reason="no paintings beside the repository")
def test_on_real_paintings_the_measured_annotator_repeats_itself(real, tmp_path):
    few = {"folder": PAINTINGS, "pictures": 10, "pairs": 2}

    page = certify.run(real, wish(tmp_path / "certificates", **few))

    (file,) = (tmp_path / "certificates").glob("*.json")
    found = certificate.read(file)
    assert found.references == {}
    assert found.pictures == 10
    for path, one in found.standings.items():
        assert one.controls["repeated"].kept.estimate == 1, path
        assert one.controls["looks"].kept.estimate > 0, path
    settled = [one.compared["settled"] for one in found.standings.values() if one.compared]
    assert {one.estimate for one in settled} == {1}
    assert "Settled" in page.read_text()


@pytest.mark.slow
@pytest.mark.skipif(not PAINTINGS.is_dir(), reason="no paintings beside the repository")
def test_on_real_paintings_an_agent_that_answers_by_chance_is_found_out(
    real, vlm, model_server, tmp_path
):
    annotate = real.annotate.model_copy(
        update={"annotator": "vlm", "vlm": VLMParams.model_validate(vlm)}
    )
    profile = real.model_copy(update={"annotate": annotate})

    certify.run(
        profile, wish(tmp_path / "certificates", folder=PAINTINGS, pictures=24, pairs=0)
    )

    (file,) = (tmp_path / "certificates").glob("*.json")
    found = certificate.read(file)
    for path in found.standings:
        assert {"mirrored", "recompressed", "resized"} <= set(found.failing[path])
