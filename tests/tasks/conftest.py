import shutil

import pytest
import yaml

CRITERIA = """
domain: painting
version: "1"
literature: {}
criteria:
  colour:
    name: Colour
    about: Colours and their relations.
    branches:
      harmony:
        positive: harmonious colours
        negative: clashing colours
        positive_means: They share a key.
        negative_means: They fight.
        applies: any
        sources: []
"""


@pytest.fixture
def workspace(tmp_path, monkeypatch, profile):
    """A folder with the switch, a valid profile and its criteria: the working directory."""
    monkeypatch.chdir(tmp_path)
    for variable in ("MLFLOW_TRACKING_URI", "ATELIER_PIPELINE"):
        monkeypatch.setenv(variable, "")  # absent again afterwards: MLflow sets one
        monkeypatch.delenv(variable)
    (tmp_path / "params/criteria").mkdir(parents=True)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "params/profile.yaml").write_text("profile: starter\n")
    (tmp_path / "params/starter.yaml").write_text(yaml.safe_dump(profile))
    (tmp_path / "params/criteria/starter.yaml").write_text(CRITERIA)
    return tmp_path


@pytest.fixture
def reported(notebook):
    """A function that runs the stages from generate to report."""

    def run(profile):
        from tasks import evaluate, generate, report

        for stage in (generate, evaluate, report):
            stage.run(profile, notebook)

    return run


@pytest.fixture
def mlflow_folder(workspace, mlflow_tables):
    """The workspace's own MLflow, with its tables made."""
    folder = workspace / "artifacts/mlflow"
    folder.mkdir(parents=True)
    shutil.copy(mlflow_tables, folder)
    return folder
