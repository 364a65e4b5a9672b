import subprocess
import sys
from pathlib import Path

import yaml
from typer.testing import CliRunner

from tasks.__main__ import app

HEAVY = {"torch", "mlflow", "pydantic", "yaml", "PIL", "numpy", "dvc", "prefect"}


def invoke(*words):
    return CliRunner().invoke(app, words)


def change(workspace, old, new, file="params/starter.yaml"):
    path = workspace / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_help_imports_nothing_heavy():
    said = subprocess.run(
        [sys.executable, "-c", "import sys, tasks.__main__; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert not HEAVY & set(said.stdout.split())


def test_every_stage_of_dvc_yaml_is_a_command():
    stages = yaml.safe_load((Path(__file__).parents[2] / "dvc.yaml").read_text())["stages"]
    said = invoke("--help").output

    for name, stage in stages.items():
        assert stage["cmd"] == f"python -m tasks {name}"
        assert f" {name} " in said


def test_all_mistakes_of_a_profile_at_once_without_traceback(workspace):
    change(workspace, "learning_rate: 0.001", "learning_rate: -1")
    change(workspace, "salt:", "slat:")

    result = invoke("split")

    assert result.exit_code == 2
    assert result.stderr.startswith("Error: params/starter.yaml does not fit:\n")
    assert "sft.learning_rate: input should be greater than 0, got -1" in result.stderr
    assert "split.salt: field required" in result.stderr
    assert "split.slat: extra inputs are not permitted" in result.stderr
    assert "Traceback" not in result.output


def test_a_broken_criteria_file_is_said_by_every_stage(workspace):
    change(workspace, "negative: clashing colours", "", "params/criteria/starter.yaml")

    result = invoke("sft")

    assert result.exit_code == 2
    assert "colour/harmony: a leaf needs both 'positive' and 'negative'" in result.stderr


def test_a_mistyped_switch_lists_the_profiles_there_are(workspace):
    change(workspace, "starter", "sdlx", "params/profile.yaml")

    result = invoke("annotate")

    assert result.exit_code == 2
    assert "params/sdlx.yaml is absent" in result.stderr
    assert "profile, starter" in result.stderr


def test_a_missing_upstream_artifact_says_what_to_run(workspace, mlflow_folder):
    result = invoke("split")

    assert result.exit_code == 2
    assert (
        "artifacts/annotate/images.jsonl is absent; run `dvc repro annotate`" in result.stderr
    )


def test_a_base_of_another_family_stops_the_first_stage(workspace):
    path = workspace / "params/starter.yaml"
    values = yaml.safe_load(path.read_text())
    network = {
        "kind": "flux", "double_blocks": 1, "single_blocks": 1, "heads": 2, "head_width": 16,
        "text_width": 16, "pooled_width": 16,
    }  # fmt: skip
    values["base"] = {
        "corpus": "data", "images": 10, "codec": {"kind": "folder", "path": "codec"},
        "network": network, "caption_dropout": 0, "grid_guidance": 1, "learning_rate": 0.1,
        "training": values["sft"]["training"],
    }  # fmt: skip
    values["model"]["family"] = "sdxl"
    path.write_text(yaml.safe_dump(values))

    result = invoke("annotate")

    assert result.exit_code == 2
    assert "base.network.kind should be model.family, 'sdxl', is 'flux'" in result.stderr
