import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from PIL import Image

from atelier import images, parallel
from atelier.config.profile import Profile
from atelier.criteria import annotations
from atelier.criteria.annotations import Judgement, Quarantined
from atelier.criteria.tree import parse
from atelier.errors import AnnotationError, ArtifactError, CriteriaError, DiskError, ParamsError
from tasks import annotate
from tasks.run import paths
from tests.conftest import Notebook

OUTPUTS = (
    "images.jsonl",
    "raw_judgements.jsonl",
    "judgements.jsonl",
    "quarantine.jsonl",
    "summary.json",
)


def leaf(positive, negative):
    return {
        "positive": positive,
        "negative": negative,
        "positive_means": "",
        "negative_means": "",
        "applies": "any",
        "sources": [],
    }


@pytest.fixture
def studio(tmp_path, monkeypatch, profile):
    """An empty repository with criteria, whose annotator replays a recording."""
    monkeypatch.chdir(tmp_path)
    criteria = {
        "domain": "painting",
        "version": "1",
        "literature": {},
        "criteria": {
            "harmony": leaf("harmonious palette", "clashing hues"),
            "edges": leaf("crisp edges", "blurred edges"),
        },
    }
    paths.CRITERIA.mkdir(parents=True)
    paths.LABELS.mkdir()
    (paths.CRITERIA / "starter.yaml").write_text(yaml.safe_dump(criteria, sort_keys=False))
    profile["annotate"] |= {
        "annotator": "recorded",
        "recorded": "labels/said.jsonl",
        "captions": None,
    }
    return profile


def record(**poles_by_file):
    """Record judgements, ``harmony`` then ``edges``: + good, - bad, 0 abstains."""
    words = {"+": "positive", "-": "negative"}
    rows = [
        Judgement(
            image=images.sha256(paths.DATA / file),
            criterion=criterion,
            pole=words[sign],
            annotator="expert",
            confidence=1,
        )
        for file, signs in poles_by_file.items()
        for criterion, sign in zip(("harmony", "edges"), signs, strict=True)
        if sign != "0"
    ]
    Path("labels/said.jsonl").write_text(annotations.lines(rows))


def run(values):
    notebook = Notebook()
    annotate.run(Profile.model_validate(values), notebook)
    return notebook


def outputs():
    return {name: (paths.ANNOTATE / name).read_bytes() for name in OUTPUTS}


def quarantine():
    rows = annotations.read(paths.ANNOTATE / "quarantine.jsonl", Quarantined)
    return {row.file: row.reason for row in rows}


def test_the_files_say_what_was_judged(studio, paint):
    for seed, name in enumerate(("a.png", "b.png", "c.png", "d.png")):
        paint(paths.DATA / name, seed)
    record(**{"a.png": "+-", "b.png": "++", "c.png": "0-"})

    notebook = run(studio)

    rows = annotations.read(paths.ANNOTATE / "images.jsonl", annotations.Image)
    assert [(row.file, row.width, row.height, row.caption) for row in rows] == [
        (f"{name}.png", 32, 32, name) for name in "abcd"
    ]
    said = annotations.read(paths.ANNOTATE / "judgements.jsonl", Judgement)
    hashes = {row.image: row.file for row in rows}
    assert [(hashes[one.image], one.criterion, one.pole) for one in said] == [
        ("a.png", "harmony", "positive"),
        ("a.png", "edges", "negative"),
        ("b.png", "harmony", "positive"),
        ("b.png", "edges", "positive"),
        ("c.png", "edges", "negative"),
    ]
    assert json.loads((paths.ANNOTATE / "summary.json").read_text()) == {
        "domain": "painting",
        "version": "1",
        "images": 4,
        "quarantined": 0,
        "judgements": 5,
        "annotators": {"expert": 5},
        "adjudication": {
            "alone": 5,
            "agreed": 0,
            "decided": 0,
            "undecided": 0,
            "too_few": 0,
            "unanswered": 0,
        },
        "mean_positive_per_image": 0.75,
        "mean_negative_per_image": 0.5,
        "criteria": {
            "harmony": {"positive": 2, "negative": 0, "abstained": 2, "coverage": 0.5},
            "edges": {"positive": 1, "negative": 2, "abstained": 1, "coverage": 0.75},
        },
    }
    assert notebook.results["mean_negative_per_image"] == 0.5
    assert notebook.files == ["artifacts/annotate/summary.json"]
    assert not list(paths.RESUME.iterdir())


def test_what_cannot_be_used_is_set_aside_with_the_reason_and_stops_nothing(studio, paint):
    good = paint(paths.DATA / "good.png")
    record(**{"good.png": "+-"})
    (paths.DATA / "empty.jpg").touch()
    (paths.DATA / "notes.txt").write_text("not a picture")
    paint(paths.DATA / "tiny.png", 1, size=(40, 15))
    paint(paths.DATA / "vast.png", 2, size=(1001, 1000))
    paint(paths.DATA / "half.jpg", 3, size=(300, 300))
    half = paths.DATA / "half.jpg"
    half.write_bytes(half.read_bytes()[:1000])
    (paths.DATA / "same.png").write_bytes(good.read_bytes())
    (paths.DATA / "nowhere.png").symlink_to("absent.png")

    run(studio)

    reasons = quarantine()
    assert reasons.pop("half.jpg").startswith("damaged, cannot be decoded (")
    assert reasons.pop("notes.txt").startswith("not a picture that can be read (JPEG, ")
    assert reasons == {
        "empty.jpg": "the file is empty (0 bytes); copy it again from its source",
        "nowhere.png": "cannot be opened: No such file or directory",
        "same.png": "has the same bytes as good.png",
        "tiny.png": "40 x 15 pixels; its shorter side is below "
        "annotate.smallest_side_pixels, 16",
        "vast.png": "1001 x 1000 pixels are more than annotate.largest_pixels, 1000000; "
        "scale it down or raise the limit",
    }
    summary = json.loads((paths.ANNOTATE / "summary.json").read_text())
    assert (summary["images"], summary["quarantined"]) == (1, 7)


def test_unusual_pictures_and_names_are_judged_like_others(studio, paint):
    plain = Image.open(paint(paths.DATA / "plain.png"))
    exif = Image.Exif()
    exif[0x0112] = 6
    plain.resize((40, 20)).save(paths.DATA / "turned.jpg", exif=exif)
    plain.convert("CMYK").save(paths.DATA / "inks.jpg")
    plain.quantize(4).save(paths.DATA / "palette.gif")
    plain.convert("I;16").save(paths.DATA / "deep.png")
    plain.rotate(90).save(paths.DATA / "Нарцисс à l'étang — 水.png")
    plain.rotate(180).save(
        paths.DATA / "moving.gif", save_all=True, append_images=[plain.rotate(270)]
    )
    record(**{"plain.png": "+-"})

    run(studio)

    rows = annotations.read(paths.ANNOTATE / "images.jsonl", annotations.Image)
    assert quarantine() == {}
    assert {row.file: (row.width, row.height) for row in rows} == {
        "plain.png": (32, 32),
        "turned.jpg": (20, 40),
        "inks.jpg": (32, 32),
        "palette.gif": (32, 32),
        "deep.png": (32, 32),
        "Нарцисс à l'étang — 水.png": (32, 32),
        "moving.gif": (32, 32),
    }


def test_a_table_and_a_folder_that_disagree_go_on_with_what_they_share(studio, paint):
    for seed, name in enumerate(("a.png", "b.png")):
        paint(paths.DATA / name, seed)
    record(**{"a.png": "+-"})
    (paths.DATA / "captions.csv").write_text("file,caption\na.png,a pond\nz.png,a hill\n")
    studio["annotate"]["captions"] = "captions.csv"

    run(studio)

    assert quarantine() == {
        "b.png": "captions.csv has no row for it",
        "z.png": "captions.csv, line 3 names it; it is not there",
    }


def test_a_broken_table_stops_before_anything_is_judged(studio, paint):
    paint(paths.DATA / "a.png")
    record()
    (paths.DATA / "captions.csv").write_bytes(b"file,caption\na.png,caf\xe9\n")
    studio["annotate"]["captions"] = "captions.csv"

    with pytest.raises(ArtifactError, match=r"data/captions.csv, line 2 is not UTF-8"):
        run(studio)


@pytest.mark.parametrize("there", [True, False])
def test_no_pictures_say_how_to_get_some(studio, there):
    Path("labels/said.jsonl").touch()
    if there:
        paths.DATA.mkdir()

    with pytest.raises(ArtifactError, match=r"^data .*`atelier data`.*`dvc add data`"):
        run(studio)


def test_a_folder_of_unusable_pictures_says_why_they_are(studio):
    Path("labels/said.jsonl").touch()
    paths.DATA.mkdir()
    for number in range(5):
        (paths.DATA / f"{number}.jpg").touch()

    with pytest.raises(ArtifactError) as caught:
        run(studio)

    assert "no picture that can be used; 5 were set aside" in str(caught.value)
    assert "0.jpg: the file is empty" in str(caught.value)


def test_a_recording_of_other_pictures_is_no_annotation(studio, paint):
    paint(paths.DATA / "a.png")
    Path("labels/said.jsonl").touch()

    with pytest.raises(AnnotationError, match=r"'recorded' said nothing about any of the 1"):
        run(studio)


def say(name, annotator, poles, confidence=1.0):
    rows = [
        Judgement(
            image=images.sha256(paths.DATA / file),
            criterion=criterion,
            pole=pole,
            annotator=annotator,
            confidence=confidence,
        )
        for file, criterion, pole in poles
    ]
    (paths.LABELS / name).write_text(annotations.lines(rows))


def test_several_recordings_are_settled_by_the_rule_in_params(studio, paint):
    paint(paths.DATA / "a.png")
    both = [("a.png", "harmony", "positive"), ("a.png", "edges", "positive")]
    say("ann.jsonl", "human ann", both)
    say("bob.jsonl", "human bob", [(*both[0][:2], "negative"), both[1]], 0.5)
    studio["annotate"]["recorded"] = ["labels/ann.jsonl", "labels/bob.jsonl"]
    counted = {}
    for rule in (
        {"rule": "unanimous"},
        {"rule": "weighted"},
        {"rule": "majority", "quorum": 3},
        {"rule": "trust", "order": ["human bob", "human *"]},
    ):
        studio["annotate"]["adjudication"] = rule
        run(studio)
        said = annotations.read(paths.ANNOTATE / "judgements.jsonl", Judgement)
        counted[rule["rule"]] = [(one.criterion, one.pole, one.annotator) for one in said]
    edges = ("edges", "positive", "human ann + human bob")

    assert counted == {
        "unanimous": [edges],
        "weighted": [("harmony", "positive", "human ann"), edges],
        "majority": [],
        "trust": [
            ("harmony", "negative", "human bob"),
            ("edges", "positive", "human bob"),
        ],
    }
    raw = annotations.read(paths.ANNOTATE / "raw_judgements.jsonl", Judgement)
    assert len(raw) == 4
    summary = json.loads((paths.ANNOTATE / "summary.json").read_text())
    assert summary["annotators"] == {"human ann": 2, "human bob": 2}
    assert summary["adjudication"] == dict.fromkeys(
        ("alone", "undecided", "too_few", "unanswered"), 0
    ) | {"agreed": 1, "decided": 1}


def test_people_are_heard_beside_a_measuring_annotator(studio, paint):
    paint(paths.DATA / "a.png", size=(64, 64))
    starter = Path(__file__).parents[2] / "params/criteria/starter.yaml"
    (paths.CRITERIA / "starter.yaml").write_bytes(starter.read_bytes())
    criterion = next(iter(parse(paths.CRITERIA / "starter.yaml").leaves()))
    say("ann.jsonl", "human ann", [("a.png", criterion, "positive")])
    studio["annotate"] |= {
        "annotator": "measured",
        "recorded": "labels/ann.jsonl",
        "adjudication": {"rule": "trust", "order": ["human *", "measured-*"]},
    }

    run(studio)

    said = annotations.read(paths.ANNOTATE / "judgements.jsonl", Judgement)
    by = {one.criterion: one.annotator for one in said}
    assert by[criterion] == "human ann"
    assert {name.partition("-")[0] for name in by.values()} == {"human ann", "measured"}


def test_a_person_may_judge_what_the_caption_rules_out_for_a_measure(studio, paint):
    criteria = yaml.safe_load((paths.CRITERIA / "starter.yaml").read_text())
    criteria["vocabulary"] = {"genre": ["landscape", "portrait"]}
    criteria["criteria"]["edges"] |= {
        "applies": ["portrait"],
        "measure": {"name": "clutter", "positive_at": 1.5, "negative_at": 1.2},
    }
    (paths.CRITERIA / "starter.yaml").write_text(yaml.safe_dump(criteria, sort_keys=False))
    paint(paths.DATA / "landscape.png")
    say("ann.jsonl", "human ann", [("landscape.png", "edges", "positive")])
    studio["annotate"] |= {"annotator": "measured", "recorded": "labels/ann.jsonl"}

    run(studio)

    (said,) = annotations.read(paths.ANNOTATE / "raw_judgements.jsonl", Judgement)
    assert (said.criterion, said.annotator) == ("edges", "human ann")


def test_outputs_of_an_earlier_version_do_not_stay_beside_the_new_ones(studio, paint):
    paint(paths.DATA / "a.png")
    record(**{"a.png": "+-"})
    paths.ANNOTATE.mkdir(parents=True)
    for former in ("voices.jsonl", "evidence.jsonl"):
        (paths.ANNOTATE / former).write_text("{}\n")

    run(studio)

    assert not list(paths.ANNOTATE.glob("voices*")) + list(paths.ANNOTATE.glob("evidence*"))


def test_a_trusted_name_that_nobody_bears_is_refused_at_once(studio, paint):
    paint(paths.DATA / "a.png")
    record(**{"a.png": "+-"})
    studio["annotate"]["adjudication"] = {"rule": "trust", "order": ["humans *"]}

    with pytest.raises(ParamsError, match=r"trusts 'humans \*', .* there is 'expert'"):
        run(studio)


@pytest.mark.parametrize("name", ["said.jsonl", "../labels/said.jsonl", "/labels/said.jsonl"])
def test_labels_that_dvc_would_not_see_change_are_refused(studio, paint, name):
    paint(paths.DATA / "a.png")
    studio["annotate"]["recorded"] = name

    with pytest.raises(ParamsError, match=r"should name files inside labels/"):
        run(studio)


def test_a_broken_criteria_file_stops_at_once(studio, paint):
    paint(paths.DATA / "a.png")
    (paths.CRITERIA / "starter.yaml").write_text("criteria: {harmony: {positive: x}}")

    with pytest.raises(
        CriteriaError, match=r"starter.yaml does not fit:\n(.*\n)*  harmony: a leaf"
    ):
        run(studio)


def test_a_full_disk_keeps_what_was_judged(studio, paint, monkeypatch):
    for seed in range(3):
        paint(paths.DATA / f"{seed}.png", seed)
    record(**{"0.png": "+-"})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskError, match=r"the disk is full; free some space and run"):
            run(studio)

    assert not any((paths.ANNOTATE / name).exists() for name in OUTPUTS)
    (journal,) = paths.RESUME.glob("annotate-*/journal.jsonl")
    assert len(journal.read_text().splitlines()) == 3
    run(studio)
    assert not journal.exists()


def test_what_a_caption_rules_out_is_not_judged(studio, paint):
    criteria = yaml.safe_load((paths.CRITERIA / "starter.yaml").read_text())
    criteria["vocabulary"] = {"genre": ["landscape", "portrait"]}
    for key, applies in (("harmony", ["landscape"]), ("edges", ["portrait"])):
        criteria["criteria"][key] |= {
            "applies": applies,
            "measure": {"name": "clutter", "positive_at": 1.5, "negative_at": 1.2},
        }
    (paths.CRITERIA / "starter.yaml").write_text(yaml.safe_dump(criteria, sort_keys=False))
    for seed, name in enumerate(("a portrait", "landscape", "plain")):
        paint(paths.DATA / f"{name}.png", seed)
    studio["annotate"] |= {"annotator": "measured", "recorded": None}

    run(studio)

    seen = annotations.read(paths.ANNOTATE / "images.jsonl", annotations.Image)
    files = {one.image: one.file for one in seen}
    said = annotations.read(paths.ANNOTATE / "judgements.jsonl", Judgement)
    assert sorted((files[one.image], one.criterion) for one in said) == [
        ("a portrait.png", "edges"),
        ("landscape.png", "harmony"),
        ("plain.png", "edges"),
        ("plain.png", "harmony"),
    ]


def test_a_second_run_gives_the_same_bytes(studio, paint):
    for seed in range(5):
        paint(paths.DATA / f"{seed}.png", seed)
    record(**{"0.png": "+-", "3.png": "-+"})
    run(studio)
    first = outputs()

    run(studio)

    assert outputs() == first


def test_the_bytes_do_not_depend_on_the_number_of_processes(studio, paint, monkeypatch):
    for seed in range(40):
        paint(paths.DATA / f"{seed}.png", seed)
    (paths.DATA / "bad.png").touch()
    record(**{f"{seed}.png": "+-" for seed in range(40)})
    monkeypatch.setattr(parallel, "_FEW", 8)
    results = []
    for processes in (1, 2):
        monkeypatch.setattr(parallel, "cores", lambda processes=processes: processes)
        run(studio)
        results.append(outputs())

    assert results[0] == results[1]


SLOW_RUN = """
import functools, sys, time
from pathlib import Path
import yaml
from atelier import parallel
from atelier.annotators import recorded
from atelier.config.profile import Profile
from tasks import annotate

def slowly(image, pixels):
    time.sleep(0.03)
    return []

class Nobody:
    def metrics(self, values, step=None): ...
    def file(self, path): ...

if __name__ == "__main__":
    recorded.Inspector = functools.partial(recorded.Inspector, judge=slowly)
    parallel._FEW, parallel.cores = 8, lambda: 2
    profile = yaml.safe_load(Path("profile.yaml").read_text())
    annotate.run(Profile.model_validate(profile), Nobody())
"""


def start():
    environment = os.environ | {"PYTHONPATH": str(Path(annotate.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "slow.py"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def journal_lines():
    return sum(
        path.read_bytes().count(b"\n") for path in paths.RESUME.glob("annotate-*/journal.jsonl")
    )


def wait_for_lines(count, process):
    deadline = time.monotonic() + 60
    while journal_lines() < count:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def test_killed_twice_in_the_middle_it_ends_with_the_bytes_of_an_undisturbed_run(studio, paint):
    for seed in range(60):
        paint(paths.DATA / f"{seed}.png", seed)
    (paths.DATA / "again.png").write_bytes((paths.DATA / "7.png").read_bytes())
    (paths.DATA / "bad.png").touch()
    record(**{f"{seed}.png": "+-" if seed % 2 else "-0" for seed in range(60)})
    Path("profile.yaml").write_text(yaml.safe_dump(studio))
    Path("slow.py").write_text(SLOW_RUN)
    run(studio)
    undisturbed = outputs()
    for name in OUTPUTS:
        (paths.ANNOTATE / name).unlink()

    seen = 0
    for _ in range(2):
        process = start()
        wait_for_lines(seen + 8, process)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        seen = journal_lines()
        assert process.returncode == -signal.SIGKILL
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive, "workers outlived the killed run"
    assert 16 <= seen < 61
    (journal,) = paths.RESUME.glob("annotate-*/journal.jsonl")
    with journal.open("ab") as file:
        file.write(b'{"image": "torn')

    process = start()
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 0, errors
    assert outputs() == undisturbed
    assert not list(paths.RESUME.iterdir())


def test_new_params_do_not_go_on_from_old_judgements(studio, paint, monkeypatch):
    paint(paths.DATA / "a.png")
    record(**{"a.png": "+-"})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskError):
            run(studio)
    record(**{"a.png": "-+"})

    run(studio)

    said = annotations.read(paths.ANNOTATE / "judgements.jsonl", Judgement)
    assert [one.pole for one in said] == ["negative", "positive"]


def test_progress_is_reported_to_the_last_picture(studio, paint, capsys):
    for seed in range(3):
        paint(paths.DATA / f"{seed}.png", seed)
    record(**{"0.png": "+-"})

    run(studio)

    assert re.search(r"annotate: step 3/3", capsys.readouterr().err)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a disk of 24 kB")
def test_a_disk_that_fills_while_judging_is_freed_and_gone_on_with(studio, paint):
    for seed in range(200):
        paint(paths.DATA / f"{seed}.png", seed)
    record(**{f"{seed}.png": "+-" for seed in range(200)})
    paths.ARTIFACTS.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24k", "none", str(paths.ARTIFACTS)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(DiskError, match=r"journal.jsonl could not be written: the disk is"):
            run(studio)
        judged = journal_lines()
        subprocess.run([*mount[:4], "remount,size=4m", *mount[5:]], check=True)

        run(studio)

        assert 0 < judged < 200
        said = annotations.read(paths.ANNOTATE / "judgements.jsonl", Judgement)
        assert len(said) == len({said_key(one) for one in said}) == 400
    finally:
        subprocess.run(["umount", str(paths.ARTIFACTS)], check=True)


def said_key(one):
    return one.image, one.criterion, one.annotator
