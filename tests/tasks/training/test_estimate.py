import json
import re

import pytest

from atelier.config.profile import Profile
from atelier.errors import ArtifactError
from atelier.models import adapters
from atelier.models.loading import load
from tasks import sft
from tasks.run import paths
from tasks.training import estimate, needs


def files():
    return sorted(path.as_posix() for path in paths.ARTIFACTS.rglob("*"))


def test_the_estimate_counts_the_weights_that_are_there(studio, capsys):
    painter = load(studio.model)
    base = sum(parameter.numel() for parameter in painter.network.parameters())
    adapters.add(painter.network, "theta", studio.cpo.lora, seed=0)
    learning = sum(p.numel() for p in adapters.weights(painter.network, "theta").values())

    estimate.run("cpo", studio, check=False)

    said = capsys.readouterr().out
    assert f"{base:,} weights in float32" in said
    assert f"{learning:,} weights with gradient, adamw" in said
    assert f"{base * 4 / 1e6:.3g} MB" in said
    assert "epochs × 2 objectives" in said
    assert re.search(r"hours of an epoch, H100\s*│\s*[\d.e-]+ │ computed: ", said)
    assert "measured" not in said
    assert "atelier estimate cpo --check" in said


@pytest.mark.parametrize("stage", ["sft", "cpo"])
def test_a_check_measures_and_leaves_nothing_behind(studio, notebook, capsys, caplog, stage):
    if stage == "cpo":
        sft.run(studio, notebook)
        capsys.readouterr()
    before = files()

    estimate.run(stage, studio, check=True)

    said = capsys.readouterr().out
    assert re.search(r"a step\s*│\s*[\d.e-]+ s │ measured over 3 steps", said)
    assert "memory, at most" in said
    assert "disk: cache" in said
    assert "did not answer" not in said + caplog.text  # nothing is sent to MLflow
    assert files() == before


def test_an_epoch_of_the_papers_corpus_has_a_price_where_an_hour_has(studio, capsys):
    estimate.run("cpo", studio, check=False, hour=1e6)  # toys are cheap

    said = capsys.readouterr().out
    row = re.search(r"an epoch of 10,277 paintings\s*│\s*([\d.e-]+) h, ([\d,.]+)", said)
    hours, price = float(row[1]), float(row[2].replace(",", ""))
    assert price == pytest.approx(1e6 * hours, rel=0.01)
    assert "at 1e+06 an hour" in said


def flat(table):
    """What a table says, without its lines and without where its cells are wrapped."""
    return " ".join(re.sub("[│┃]", " ", table).split())


def figures(profile, kind, **changes):
    """As ``benchmarks.gpu_step`` writes them, of one case that is like the profile's."""
    (passes,) = {
        one.passes(1) for one in profile.cpo.objectives.values() if one.objective == kind
    }
    training, model = profile.cpo.training, profile.model
    case = {
        "family": model.family, "objective": kind, "policy_passes": passes.policy,
        "frozen_passes": passes.frozen, "flag": "", "batch_images": 8, "images_at_once": None,
        "pixels": model.pixels, "rank": 4, "precision": training.precision,
        "optimizer": training.optimizer, "compile": training.compile,
        "gradient_checkpointing": training.gradient_checkpointing, "attention": None,
        "quantise": None, "seconds_per_image": 0.36, "peak_memory_gb": 40.0, "tflops": 1e-6,
    }  # fmt: skip
    return json.dumps(
        {"device": "NVIDIA X", "torch": "2", "size": "full", "matrix_tflops": 1.0,
         "steps": [case | changes]}
    )  # fmt: skip


def test_what_was_measured_on_a_device_is_labelled_and_priced(studio, tmp_path, capsys):
    (name,) = (key for key, one in studio.cpo.objectives.items() if one.objective == "cpo-s")
    only = studio.cpo.model_copy(
        update={"objectives": {name: studio.cpo.objectives[name]}, "featured": name}
    )
    profile = studio.model_copy(update={"cpo": only})
    file = tmp_path / "there.json"
    file.write_text(figures(profile, "cpo-s"))

    estimate.run("cpo", profile, check=False, hour=2.5, measured=file)

    said = flat(capsys.readouterr().out)
    assert "measured on NVIDIA X: cpo-s, 8 images at once, a LoRA of rank 4" in said
    assert "40 GB" in said
    # 0.36 s an image, of 80% of 10,277 paintings, at 2.50 an hour.
    hours = 0.36 * 10_277 * studio.split.train / 3600
    assert f"an epoch of 10,277 paintings {hours:.3g} h, {2.5 * hours:,.2f}" in said
    assert "measured: NVIDIA X-hours" in said
    assert "from the step measured on NVIDIA X" in said
    assert "1.03 h" in said  # 10,277 pictures in training, as in `planned`


def test_other_trainings_are_computed_at_the_rate_that_was_measured(studio, capsys):
    paths.GPU_STEP.parent.mkdir(exist_ok=True)
    paths.GPU_STEP.write_text(figures(studio, "cpo-s"))

    estimate.run("sft", studio, check=False)

    said = flat(capsys.readouterr().out)
    assert "hours of an epoch, NVIDIA X" in said
    assert "at the 1e-06 TFLOP/s measured on NVIDIA X" in said
    assert "40 GB" not in said
    (flops,) = (one.flops for one in needs.Needs("sft", studio, []).trainings())
    hours = flops / 1e6 * 10_277 * studio.split.train / 3600
    assert f"{hours:.3g} h" in said


def test_the_hours_are_the_steps_of_all_objectives(studio, monkeypatch, capsys):
    told = {"memory_gb": 1.0, "images_per_second": 4.0}
    monkeypatch.setattr(
        estimate._Measured, "__init__", lambda self: setattr(self, "told", told)
    )
    monkeypatch.setattr("tasks.cpo.run", lambda profile, tracked: None)
    profile = studio.model_dump()
    profile["cpo"]["training"] |= {"steps": 3600, "batch_images": 8}

    estimate.run("cpo", Profile.model_validate(profile), check=True)

    # 8 images at 4 a second are 2 s a step; 3600 steps of two objectives are 4 hours.
    assert re.search(r"hours\s*│\s*4 │", capsys.readouterr().out)


def test_a_base_that_cannot_fit_is_said_before_it_is_loaded(studio, monkeypatch, capsys):
    room = estimate.machine.Room("a small device", 1000, 1000, 10**12)
    monkeypatch.setattr(estimate.machine, "room", lambda folder: room)

    estimate.run("sft", studio, check=False)

    assert "It will not fit" in capsys.readouterr().out


def test_a_phase_that_cannot_fit_is_named_with_what_helps_there(studio, monkeypatch, capsys):
    needed = estimate.needs.Needs("sft", studio, estimate.split_parts.read("train", "sft"))
    most = max(one.bytes for one in needed.device())
    room = estimate.machine.Room("a device", int(most) - 1, int(most) - 1, 10**12)
    monkeypatch.setattr(estimate.machine, "room", lambda folder: room)

    estimate.run("sft", studio, check=False)

    (largest,) = (one.name for one in needed.device() if one.bytes == most)
    phase = largest.removeprefix("device: ").capitalize()
    assert f"{phase} will not fit: " in capsys.readouterr().out


def test_an_absent_base_is_named(studio):
    model = studio.model.model_copy(update={"source": "base/nowhere"})
    with pytest.raises(ArtifactError, match="base/nowhere' is no folder here"):
        estimate.run("sft", studio.model_copy(update={"model": model}), check=False)


def test_without_a_split_pictures_are_assumed_and_a_check_needs_them(studio, capsys):
    (paths.SPLIT / "train.jsonl").unlink()

    estimate.run("sft", studio, check=False)

    assert (
        f"assumed: {round(10_277 * studio.split.train):,} pictures" in capsys.readouterr().out
    )
    with pytest.raises(ArtifactError, match="run `dvc repro split`"):
        estimate.run("sft", studio, check=True)


def test_checkpoints_take_what_the_estimate_says(studio, notebook, monkeypatch):
    from atelier.models.costs import parameter_count

    monkeypatch.setattr("tasks.run.resume.done", lambda work: None)
    sft.run(studio, notebook)

    newest, _ = sorted(paths.RESUME.glob("sft-*/step-*"))
    counted = parameter_count.outline(studio.model, [studio.sft.lora]).adapters[0]
    estimated = parameter_count.trained_bytes(counted, "adamw", averaged=False) - 4 * counted
    header = int.from_bytes(newest.read_bytes()[:8], "little")
    assert json.loads(newest.read_bytes()[8 : 8 + header])
    assert newest.stat().st_size - header == pytest.approx(estimated, rel=0.05)


def test_a_plan_is_the_step_times_pictures_over_devices():
    plan = estimate.planned("cpo", 0.36)

    assert list(plan.columns[0].cells) == ["10,277", "1,000,000"]
    assert [list(column.cells) for column in plan.columns[1:]] == [
        ["1.03 h", "100 h"], ["0.128 h", "12.5 h"], ["0.0161 h", "1.56 h"],
    ]  # fmt: skip
