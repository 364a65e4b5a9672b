"""``atelier vary``: what is asked for, the rows of a grid, its record, and a page's marks."""

import json

import pytest
from PIL import Image

from atelier import images
from atelier.config.profile import Profile
from atelier.errors import ParamsError
from atelier.models.files import weight_files
from tasks import cpo, sft
from tasks.commands import vary
from tasks.commands.vary import Variation, Wish
from tasks.run import paths

OMEGA = "cpo.objectives.cpo-s.omega=0,4.5"
PAGE = """# Page
<!-- vary: generate.steps=1,2 -->
not yet
<!-- end of vary -->
between
<!-- vary: cpo.objectives.cpo-s.omega=0,4.5 -->
<!-- end of vary -->
"""


def wish(out, *texts, **changes):
    usual = {"model": "theta1", "pictures": 4, "columns": 2, "out": out}
    return Wish(variations=[vary.parse(one) for one in texts], **usual | changes)


def written(wish, name):
    with Image.open(wish.out / f"{name}.webp") as picture:
        size = picture.size
    return json.loads((wish.out / f"{name}.json").read_text()), size


def test_a_setting_and_its_values_are_read():
    assert vary.parse(OMEGA) == Variation(OMEGA, "cpo-s", "omega", (0, 4.5))
    sampled = vary.parse("generate.guidance=1,1.5")
    assert (sampled.objective, sampled.field) == (None, "guidance")
    assert vary.parse(OMEGA).name == "vary-cpo-s-omega"
    assert sampled.name == "vary-guidance"
    assert vary.parse(OMEGA).state(4.5) == "cpo-s-omega-4-5"
    assert vary.parse(OMEGA).state(-1) == "cpo-s-omega-minus-1"
    assert vary.parse(OMEGA).label(4.5) == "ω 4.5"
    assert vary.parse("cpo.objectives.a.learning_rate=0.1").label(0.1) == "learning rate 0.1"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sft.training.steps=1,2", "should be one of an objective.*`atelier sweep` runs"),
        ("generate.prompts=1,2", "should be one of an objective"),
        ("cpo.objectives.dpo.beta", "give different values after ="),
        ("cpo.objectives.dpo.beta=", "give different values after ="),
        ("cpo.objectives.dpo.beta=1,1", "give different values after ="),
        ("cpo.objectives.dpo.beta=[1", "give different values after ="),
        ("generate.steps=1.5", "1.5 should be a number of at least 1"),
        ("generate.guidance=0.5,1", "0.5 should be a number of at least 1"),
        ("generate.guidance=true", "True should be a number of at least 1"),
    ],
)
def test_what_cannot_be_varied_is_refused(text, says):
    with pytest.raises(ParamsError, match=says):
        vary.parse(text)


def test_each_value_is_an_objective_and_differs_in_the_setting_alone(studio, profile):
    entry = profile["cpo"]["objectives"]["cpo-s"] | {"milestones": [1]}
    profile["cpo"]["objectives"]["cpo-s"] = entry

    found = vary.objectives(profile, wish(paths.ARTIFACTS, OMEGA, "generate.steps=1,2"))

    assert found == {
        "cpo-s-omega-0": entry | {"omega": 0, "milestones": []},
        "cpo-s-omega-4-5": entry | {"omega": 4.5, "milestones": []},
    }
    shown = wish(paths.ARTIFACTS, "generate.steps=1,2", model="cpo")
    assert list(vary.objectives(profile, shown)) == ["cpo"]
    with pytest.raises(ParamsError, match="there is no 'dpo'"):
        vary.objectives(profile, wish(paths.ARTIFACTS, "cpo.objectives.dpo.beta=1,2"))


def test_sampling_varies_without_a_training(gallery, tmp_path, capsys):
    asked = wish(tmp_path / "v", "generate.steps=1,2", "generate.guidance=1,2")

    files = vary.run(gallery, asked, gallery, {"commit": "abc"})

    assert [file.name for file in files] == ["vary-steps.webp", "vary-guidance.webp"]
    told, (width, height) = written(asked, "vary-steps")
    assert width > 2 * 32
    assert height > 2 * 32
    assert told["commit"] == "abc"
    assert [row["sampling"]["steps"] for row in told["rows"]] == [1, 2]
    assert {row["sampling"]["guidance"] for row in told["rows"]} == {1.0}
    assert {row["state"] for row in told["rows"]} == {"theta1"}
    guided, _ = written(asked, "vary-guidance")
    assert [row["sampling"]["guidance"] for row in guided["rows"]] == [1, 2]
    # Two steps without guidance are a row of both grids, and were painted once.
    assert told["rows"][1]["negatives"] == guided["rows"][0]["negatives"]
    assert len(list((paths.ARTIFACTS / "vary/pictures").iterdir())) == 3
    assert {file.suffix for file in (tmp_path / "v").iterdir()} == {".webp", ".json"}
    assert "| sampling steps 1 | " in capsys.readouterr().out


def test_a_training_varies_from_one_theta1_and_is_pinned(gallery, notebook, profile, tmp_path):
    sft.run(gallery, notebook)
    asked = wish(tmp_path / "v", OMEGA, document=tmp_path / "page.md")
    asked.document.write_text(PAGE)
    wanted = vary.objectives(profile, asked)
    varied = profile["cpo"] | {"objectives": wanted, "featured": "cpo-s-omega-0"}
    trained = Profile.model_validate(profile | {"cpo": varied | {"keep_targets": True}})
    cpo.run(trained, notebook)

    vary.run(trained, asked, gallery, {})

    told, _ = written(asked, "vary-cpo-s-omega")
    assert [row["row"] for row in told["rows"]] == ["θ1", "ω 0", "ω 4.5"]
    assert [row["value"] for row in told["rows"]] == [None, 0, 4.5]
    assert told["theta1"] == told["rows"][0]["lora"]
    loras = [row["lora"] for row in told["rows"][1:]]
    assert loras == [
        images.sha256(weight_files.file(paths.CPO / name))
        for name in ("cpo-s-omega-0", "cpo-s-omega-4-5")
    ]
    assert len(set(loras)) == 2
    assert told["rows"][2]["objective"]["omega"] == 4.5
    assert len(told["base"]["hash"]) == 64
    assert told["training"]["steps"] == 4
    assert len(told["captions"]) == len(told["seeds"]) == 4
    text = asked.document.read_text()
    assert "not yet\n" in text  # the grid of another mark was not asked for
    assert "![Rows: θ1, ω 0, ω 4.5](v/vary-cpo-s-omega.webp)\n" in text
    said = " ".join(text.split())
    assert "trained for 4 steps of 2 images and sampled with 2 steps, without guidance" in said
    assert f"over 4 pictures of {len(set(told['captions']))} captions" in said
    assert text.endswith("|\n<!-- end of vary -->\n")


def test_the_marks_of_a_page_say_what_is_varied(tmp_path):
    file = tmp_path / "page.md"
    file.write_text(PAGE)

    assert [one.text for one in vary.in_document(file)] == ["generate.steps=1,2", OMEGA]
    changed = vary.documented(file, "generate.steps=1,2", "new\n\nlines")
    assert changed == PAGE.replace("not yet", "new\n\nlines")
    with pytest.raises(ParamsError, match=r"has no mark `<!-- vary: generate\.steps=9 -->`"):
        vary.documented(file, "generate.steps=9", "")
    with pytest.raises(ParamsError, match="has no place for a grid"):
        vary.in_document(tmp_path / "absent.md")


@pytest.mark.parametrize(
    ("varied", "says"),
    [
        ("generate.steps=2,4", "All rows are θ1, sampled with guidance 2."),
        ("generate.guidance=1,2", "All rows are θ1, sampled with 4 steps."),
    ],
)
def test_the_sentence_names_what_stays(varied, says):
    how = {"steps": 4, "guidance": 2.0, "distilled_guidance": None}
    row = {"row": "a", "state": "theta1", "sampling": how, "negatives": {}}
    told = {"varied": varied, "rows": [row], "captions": ["a", "a", "b"]}

    assert says in " ".join(vary.markdown(told, "a.webp").split())


def test_a_table_by_hand():
    def row(name, estimate):
        interval = {"estimate": estimate, "low": 0.5, "high": 1.25, "count": 4}
        return {"row": name, "negatives": {"a": interval, "b": interval}}

    assert vary.table({"rows": [row("θ1", 1.0), row("β 10", 0.75)]}) == [
        "| | #A_neg by a | #A_neg by b |",
        "|---|---|---|",
        "| θ1 | 1.00 [0.50, 1.25] | 1.00 [0.50, 1.25] |",
        "| β 10 | 0.75 [0.50, 1.25] | 0.75 [0.50, 1.25] |",
    ]


def test_a_model_or_a_mark_that_is_absent_is_refused_before_trainings(gallery, tmp_path):
    with pytest.raises(ParamsError, match="'theta2' is unknown"):
        vary.check(wish(tmp_path, "generate.steps=1,2", model="theta2"), gallery)
    with pytest.raises(ParamsError, match="has no place for a grid"):
        vary.check(wish(tmp_path, OMEGA, document=tmp_path / "absent.md"), gallery)
    vary.check(wish(tmp_path, OMEGA, model="theta2"), gallery)
