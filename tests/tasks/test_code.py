"""What a stage's code is: words and places do not move its hash, logic does."""

import json
import textwrap

import pytest
import yaml

from atelier.errors import ArtifactError
from tasks import code
from tasks.code import Packages
from tasks.run import paths

FILES = {
    "atelier/__init__.py": '"""The library."""\n',
    "atelier/atomic.py": "def write(): ...\n",
    "atelier/mathematics.py": """
        \"\"\"Sums.\"\"\"
        import math
        from typing import TYPE_CHECKING

        if TYPE_CHECKING:
            from atelier.never import Never

        def area(radius):
            return math.pi * radius
        """,
    "atelier/volume.py": "def area(radius):\n    return 4 * radius\n",
    "atelier/never.py": "class Never: ...\n",
    "atelier/page.py": "SIDE = 3\n",
    "atelier/page.html.j2": "<p>{{ side }}</p>\n",
    "atelier/objectives/__init__.py": "",
    "atelier/objectives/shared.py": "def mean(): ...\n",
    "atelier/objectives/cpo_s.py": """
        from typing import Literal
        from atelier.objectives.shared import mean

        class CPOS:
            objective: Literal["cpo-s"]
        """,
    "atelier/objectives/dpo.py": """
        from typing import Literal

        class DPO:
            objective: Literal["dpo"]
            beta: float
        """,
    "tasks/__init__.py": "",
    "tasks/split.py": """
        from atelier import atomic
        from atelier.mathematics import area

        def run(radius):
            from atelier import page

            return area(radius) + page.SIDE
        """,
    "tasks/cpo.py": """
        from atelier import volume

        def run(profile):
            return len(profile.cpo.objectives)
        """,
}


@pytest.fixture
def house(tmp_path):
    for name, text in FILES.items():
        write(tmp_path / name, text)
    return tmp_path


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text).lstrip())


def replace(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def split(house):
    return Packages(house).of_stage("split", ["cpo-s"])


def cpo(house, *kinds):
    return Packages(house).of_stage("cpo", kinds)


def modules(house, stage, *kinds):
    common, objectives = Packages(house).modules(stage, kinds)
    return sorted(common), {kind: sorted(own) for kind, own in objectives.items()}


def test_a_stages_modules_are_what_it_imports_without_what_cannot_change_its_results(house):
    assert modules(house, "split", "dpo") == (
        ["atelier", "atelier.mathematics", "atelier.page", "tasks", "tasks.split"],
        {},
    )


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("atelier/mathematics.py", "return", "# A comment.\n    return"),
        ("atelier/mathematics.py", '"""Sums."""', '"""Other words."""'),
        ("atelier/mathematics.py", "(radius):", "(radius: float) -> float:"),
        ("atelier/mathematics.py", "math.pi * radius", "(\n        math.pi\n        * radius)"),
        ("atelier/mathematics.py", "import Never", "import Never as Nothing"),
        ("atelier/atomic.py", "...", "return 1"),
        ("atelier/never.py", "...", "sure = True"),
        ("tasks/cpo.py", "len", "sum"),
    ],
)
def test_words_and_what_a_stage_does_not_run_change_nothing(house, file, old, new):
    before = split(house)

    replace(house / file, old, new)

    assert split(house) == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("atelier/mathematics.py", "math.pi * radius", "math.pi + radius"),
        ("atelier/mathematics.py", "def area(radius)", "def area(radius=1)"),
        ("atelier/__init__.py", '"""The library."""', "import sys"),
        ("atelier/page.py", "3", "4"),
        ("atelier/page.html.j2", "<p>", "<b>"),
        ("tasks/split.py", "+ page", "- page"),
    ],
)
def test_a_changed_line_changes_the_stages_that_run_it(house, file, old, new):
    before, other = split(house), cpo(house)

    replace(house / file, old, new)

    assert split(house) != before
    assert (cpo(house) == other) == ("__init__" not in file)


def test_a_moved_module_and_a_new_place_for_its_template_change_nothing(house):
    before = split(house)
    for name in ("page.py", "page.html.j2"):
        write(house / "atelier/reports" / name, FILES[f"atelier/{name}"])
        (house / "atelier" / name).unlink()
    write(house / "atelier/reports/__init__.py", '"""Pages."""\n')
    write(house / "atelier/deep/mathematics.py", FILES["atelier/mathematics.py"])
    (house / "atelier/mathematics.py").unlink()
    replace(
        house / "tasks/split.py", "from atelier import page", "from atelier.reports import page"
    )
    replace(house / "tasks/split.py", "atelier.mathematics", "atelier.deep.mathematics")

    assert split(house) == before


def test_the_same_name_from_another_module_is_other_code_though_both_are_imported(house):
    replace(house / "tasks/split.py", "def run", "from atelier import volume\n\ndef run")
    before = split(house)

    replace(house / "tasks/split.py", "atelier.mathematics", "atelier.volume")
    replace(house / "tasks/split.py", "import volume", "import mathematics as volume")
    assert split(house) != before
    both = split(house)
    replace(house / "tasks/split.py", "atelier.volume", "atelier.mathematics")

    assert split(house) != both


def test_an_objective_counts_where_it_is_trained_and_nowhere_else(house):
    before = cpo(house, "cpo-s")
    assert modules(house, "cpo", "cpo-s") == (
        ["atelier", "atelier.volume", "tasks", "tasks.cpo"],
        {
            "cpo-s": [
                "atelier.objectives",
                "atelier.objectives.cpo_s",
                "atelier.objectives.shared",
            ]
        },
    )

    replace(house / "atelier/objectives/dpo.py", "float", "int")
    assert cpo(house, "cpo-s") == before
    both = cpo(house, "cpo-s", "dpo")
    replace(house / "atelier/objectives/shared.py", "...", "return 0")

    after = cpo(house, "cpo-s", "dpo")
    assert after["common"] == before["common"]
    assert after["objectives"]["cpo-s"] != both["objectives"]["cpo-s"]
    assert after["objectives"]["dpo"] == both["objectives"]["dpo"]


def test_a_module_that_is_imported_by_a_string_counts(house):
    replace(
        house / "tasks/split.py",
        "def run",
        "import importlib\nimportlib.import_module('atelier.volume')\n\n\ndef run",
    )
    assert "atelier.volume" in modules(house, "split")[0]
    replace(house / "tasks/split.py", "'atelier.volume'", "f'atelier.objectives.{__name__}'")
    assert "atelier.objectives.dpo" in modules(house, "split")[0]

    replace(house / "tasks/split.py", "f'atelier.objectives.{__name__}'", "__name__")

    with pytest.raises(ArtifactError, match=r"tasks/split.py .* line 5 imports a module by a"):
        modules(house, "split")


def test_a_module_that_is_no_python_is_named(house):
    (house / "atelier/page.py").write_text("SIDE = \n")

    with pytest.raises(ArtifactError, match=r"atelier/page.py .*invalid syntax"):
        split(house)


def test_a_stage_refuses_to_run_other_code_than_its_file_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code.check("cpo")  # outside of DVC nobody says which code
    code.run()
    code.check("cpo")
    file = paths.CODE / "cpo.json"
    said = json.loads(file.read_text())
    said["common"]["modules"][0] = "another"
    file.write_text(json.dumps(said))

    with pytest.raises(ArtifactError, match=r"code/cpo.json is of other code, .*dvc repro cpo"):
        code.check("cpo")


def test_what_changed_since_is_named_by_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = json.loads(code.contents()[paths.CODE / "split.json"])
    assert code.changed("split", before) == []

    before["common"]["modules"] = before["common"]["modules"][1:]

    (file,) = code.changed("split", before)
    assert file.suffix == ".py"


def test_a_lora_that_a_training_begins_as_is_told_by_its_bytes_and_others_are_not(
    tmp_path, monkeypatch, profile
):
    monkeypatch.chdir(tmp_path)
    paths.LORAS.mkdir()
    paths.PARAMS.mkdir()
    paths.SWITCH.write_text("profile: toy\n")
    profile["sft"]["init"] = "loras/mine"
    profile["cpo"]["objectives"]["cpo-s"]["init"] = "loras/other.safetensors"
    paths.profile("toy").write_text(yaml.safe_dump(profile))
    (paths.LORAS / "mine").mkdir()
    for file in ("mine/adapter_model.safetensors", "mine/adapter_config.json",
                 "other.safetensors"):  # fmt: skip
        (paths.LORAS / file).write_text(file)

    def told(stage):
        return json.loads(code.contents()[paths.CODE / f"{stage}.json"])

    before = told("sft"), told("cpo")
    (paths.LORAS / "unused.safetensors").write_text("x")
    assert (told("sft"), told("cpo")) == before
    assert sorted(before[0]["origins"]) == [
        "loras/mine/adapter_config.json",
        "loras/mine/adapter_model.safetensors",
    ]
    assert "origins" not in told("generate")

    (paths.LORAS / "mine/adapter_config.json").write_text("another alpha")

    assert told("sft") != before[0]
    assert told("cpo") == before[1]
    assert code.changed("sft", before[0]) == [paths.LORAS / "mine/adapter_config.json"]


def write_profile(source):
    paths.PARAMS.mkdir(exist_ok=True)
    paths.SWITCH.write_text("profile: toy\n")
    (paths.PARAMS / "toy.yaml").write_text(f"model: {{source: {source}}}\n")


def test_an_absent_base_is_told_before_anything_is_judged(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code.run()
    write_profile("base/toy")
    code.run()
    paths.BASE.mkdir()
    (paths.BASE / "toy.dvc").write_text("outs: []\n")
    code.run()
    (paths.BASE / "toy").mkdir()
    code.run()

    said = "base/toy is absent, which sft and all later stages read: "
    assert capsys.readouterr().err.splitlines() == [
        f"{said}`atelier base` trains a small one, or copy one there in diffusers' layout, as "
        "`cp -r base/starter base/toy`",
        f"{said}`dvc pull base/toy.dvc` fetches it",
    ]


COPIED = (
    "params/toy.yaml: model.source is 'base/starter', and the stages of this profile depend on "
    "base/toy, which is absent. Copy that base, `cp -r base/starter base/toy`, and set "
    "`model.source: base/toy`; or set `profile:` in params/profile.yaml to the profile whose "
    "base it is"
)


def test_a_profile_copied_without_its_base_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_profile("base/starter")
    (paths.BASE / "starter").mkdir(parents=True)

    with pytest.raises(ArtifactError) as refused:
        code.run()
    assert str(refused.value) == COPIED
    assert not paths.CODE.exists()

    write_profile("hub/a-model")
    with pytest.raises(ArtifactError, match=r"is on the hub, .*: `cp -r base/flux base/toy`"):
        code.run()

    (paths.BASE / "toy").mkdir()
    code.run()
