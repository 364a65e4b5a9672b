import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from atelier import images
from atelier.annotators.vlm.response_cache import Response
from atelier.config.profile import Profile
from atelier.criteria import annotations
from atelier.criteria.annotations import Image, Judgement, Quarantined, Rationale, Record
from atelier.errors import AnnotationError
from tasks import annotate, split
from tasks.annotation import estimate
from tasks.commands import labels
from tasks.run import paths, progress
from tests.conftest import Notebook

CRITERIA = Path(__file__).parents[2] / "params" / "criteria"
OUTPUTS = (
    "images.jsonl", "raw_judgements.jsonl", "judgements.jsonl", "rationale.jsonl",
    "quarantine.jsonl",
)  # fmt: skip
RUN = """
import sys
from pathlib import Path
import yaml
from atelier.config.profile import Profile
from tasks import annotate
from tasks.run import operator_errors

class Nobody:
    def metrics(self, values, step=None): ...
    def file(self, path): ...

if __name__ == "__main__":
    with operator_errors.shown():
        profile = yaml.safe_load(Path("profile.yaml").read_text())
        annotate.run(Profile.model_validate(profile), Nobody())
"""


@pytest.fixture
def studio(tmp_path, monkeypatch, profile, vlm):
    """An empty repository whose annotator is the agent; nobody wrote captions."""
    monkeypatch.chdir(tmp_path)
    paths.CRITERIA.mkdir(parents=True)
    shutil.copy(CRITERIA / "starter.yaml", paths.CRITERIA)
    profile["annotate"] |= {"annotator": "vlm", "vlm": vlm, "captions": None}
    return profile


def run(values):
    notebook = Notebook()
    annotate.run(Profile.model_validate(values), notebook)
    return notebook


def rows(name, kind):
    return annotations.read(paths.ANNOTATE / f"{name}.jsonl", kind)


def outputs():
    return {name: (paths.ANNOTATE / name).read_bytes() for name in OUTPUTS}


def answers():
    return annotations.read(paths.ANSWERS / "toy-vl.jsonl", Response)


def test_the_agent_judges_by_a_change_of_params_only(studio, paint):
    for seed in range(5):
        paint(paths.DATA / f"a boat {seed}.png", seed)
    (paths.DATA / "same.png").write_bytes((paths.DATA / "a boat 0.png").read_bytes())

    notebook = run(studio)

    judgements, rationale = rows("judgements", Judgement), rows("rationale", Rationale)
    assert len(rows("images", Image)) == 5
    assert judgements
    assert [(one.image, one.criterion) for one in judgements] == [
        (one.image, one.criterion) for one in rationale
    ]
    assert {one.caption for one in rows("images", Image)} <= {
        "a boat on the left",
        "a tree in the middle",
    }
    assert notebook.results["cost"] == pytest.approx(len(answers()) * 0.002)
    summary = json.loads((paths.ANNOTATE / "summary.json").read_text())
    assert summary["prompt_tokens"] == len(answers()) * 1000
    assert not list(paths.RESUME.iterdir())


WRAPPERS = [
    ["<think>What is {this}?\n</think>\n\n", ""],
    ["Here is the JSON you asked for:\n```json\n", "\n```\nAnything else?"],
    ["The edges are calm.</think>```\n", "\n```"],
]


@pytest.mark.parametrize("around", WRAPPERS)
def test_answers_in_a_wrapper_are_taken_as_those_without(studio, paint, model_server, around):
    for seed in range(3):
        paint(paths.DATA / f"{seed}.png", seed)
    run(studio)
    plain, asked = outputs(), model_server.asked()["asked"]
    shutil.rmtree(paths.CACHE)

    model_server.follow(around=around)
    run(studio)

    assert outputs() == plain
    assert model_server.asked()["asked"] == asked  # none was asked for again
    run(studio)
    assert model_server.asked()["asked"] == asked  # nor are cached ones


def test_an_answer_by_another_model_is_told_and_recorded(
    studio, paint, model_server, capsys, monkeypatch
):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    for seed in range(2):
        paint(paths.DATA / f"{seed}.png", seed)
    model_server.follow(change={"model": "some-other-model"})

    run(studio)

    count = len(answers())
    assert {one.answered_by for one in answers()} == {"some-other-model"}
    summary = json.loads((paths.ANNOTATE / "summary.json").read_text())
    assert summary["answered_by"] == {"some-other-model": count}
    said = capsys.readouterr()
    warning = f"Warning: {count} of {count} answers are by 'some-other-model' ({count})"
    assert warning in said.out
    assert "annotate.vlm.model asks for 'toy-vl'" in said.out
    assert f"by another model {count}" in said.err
    labels.count()
    assert f"the server answered as some-other-model: {count} times" in capsys.readouterr().out


@pytest.mark.parametrize("model", ["toy-vl", None, 7, "/models/toy-vl.gguf"])
def test_a_server_that_answers_as_the_model_or_says_nothing_is_no_warning(
    studio, paint, model_server, capsys, model
):
    paint(paths.DATA / "0.png", 0)
    model_server.follow(change={"model": model})

    run(studio)

    said = capsys.readouterr()
    assert "Warning" not in said.out
    assert "another model" not in said.err


def test_captions_that_people_wrote_are_kept(studio, paint, model_server):
    for seed in range(2):
        paint(paths.DATA / f"{seed}.png", seed)
    (paths.DATA / "captions.csv").write_text("file,caption\n0.png,a pond\n1.png,\n")
    studio["annotate"]["captions"] = "captions.csv"

    run(studio)

    first, second = rows("images", Image)
    assert first.caption == "a pond"
    assert second.caption.startswith("a ")
    topics = [one.topic for one in answers()]
    assert topics.count("caption") == 1


def test_a_second_run_asks_nothing_and_gives_the_same_bytes(studio, paint, model_server):
    for seed in range(3):
        paint(paths.DATA / f"{seed}.png", seed)
    run(studio)
    first, asked = outputs(), model_server.asked()["asked"]

    run(studio)

    assert outputs() == first
    assert model_server.asked()["asked"] == asked


def test_a_picture_without_a_usable_answer_is_set_aside_and_asked_again(
    studio, paint, model_server
):
    for seed in range(4):
        paint(paths.DATA / f"{seed}.png", seed)
    studio["annotate"]["vlm"] |= {"tries": 1, "concurrency": 1}
    model_server.follow(share=0.4, faults=["refusal"], seed=2)
    run(studio)
    refused = rows("quarantine", Quarantined)

    model_server.follow()
    run(studio)

    assert 0 < len(refused) < 4
    assert {"the model refused: I cannot judge this." in one.reason for one in refused} == {
        True
    }
    assert rows("quarantine", Quarantined) == []
    assert len(rows("images", Image)) == 4


def test_how_often_a_model_says_the_same_reaches_the_records(studio, paint, model_server):
    for seed in range(3):
        paint(paths.DATA / f"{seed}.png", seed)
    studio["annotate"]["vlm"] |= {"votes": 3, "temperature": 0.7}
    studio["split"] |= {"train": 1.0, "validation": 0.0, "test": 0.0}
    model_server.follow(behaviour="fickle")

    run(studio)
    split.run(Profile.model_validate(studio), Notebook())

    records = annotations.read(paths.SPLIT / "train.jsonl", Record)
    sure = [said for one in records for said in one.confidence.values()]
    assert {round(said, 3) for said in sure} == {0.667, 1.0}  # two of three votes, or all
    assert all(one.confidence.keys() == {*one.positive, *one.negative} for one in records)


def test_people_are_heard_before_the_agent(studio, paint):
    file = paint(paths.DATA / "0.png", 0)
    run(studio)
    agents = rows("judgements", Judgement)
    other = {"positive": "negative", "negative": "positive"}[agents[0].pole]
    persons = agents[0].model_copy(update={"annotator": "human ann", "pole": other})
    paths.LABELS.mkdir()
    (paths.LABELS / "ann.jsonl").write_text(annotations.line(persons))
    studio["annotate"] |= {
        "recorded": "labels/ann.jsonl",
        "adjudication": {"rule": "trust", "order": ["human *", "vlm-*"]},
    }

    run(studio)

    assert persons.image == images.sha256(file)
    assert rows("judgements", Judgement) == [persons, *agents[1:]]
    assert (
        sorted(rows("raw_judgements", Judgement), key=lambda one: one.annotator)[1:] == agents
    )


def test_an_estimate_sends_nothing(studio, paint, model_server, capsys):
    for seed in range(4):
        paint(paths.DATA / f"{seed}.png", seed)
    profile = Profile.model_validate(studio)

    estimate.run(profile)

    said = capsys.readouterr().out
    assert "4 of 4 pictures, toy-vl" in said
    at_most = next(line for line in said.splitlines() if "at most" in line)
    assert at_most.split("│")[2].strip() == "12"  # activation, judging, caption
    assert "likely" not in said
    assert model_server.asked()["asked"] == 0
    run(studio)
    paint(paths.DATA / "4.png", 4)
    estimate.run(profile)
    said = capsys.readouterr().out
    assert "1 of 5 pictures" in said
    assert "likely" in said


def test_an_annotator_that_asks_nobody_costs_nothing(studio, capsys):
    studio["annotate"] |= {"annotator": "measured", "vlm": None}

    estimate.run(Profile.model_validate(studio))

    assert "asks no server: it costs nothing" in capsys.readouterr().out


def test_the_cap_ends_a_run_and_the_next_one_goes_on(studio, paint, model_server):
    for seed in range(6):
        paint(paths.DATA / f"{seed}.png", seed)
    studio["annotate"]["vlm"]["cost_cap"] = 0.02
    with pytest.raises(AnnotationError, match=r"cost_cap, 0.02, is reached"):
        run(studio)
    assert not (paths.ANNOTATE / "images.jsonl").exists()

    studio["annotate"]["vlm"]["cost_cap"] = 1.0
    run(studio)

    assert len(rows("images", Image)) == 6
    assert set(model_server.asked()["good"].values()) == {1}


def test_progress_tells_cost_tokens_rate_and_time_left(studio, paint, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    for seed in range(6):
        paint(paths.DATA / f"{seed}.png", seed)

    run(studio)

    said = capsys.readouterr().err
    assert "annotate: step 6/6 · cost 0.0" in said
    assert "tokens " in said
    assert "images/s" in said
    assert "ETA " in said


def start(**variables):
    here = {"PYTHONPATH": str(Path(annotate.__file__).parents[1])}
    environment = os.environ | here | variables
    return subprocess.Popen(
        [sys.executable, "run.py"], env=environment, stderr=subprocess.PIPE, text=True
    )


def kill_at_random(kills, server, chance):
    """Start again and again; kill each some answers after its first."""
    for _ in range(kills):
        process = start()
        before = server.asked()["asked"]
        enough = before + chance.randint(1, 40)
        while process.poll() is None and server.asked()["asked"] < enough:
            time.sleep(0.01)
        time.sleep(chance.random() * 0.05)
        process.send_signal(chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        process.communicate()
        assert process.returncode != 0, "it ended before it was killed"


@pytest.mark.parametrize(
    ("pictures", "kills"),
    [(60, 3), pytest.param(1000, 24, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
def test_killed_again_and_again_amid_faults_each_picture_is_judged_once(
    studio, paint, model_server, pictures, kills
):
    for seed in range(pictures):
        paint(paths.DATA / f"{seed}.png", seed)
    studio["annotate"]["vlm"]["timeout_seconds"] = 3.0
    Path("profile.yaml").write_text(yaml.safe_dump(studio))
    Path("run.py").write_text(RUN)
    model_server.follow(share=0.3, seed=7)

    kill_at_random(kills, model_server, random.Random(pictures))
    last = start()
    _, errors = last.communicate(timeout=1200)

    assert last.returncode == 0, errors
    judged = [one.image for one in rows("images", Image)]
    aside = rows("quarantine", Quarantined)
    assert len(judged) + len(aside) == pictures
    assert len(set(judged)) == len(judged)
    assert len(aside) <= pictures / 100  # eight tries at 30% rarely all fail
    kept = [(one.image, one.asked) for one in answers() if one.unfit is None]
    assert len(set(kept)) == len(kept)
    asked = model_server.asked()
    lost = sum(asked["good"].values()) - len(kept)  # on their way when it was killed
    assert lost <= kills * studio["annotate"]["vlm"]["concurrency"]
    assert len(asked["faults"]) == 14
    killed = outputs()
    shutil.rmtree(paths.CACHE)
    model_server.follow()
    if not aside:
        run(studio)
        assert outputs() == killed


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"ALL_PROXY": "socks5://127.0.0.1:9"}, "ALL_PROXY is 'socks5://127.0.0.1:9', a SOCKS"),
        ({"SSL_CERT_FILE": "/nowhere.pem"}, "SSL_CERT_FILE names /nowhere.pem, which cannot"),
        ({"STUDIO_KEY": "sk-é"}, "STUDIO_KEY (annotate.vlm.key_variable) holds a line break"),
        ({"STUDIO_KEY": ""}, "names STUDIO_KEY, which is not set"),
    ],
)
def test_an_environment_that_cannot_ask_ends_in_one_paragraph(studio, paint, variables, says):
    paint(paths.DATA / "0.png", 0)
    if "STUDIO_KEY" in variables:
        studio["annotate"]["vlm"]["key_variable"] = "STUDIO_KEY"
    Path("profile.yaml").write_text(yaml.safe_dump(studio))
    Path("run.py").write_text(RUN)

    process = start(**variables)
    _, errors = process.communicate(timeout=120)

    assert process.returncode == 2
    assert "Traceback" not in errors
    assert says in errors.replace("\n", " ")
    assert "sk-é" not in errors
