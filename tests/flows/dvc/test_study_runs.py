import contextlib
import shutil
import subprocess
import threading
import time

import numpy as np
import pytest
import yaml
from PIL import Image
from prefect.logging import disable_run_logger

from atelier import images
from atelier.criteria import annotations
from atelier.criteria.annotations import Judgement, Record
from atelier.errors import ArtifactError, ParamsError
from atelier.metrics.comparison import Measured
from atelier.metrics.fid import Distance
from flows import study as experiments
from flows.dvc import stages, study_runs
from tasks.evaluation import evaluated
from tasks.evaluation.evaluated import Evaluated
from tasks.run import paths

STUDY = """
profile: toy
seeds: [0, 1]
tuning_prompts: 2
settings: {generate.steps: 3}
guidance: 2.0
sound: 2.0
box: {negatives: 1.0, fid: 1.5, diversity: 0.5}
goal: {negatives: 1, independent: 1, fid: 20}
proposed: [cpo-s]
repeated: [cpo-s]
methods:
  cpo-s:
    objective: {objective: cpo-s, init: sft, loser_target: mirror-winner, winner: labelled,
                teacher: sft, confidence: ignored, weighting: constant, learning_rate: 0.001,
                milestones: [2]}
    strength: omega
    values: [5, 10]
    sampled: [guided]
  cpo:
    objective: {objective: cpo, winner: labelled, teacher: sft, confidence: ignored,
                weighting: constant, learning_rate: 0.001, milestones: [2]}
    strength: beta
    values: [100]
    sampled: [alone]
  dpo:
    objective: {objective: dpo, learning_rate: 0.001}
    strength: beta
    values: [500]
    sampled: [alone, guided]
volumes: [0.5]
"""
EVERY = [
    "validation-alone-0", "alone-0", "validation-guided-0", "guided-0", "guided-1", "volume50-0"
]  # fmt: skip


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
    (tmp_path / ".gitignore").write_text("artifacts\ndocs\n")
    subprocess.run(["git", "init", "-q"], check=True)
    commit()
    return tmp_path


def commit():
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["add", "."], [*who, "commit", "-qm", "x"]):
        subprocess.run(["git", *words], check=True)


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
    """Write what the stages would: two pictures a painter, each painter with its #A_neg."""
    for folder in (paths.GENERATE, paths.EVALUATE, paths.CPO, paths.SPLIT):
        shutil.rmtree(workspace / folder, ignore_errors=True)
    (workspace / paths.JUDGED_BY).parent.mkdir(parents=True, exist_ok=True)
    (workspace / paths.JUDGED_BY).write_text(yaml.safe_dump(CRITERIA))
    part = profile["generate"]["part"]
    records = [
        Record(image=f"{number}" * 64, file=f"{number}.png", caption=caption,
               positive=[], negative=["colour/c0"] * number)
        for number, caption in enumerate(("a pond", "NA", "a hill"))
    ]  # fmt: skip
    (workspace / paths.SPLIT).mkdir(parents=True)
    (workspace / paths.SPLIT / f"{part}.jsonl").write_text(annotations.lines(records))
    entries = profile["cpo"]["objectives"]
    painters = ["base", "theta1", "theta1+pos"]
    for name, entry in entries.items():
        painters += [name, *(f"{name}@{steps}" for steps in entry.get("milestones", ()))]
        folder = workspace / paths.CPO / name
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text('{"drift": 0.25}')
        (folder / "curve.tsv").write_text("step\tdrift\tgradient_norm\n1\t0.1\t2\n4\t0.25\t1\n")
    measured = {painter: judged(workspace, painter, n) for n, painter in enumerate(painters)}
    features(workspace / paths.EVALUATE / "paintings/test", 0)
    with contextlib.chdir(workspace):
        evaluated.write(
            Evaluated("measured-1", "starter-features-1", "starter", None, {}, measured, {})
        )


def judged(workspace, painter, place):
    bad = {"base": 4, "theta1": 3, "cpo-100": 2, "dpo-500": 3, "cpo-s-10": 0}.get(painter, 1)
    folder = workspace / paths.GENERATE / painter
    folder.mkdir(parents=True)
    rows = []
    for number in range(3):
        file = folder / f"{number:03}.png"
        shade = np.full((8, 8, 3), 40 * number + place, np.uint8)
        file.write_bytes(images.png(shade))
        rows += [
            Judgement(image=images.sha256(file), criterion=f"{root}/c{n}", pole="negative",
                      annotator=judge, confidence=1)
            for judge in JUDGES
            for n, root in enumerate(["colour", "light", "colour", "edges"][:bad])
        ]  # fmt: skip
    file = workspace / paths.EVALUATE / "judgements" / painter / "judgements.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text(annotations.lines(rows))
    features(workspace / paths.EVALUATE / "features" / painter, place + 1)
    distance = Distance(10.0 + place, 0.01, 3, 3, "starter", 2)
    return Measured(distance, None, 2.0, None, 0.0)


def features(folder, seed):
    folder.mkdir(parents=True)
    np.save(folder / "features.npy", np.random.default_rng(seed).normal(size=(3, 2)))


@pytest.fixture
def unwritten(monkeypatch):
    """No document is written after each experiment: figures take their time."""
    monkeypatch.setattr(study_runs, "write", lambda *said: None)


@pytest.fixture
def undrawn(monkeypatch):
    """The document is written without its figures."""
    monkeypatch.setattr(study_runs.figures, "write", lambda *said: None)


def test_every_strength_is_tuned_on_validation_and_painted_on_test(here, ran, unwritten):
    study_runs.run("study", lambda line: None)

    assert list(ran) == EVERY
    for name, profile in ran.items():
        tuned = name.startswith("validation")
        assert profile["generate"]["part"] == ("validation" if tuned else "test")
        assert profile["generate"]["steps"] == 3  # settings hold for all
        assert profile["sft"]["training"]["seed"] == 0  # one teacher
        assert profile["cpo"]["training"]["seed"] == int(name[-1])
        assert profile["generate"]["guidance"] == (1 if "alone" in name else 2)
    assert list(ran["alone-0"]["cpo"]["objectives"]) == ["cpo-100", "dpo-500"]
    assert list(ran["guided-0"]["cpo"]["objectives"]) == ["cpo-s-5", "cpo-s-10", "dpo-500"]
    # ω 10 has no negatives on validation, and is what the other seed and the half train.
    assert list(ran["guided-1"]["cpo"]["objectives"]) == ["cpo-s-10"]
    assert ran["volume50-0"]["split"]["train_share"] == 0.5
    assert ran["volume50-0"]["cpo"]["training"]["steps"] == 2  # of 4


def test_mlflow_has_the_study_with_what_was_found_and_stages_log_under_it(
    here, ran, tracked, unwritten
):
    study_runs.run("study", lambda line: None)

    assert tracked.settings["methods"]["dpo"]["values"] == [500]
    assert tracked.said == {
        "chosen.cpo-s.guided": "cpo-s-10", "chosen.cpo.alone": "cpo-100@2",
        "chosen.dpo.alone": "dpo-500",
        "chosen.dpo.guided": "dpo-500",
    }  # fmt: skip
    assert max(tracked.found) == len(EVERY)
    assert tracked.found[2]["alone-0/negatives/cpo-100"] == 2
    assert tracked.found[2]["alone-0/fid/base"] == 10
    assert tracked.files == ["docs/study.md"]
    assert tracked.variables == {
        "ATELIER_STUDY": tracked.key,
        "ATELIER_PIPELINE": f"{tracked.key}/volume50-0",
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
    assert list(ran) == EVERY


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
    assert [name for name, _ in first] == [name for name, _ in done] == EVERY
    assert {state for _, state in first} == {"Ran"}
    assert {state for _, state in done} == {"RanBefore"}
    assert experiments.experiment.cache_policy is experiments.NO_CACHE


def test_what_was_run_is_not_run_again_and_what_changed_is(here, ran, values, undrawn):
    study_runs.run("study", lambda line: None)
    before = study_runs.document("study").read_text()
    ran.clear()

    study_runs.run("study", lambda line: None)
    again, same = dict(ran), study_runs.document("study").read_text()
    values["volumes"] = [0.5, 0.25]
    (paths.PARAMS / "study.yaml").write_text(yaml.safe_dump(values))
    study_runs.run("study", lambda line: None)

    assert not again
    assert same == before  # what is read back is what was found
    assert set(ran) == {"volume25-0"}
    assert "| 25% |" in study_runs.document("study").read_text()
    assert "| 25% |" not in before


def test_other_code_of_a_stage_runs_it_again_and_other_words_of_the_page_do_not(
    here, ran, unwritten
):
    for folder in ("tasks", "atelier/reports/study"):
        (here / folder).mkdir(parents=True)
    (here / "tasks/cpo.py").write_text("VALUE = 1\n")
    (here / "atelier/reports/study/report.py").write_text("VALUE = 1\n")
    commit()
    study_runs.run("study", lambda line: None)
    ran.clear()

    (here / "atelier/reports/study/report.py").write_text("VALUE = 2\n")
    commit()
    study_runs.run("study", lambda line: None)
    words = list(ran)
    (here / "tasks/cpo.py").write_text("VALUE = 2\n")
    study_runs.run("study", lambda line: None)
    uncommitted = list(ran)
    commit()
    study_runs.run("study", lambda line: None)

    assert not words
    assert not uncommitted  # experiments are run at HEAD
    assert list(ran) == EVERY


def test_other_pictures_or_another_base_run_it_again(here, ran, values, unwritten):
    values["data"] = "pictures"
    (paths.PARAMS / "study.yaml").write_text(yaml.safe_dump(values))
    for file in ("pictures/a.png", "base/toy/weights"):
        (here / file).parent.mkdir(parents=True)
        (here / file).write_text("one")
    study_runs.run("study", lambda line: None)
    for file in ("pictures/a.png", "base/toy/weights"):
        ran.clear()
        (here / file).write_text("another")

        study_runs.run("study", lambda line: None)

        assert list(ran) == EVERY


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
    assert not study_runs.document("study").exists()  # no half a page
    ran.clear()
    study_runs.run("study", lambda line: None)

    assert list(ran) == ["guided-0", "guided-1", "volume50-0"]
    assert study_runs.document("study").is_file()


def test_what_was_made_last_is_what_the_next_experiment_keeps_from(here, ran, unwritten):
    (here / "dvc.lock").write_text("at head")
    commit()
    study_runs.run("study", lambda line: None)
    lock = paths.ARTIFACTS / "study/workspace/dvc.lock"
    lock.write_text("made there")

    study_runs.run("study", lambda line: None)

    assert lock.read_text() == "made there"


def test_the_document_says_what_was_found_and_what_became_of_each_claim(here, ran):
    (here / "docs/study").mkdir(parents=True)
    (here / "docs/study/reading.md").write_text("As expected.\n")

    study_runs.run("study", lambda line: None)

    text = study_runs.document("study").read_text()
    assert "| cpo | β 100, at step 2 | 1 | 1.00 [" in text
    assert "| cpo-s, guided | ω 10 | 2 | 0.00 [" in text
    told = "cpo-s, guided, of captions alone, has fewer negatives than θ1 told every good pole"
    assert f"- **Holds**: {told} and guided, for as many passes. -1.00 [-1.00, -1.00]" in text
    assert "Both judges rank all methods alike." in text
    assert "## Our reading\nAs expected.\n" in text
    drawn = {file.name for file in (study_runs.DOCUMENTS / "study").glob("*.png")}
    assert drawn == {"fronts.png", "training.png", "pictures.png"}
    shown = Image.open(paths.ARTIFACTS / "study/guided-0/cpo-s-10/001.png")
    assert (np.asarray(shown) == 45).all()  # the second picture of the painter in place 5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda v: v.update(proposed=["cpo-z"]), "methods has no cpo-z"),
        (lambda v: v.update(seeds=[1, 1]), r"seeds should name each once, names \[1, 1\]"),
        (
            lambda v: v.update(settings={"generate.stepz": 3}),
            "study.yaml, settings: 'generate.stepz' is not a setting",
        ),
        (
            lambda v: v["methods"]["cpo-s"].update(values=[-1]),
            "methods.cpo-s: objective, with omega -1, does not fit",
        ),
        (
            lambda v: v["methods"]["cpo-s"]["objective"].update(teacher_guidance=2),
            r"sampled should be \[alone\], since cpo-s with these settings",
        ),
        (
            lambda v: v["methods"]["cpo"]["objective"].update(milestones=[4]),
            "experiment validation-alone-0, does not fit",
        ),
        (
            lambda v: v["settings"].update({"evaluate.metrics": ["vendi"]}),
            "evaluate.metrics of the profile does not name fid",
        ),
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
