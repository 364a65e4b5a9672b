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
    return enter_workspace(tmp_path, monkeypatch, profile)


def enter_workspace(folder, patch, profile):
    """Make a folder the workspace; for fixtures that several tests share."""
    patch.chdir(folder)
    for variable in ("MLFLOW_TRACKING_URI", "ATELIER_PIPELINE"):
        patch.setenv(variable, "")  # absent again afterwards: MLflow sets one
        patch.delenv(variable)
    (folder / "params/criteria").mkdir(parents=True)
    (folder / "dvc.yaml").write_text("stages: {}\n")
    (folder / "params/profile.yaml").write_text("profile: starter\n")
    (folder / "params/starter.yaml").write_text(yaml.safe_dump(profile))
    (folder / "params/criteria/starter.yaml").write_text(CRITERIA)
    return folder


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
