import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from atelier import images
from atelier.config.profile import Profile
from atelier.criteria import annotations
from atelier.criteria.annotations import Record
from cli.app import app
from survey import files, painters
from tasks.run import paths
from tasks.tracking import registry


def make(name="spring"):
    return CliRunner().invoke(app, ["survey", "make", name])


@pytest.fixture
def evaluated(study, paint):
    """A repository in which base and cpo-s have painted four captions."""
    paths.ANNOTATE.mkdir(parents=True)
    paths.JUDGED_BY.write_text((paths.CRITERIA / "starter.yaml").read_text())
    paths.SPLIT.mkdir(parents=True)
    records = [
        Record(
            image=f"{n:064x}", file=f"{n}.png", caption=f"a sea {n}", positive=[], negative=[]
        )
        for n in reversed(range(4))
    ]
    (paths.SPLIT / "test.jsonl").write_text(annotations.lines(records))
    for folder in (paths.SFT, paths.CPO / "cpo-s", paths.CPO / "cpo"):
        folder.mkdir(parents=True)
        (folder / registry.LORA).write_text("weights")
    for place, name in enumerate(("base", "cpo-s")):
        for n in range(4):
            paint(paths.GENERATE / name / f"{n:03}.png", 10 * place + n)
    return study


def test_every_pair_shows_one_caption_by_both_painters(evaluated):
    assert make().exit_code == 0

    study, key = files.study("spring"), files.key("spring")
    assert study.captions == [f"a sea {n}" for n in range(4)]  # in generate's order
    assert [one.label for one in key.painters] == ["base", "θ cpo-s"]
    for sheets in study.sheets.values():
        for asked in (asked for sheet in sheets for asked in sheet):
            left, right = key.pictures[asked.left], key.pictures[asked.right]
            assert left.prompt == right.prompt == asked.caption
            assert (left.painter == right.painter) == (left.ruined != right.ruined)


def test_nothing_that_is_served_tells_who_painted_what(evaluated):
    make()
    folder = files.folder("spring")
    pictures = sorted((folder / "pictures").iterdir())
    served = (folder / "study.json").read_text()

    assert [one.name for one in pictures] == files.study("spring").pictures
    assert all(len(one.stem) == 32 for one in pictures)
    assert "cpo" not in served
    assert "base" not in served
    for picture in pictures:
        content = picture.read_bytes()
        kinds = [
            kind for kind in (b"tEXt", b"iTXt", b"zTXt", b"eXIf", b"tIME") if kind in content
        ]
        assert not kinds
    assert len({one.stat().st_mtime // 3600 for one in pictures}) == 1


def test_pictures_are_the_painters_own_and_names_differ_each_time(evaluated):
    make("one")
    make("two")
    first, second = files.key("one"), files.key("two")

    assert not set(first.pictures) & set(second.pictures)
    for name, shown in first.pictures.items():
        source = paths.GENERATE / shown.painter / f"{shown.prompt:03}.png"
        copy = np.array(Image.open(files.folder("one") / "pictures" / name))
        same = np.array_equal(copy, np.array(Image.open(source)))
        assert same != shown.ruined
        assert shown.sha256 == images.sha256(source)


def test_one_seed_asks_the_same_questions(evaluated):
    def questions(name):
        study, key = files.study(name), files.key(name)
        return [
            (
                group,
                *(key.pictures[side] for side in (asked.left, asked.right)),
                asked.dimension,
            )
            for group, sheets in study.sheets.items()
            for sheet in sheets
            for asked in sheet
        ]

    make("one")
    make("two")

    assert questions("one") == questions("two")


def test_captions_are_those_of_the_part_that_was_painted(evaluated):
    file = paths.profile("starter")
    file.write_text(file.read_text().replace("part: test", "part: validation"))
    test, validation = (paths.SPLIT / f"{part}.jsonl" for part in ("test", "validation"))
    validation.write_text(test.read_text().replace("a sea", "a hill"))

    make()

    assert files.study("spring").captions == [f"a hill {n}" for n in range(4)]


def test_a_metadata_chunk_does_not_travel(evaluated):
    from PIL import PngImagePlugin

    file = paths.GENERATE / "base/000.png"
    said = PngImagePlugin.PngInfo()
    said.add_text("painter", "base")
    Image.open(file).save(file, pnginfo=said)
    make()

    pictures = (files.folder("spring") / "pictures").iterdir()
    assert not [one for one in pictures if b"painter" in one.read_bytes()]


def test_a_study_is_not_drawn_over_another(evaluated):
    make()
    before = (files.folder("spring") / "study.json").read_bytes()

    again = make()

    assert again.exit_code == 2
    assert "artifacts/survey/spring exists" in again.stderr
    assert (files.folder("spring") / "study.json").read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("- cpo-s", "- nobody", "there is no model named 'nobody'"),
        ("pairs: 4", "pairs: 5", "should be at most 4, the number of generated captions"),
        ("- base", "- cpo-s", "should hold each name once"),
        ("http://127.0.0.1:8100", "http://x/path", "survey.address: should be http"),
    ],
)
def test_what_cannot_be_drawn_is_said_at_once_and_leaves_nothing(evaluated, old, new, said):
    file = paths.profile("starter")
    head, section = file.read_text().split("survey:\n")
    assert old in section
    file.write_text(f"{head}survey:\n{section.replace(old, new, 1)}")

    refused = make()

    assert refused.exit_code == 2
    assert said in refused.stderr
    assert "Traceback" not in refused.output
    assert not files.folder("spring").exists()


def test_pictures_that_are_not_of_all_captions_are_refused(evaluated):
    (paths.GENERATE / "cpo-s/003.png").unlink()

    refused = make()

    assert refused.exit_code == 2
    assert "artifacts/generate/cpo-s should contain 4 pictures" in refused.stderr
    assert not files.folder("spring").exists()


def test_a_key_of_another_study_is_refused(evaluated):
    make("one")
    make("two")
    key = files.folder("two") / "key.json"
    (files.folder("one") / "key.json").write_text(key.read_text())

    refused = CliRunner().invoke(app, ["survey", "analyze", "one"])

    assert refused.exit_code == 2
    assert "belongs to another study" in refused.stderr


def test_a_damaged_file_names_the_field(evaluated):
    make()
    file = files.folder("spring") / "study.json"
    values = json.loads(file.read_text()) | {"raters": "many"}
    file.write_text(json.dumps(values))

    refused = CliRunner().invoke(app, ["survey", "status", "spring"])

    assert refused.exit_code == 2
    assert "raters" in refused.stderr


@pytest.fixture
def registered(evaluated, monkeypatch):
    """MLflow's part, told: which weights were compared, and which the registry has."""
    evaluated_weights = {"cpo-s": "a" * 32}
    there = {"models:/m/1": ("cpo-s", "a" * 32), "models:/m/2": ("cpo-s", "b" * 32)}
    monkeypatch.setattr(registry, "evaluated_weights", lambda: evaluated_weights)
    monkeypatch.setattr(registry, "known", lambda address: there[address])
    return evaluated


def sources(profile, wanted, tmp_path):
    from atelier.criteria import tree

    profile["survey"]["painters"] = ["base", wanted]
    checked = Profile.model_validate(profile)
    criteria = tree.parse(paths.JUDGED_BY)
    return painters.of(checked, painters.records(checked), criteria, tmp_path / "work")


def test_a_registered_model_shows_the_pictures_that_lie_there(registered, profile, tmp_path):
    _, found = sources(profile, "models:/m/1", tmp_path)

    assert found.folder == paths.GENERATE / "cpo-s"
    assert found.painter.weights == "a" * 32


def test_a_registered_model_of_other_weights_paints_anew(
    registered, profile, tmp_path, monkeypatch, paint
):
    def painted(source, profile, asked, criteria):
        for n in range(len(asked)):
            paint(source.folder / f"{n:03}.png", 50 + n)

    monkeypatch.setattr(painters, "_paint", painted)

    _, found = sources(profile, "models:/m/2", tmp_path)

    assert found.folder == tmp_path / "work" / ("b" * 32)
    assert found.painter.weights == "b" * 32
