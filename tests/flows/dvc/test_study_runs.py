import contextlib
import json
import shutil
import subprocess
import threading
import time

import pytest
import yaml
from prefect.logging import disable_run_logger

from atelier import images
from atelier.criteria import annotations
from atelier.criteria.annotations import Judgement
from atelier.errors import ArtifactError, ParamsError
from atelier.reports.study import report
from flows import study as experiments
from flows.dvc import stages, study_runs
from tasks.run import paths

STUDY = """
profile: toy
seeds: [0, 1]
tuning_seed: 7
tuning_prompts: 2
reference: theta1
proposed: cpo-s
settings: {generate.steps: 3}
methods:
  cpo-s:
    - &cpos {objective: cpo-s, loser_target: mirror-winner, winner: labelled, teacher: sft,
             confidence: ignored, omega: 5, weighting: constant, learning_rate: 0.001}
    - {<<: *cpos, omega: 10}
  cpo:
    - &cpo {objective: cpo, winner: labelled, teacher: sft, confidence: ignored, beta: 500,
            weighting: constant, learning_rate: 0.001}
    - {<<: *cpo, beta: 100}
  dpo:
    - {objective: dpo, beta: 500, learning_rate: 0.001}
    - {objective: dpo, beta: 100, learning_rate: 0.001}
guided: {guidance: 2.0, methods: [cpo-s, dpo], caption_dropout: 0.2,
         npo: {objective: npo, beta: 500, learning_rate: 0.001, w: 0.0, beside: [base, cpo-s]}}
sweep: {field: omega, values: [2, 5, 10]}
variants: {flipped: {winner: flipped}}
steps: {values: [2], methods: [cpo-s, cpo]}
volumes: [0.5]
"""


def leaf(name):
    words = {"positive": f"good {name}", "negative": f"bad {name}"}
    return words | {
        "positive_means": "", "negative_means": "", "applies": "any", "sources": []
    }  # fmt: skip


CRITERIA = {
    "domain": "toy", "version": "1", "literature": {},
    "criteria": {
        root: {
            "name": root, "about": "",
            "branches": {f"c{n}": leaf(f"{root} {n}") for n in range(4)},
        }
        for root in ("colour", "light", "edges")
    },
}  # fmt: skip
META = stages.Meta(gpu=1, memory=0, retries=0, timeout=1, silence=1)
STAGE = stages.Stage(name="cpo", needs=(), outs=(), about="", meta=META)
JUDGES = ("measured-1", "starter-features-1")


@pytest.fixture
def values():
    return yaml.safe_load(STUDY)


@pytest.fixture
def here(tmp_path, monkeypatch, profile, values):
    """A repository with the study's files, in which an experiment costs nothing."""
    monkeypatch.chdir(tmp_path)
    paths.PARAMS.mkdir()
    (paths.PARAMS / "study.yaml").write_text(yaml.safe_dump(values))
    (paths.PARAMS / "toy.yaml").write_text(yaml.safe_dump(profile))
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *words], check=True)
    return tmp_path


class Silent:
    """Stands where MLflow's run of the study would: keeps what the study says of itself."""

    def __init__(self):
        self.said, self.found, self.files = {}, {}, []

    def tags(self, values):
        self.said |= values

    def metrics(self, values, done):
        self.found[done] = values

    def file(self, path):
        self.files.append(path.as_posix())


@pytest.fixture
def tracked(monkeypatch):
    """What MLflow was told of the study."""
    silent = Silent()

    @contextlib.contextmanager
    def study_run(key, settings, tell):
        silent.key, silent.settings = key, settings
        yield silent

    monkeypatch.setattr(study_runs.mlflow_runs, "study", study_run)
    return silent


@pytest.fixture
def ran(monkeypatch, tracked):
    """What was run, by the profile it ran with; each painter has its own #A_neg."""
    done = {}

    def reproduce(workspace, name, more, tell):
        profile = yaml.safe_load((workspace / "params/toy.yaml").read_text())
        done[name] = profile
        tracked.variables = more
        leave(workspace, profile)

    monkeypatch.setattr(study_runs, "_reproduce", reproduce)
    monkeypatch.setattr(study_runs, "_share", lambda source, target: None)
    return done


def leave(workspace, profile):
    """Write what the stages would."""
    for folder in (paths.GENERATE, paths.EVALUATE, paths.REPORT, paths.CPO):
        shutil.rmtree(workspace / folder, ignore_errors=True)
    plots = workspace / paths.PLOTS
    plots.mkdir(parents=True)
    (plots / "prompts.csv").write_text("prompt,caption\n0,a pond\n1,NA\n")
    (workspace / paths.JUDGED_BY).parent.mkdir(parents=True, exist_ok=True)
    (workspace / paths.JUDGED_BY).write_text(yaml.safe_dump(CRITERIA))
    entries = profile["cpo"]["objectives"]
    painters = ["base", "theta1", *(n for n in entries if n != "npo")]
    if "npo" in entries:
        painters += [f"{other}+npo" for other in entries["npo"]["beside"]]
    metrics = {}
    for place, painter in enumerate(painters):
        folder = workspace / paths.GENERATE / painter
        folder.mkdir(parents=True)
        rows = []
        bad = {"base": 4, "theta1": 3, "cpo": 2, "dpo": 3, "omega-5": 0}.get(painter, 1)
        for number in range(2):
            file = folder / f"{number:03}.png"
            file.write_bytes(f"{painter} {number}".encode())
            rows += [
                Judgement(image=images.sha256(file), criterion=f"{root}/c{n}", pole="negative",
                          annotator=judge, confidence=1)
                for judge in JUDGES
                for n, root in enumerate(["colour", "light", "colour", "edges"][:bad])
            ]  # fmt: skip
        text = annotations.lines(rows)
        file = workspace / paths.EVALUATE / "judgements" / painter / "judgements.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text(text)
        metrics[painter] = {"negatives": bad, "fid": 10.0 + place, "kid": 0.01}
    (workspace / paths.SUITES).write_text(json.dumps(metrics))
    for name in entries:
        folder = workspace / paths.CPO / name
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text('{"drift": 0.25}')
        (folder / "curve.tsv").write_text("step\tdrift\tgradient_norm\n1\t0.1\t2\n4\t0.25\t1\n")


@pytest.fixture
def unwritten(monkeypatch):
    """No document is written after each experiment: figures take their time."""
    monkeypatch.setattr(study_runs, "write", lambda *said: None)


@pytest.fixture
def undrawn(monkeypatch):
    """The document is written without its figures."""
    monkeypatch.setattr(study_runs.figures, "write", lambda *said: None)


def test_the_grid_is_tuned_on_validation_and_run_on_test(here, ran, unwritten):
    study_runs.run("study", lambda line: None)

    tuning = ran.pop("tuning")
    assert tuning["generate"]["part"] == "validation"
    assert tuning["cpo"]["training"]["seed"] == 7
    assert len(tuning["cpo"]["objectives"]) == 6
    kinds = {name.rsplit("-", 1)[0] for name in ran}
    assert kinds == {
        "methods",
        "guided",
        "guided-dropout",
        "steps2",
        "sweep",
        "variants",
        "volume50",
    }
    assert len(ran) == 2 * len(kinds)
    for name, profile in ran.items():
        assert profile["generate"]["part"] == "test"
        assert profile["generate"]["steps"] == 3  # settings hold for all
        assert profile["sft"]["training"]["seed"] == 0  # one teacher
        assert profile["cpo"]["training"]["seed"] == int(name[-1])
    assert ran["volume50-1"]["split"]["train_share"] == 0.5
    assert ran["guided-dropout-0"]["cpo"]["caption_dropout"] == 0.2
    assert ran["steps2-0"]["cpo"]["training"]["steps"] == 2


def test_mlflow_has_the_study_with_what_was_found_and_stages_log_under_it(
    here, ran, tracked, unwritten
):
    study_runs.run("study", lambda line: None)

    assert tracked.settings["methods"]["dpo"][0]["beta"] == 500
    assert tracked.said["chosen.dpo"] == "1"
    last = max(tracked.found)
    assert last == 14
    assert tracked.found[last]["negatives/cpo"] == 2
    assert tracked.found[last]["fid/base"] == 10
    assert tracked.files == ["docs/study.md"]
    assert tracked.variables == {
        "ATELIER_STUDY": tracked.key,
        "ATELIER_PIPELINE": f"{tracked.key}/volume50-1",
        "MLFLOW_TRACKING_URI": f"sqlite:///{here}/artifacts/mlflow/mlflow.db",
    }
    assert tracked.key.startswith("study/")


def test_two_runs_of_one_study_wait_for_each_other(here, ran, unwritten):
    said = []
    with study_runs.runner.alone(paths.ARTIFACTS / "study/lock", "another", said.append):
        thread = threading.Thread(
            target=study_runs.run, args=("study", said.append), daemon=True
        )
        thread.start()
        while not said:
            time.sleep(0.01)
        assert said == ["another run of study is at work; waiting for it"]
        assert not ran
    thread.join(60)
    assert len(ran) == 15


def test_the_flow_offers_the_studies_of_params_and_tells_what_ran(
    here, ran, unwritten, monkeypatch
):
    (paths.PARAMS / "profile.yaml").write_text("profile: toy\n")
    done = []

    def have(attempt):
        state = experiments.experiment.fn(attempt)
        done.append((attempt.name, state.name))
        return state.data

    monkeypatch.setattr(experiments.gpus, "ensure_limit", lambda: None)
    monkeypatch.setattr(experiments.stages, "read", lambda: [STAGE])
    with disable_run_logger():
        study_runs.run("study", lambda line: None, have)
        first, done[:] = list(done), []
        study_runs.run("study", lambda line: None, have)

    assert study_runs.names() == ["study"]
    assert [name for name, _ in first] == [name for name, _ in done]
    assert {state for _, state in first} == {"Ran"}
    assert {state for _, state in done} == {"RanBefore"}
    assert experiments.experiment.cache_policy is experiments.NO_CACHE


def test_what_was_run_is_not_run_again_and_what_changed_is(here, ran, values, undrawn):
    study_runs.run("study", lambda line: None)
    before = study_runs.document("study").read_text()
    ran.clear()

    study_runs.run("study", lambda line: None)
    again = dict(ran)
    values["volumes"] = [0.5, 0.25]
    (paths.PARAMS / "study.yaml").write_text(yaml.safe_dump(values))
    study_runs.run("study", lambda line: None)

    assert not again
    assert set(ran) == {"volume25-0", "volume25-1"}
    assert "| 25% |" in study_runs.document("study").read_text()
    assert "| 25% |" not in before


def test_a_stopped_study_goes_on(here, ran, undrawn, monkeypatch):
    reproduce = study_runs._reproduce

    def once(workspace, name, more, tell):
        if name == "guided-0":
            raise ArtifactError("stopped")
        reproduce(workspace, name, more, tell)

    monkeypatch.setattr(study_runs, "_reproduce", once)
    with pytest.raises(ArtifactError, match="stopped"):
        study_runs.run("study", lambda line: None)
    monkeypatch.setattr(study_runs, "_reproduce", reproduce)
    partly = study_runs.document("study").read_text()
    ran.clear()
    study_runs.run("study", lambda line: None)

    assert "2 of 14 experiments" in partly
    assert "not run yet" in partly
    assert {"tuning", "methods-0", "methods-1"}.isdisjoint(ran)
    assert "14 of 14 experiments" in study_runs.document("study").read_text()


def test_the_document_says_what_was_found_and_what_became_of_each_claim(here, ran):
    (here / "docs/study").mkdir(parents=True)
    (here / "docs/study/reading.md").write_text("As expected.\n")

    study_runs.run("study", lambda line: None)

    text = study_runs.document("study").read_text()
    assert "| cpo | 2.00 [0.05, 10.92] |" in text
    assert "| cpo-s has fewer negatives than dpo (`measured-1`) | reproduced | -2.00" in text
    assert "| NPO beside cpo-s lowers #A_neg further | **not reproduced** | 0.00" in text
    assert "| ω has a sweet spot | reproduced | 2: 1.00, 5: 0.00, 10: 1.00 |" in text
    assert "Both judges rank all painters alike." in text
    assert "## Our reading\nAs expected.\n" in text
    assert len(list((study_runs.DOCUMENTS / "study").glob("*.png"))) == 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda v: v["methods"]["dpo"].pop(), "equally many configurations, have"),
        (lambda v: v.update(tuning_seed=1), "tuning_seed 1 should be none of seeds"),
        (lambda v: v.update(proposed="cpo-z"), "methods has no cpo-z"),
        (
            lambda v: v.update(settings={"generate.stepz": 3}),
            "study.yaml, settings: 'generate.stepz' is not a setting",
        ),
        (lambda v: v["sweep"].update(values=[-1]), "experiment sweep-0, does not fit"),
    ],
)
def test_a_study_that_does_not_fit_is_refused_before_it_costs_anything(
    here, ran, values, change, says
):
    change(values)
    (paths.PARAMS / "study.yaml").write_text(yaml.safe_dump(values))

    with pytest.raises(ParamsError, match=says):
        study_runs.run("study", lambda line: None)

    assert not ran


def test_the_readme_shows_the_methods(here, ran, undrawn):
    begin, end = report.SHOWN
    (here / "README.md").write_text(f"# A\n{begin}\nold\n{end}\nmore\n")

    study_runs.run("study", lambda line: None)

    text = (here / "README.md").read_text()
    assert "| theta1 | 3.00 [0.10, 11.12] | 3.00 [0.10, 11.12] | 11.0 (11.0–11.0) | – |" in text
    assert "old" not in text


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a/b", "", "study\n", "."])
def test_a_studys_name_leads_out_of_no_folder(here, name):
    with pytest.raises(ParamsError, match="cannot be a study's name"):
        study_runs.run(name, print)


def test_a_workspace_has_the_inputs_of_now_and_no_former_ones(tmp_path):
    source, target = tmp_path / "base/toy", tmp_path / "workspace/base/toy"
    (source / "vae").mkdir(parents=True)
    for name in ("old.json", "vae/weights"):
        (source / name).write_text("first")
    study_runs._share(source, target)
    (source / "old.json").unlink()
    (source / "vae/weights").unlink()
    (source / "vae/weights").write_text("second, trained anew")

    study_runs._share(source, target)

    found = {path.relative_to(target).as_posix() for path in target.rglob("*.*")}
    assert found == set()
    assert (target / "vae/weights").read_text() == "second, trained anew"
