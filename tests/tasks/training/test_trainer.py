import json
import shutil

import pytest
import torch

from atelier.config.profile import Profile
from atelier.criteria import annotations
from atelier.errors import DivergedError, ParamsError, RoomError
from atelier.models import loading
from atelier.models.families.flux import Flux
from atelier.training.ranks import Ranks
from tasks import cpo, sft
from tasks.run import paths
from tasks.training import trainer


def changed(studio, section, **values):
    """The studio's profile with other values in a section's training."""
    profile = studio.model_dump()
    profile[section]["training"] |= values
    return Profile.model_validate(profile)


@pytest.fixture
def validation(studio):
    rows = [json.loads(line) for line in (paths.SPLIT / "train.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        row["caption"] = f"a sea number {number % 4}"
    records = [annotations.Record.model_validate(row) for row in rows]
    (paths.SPLIT / "validation.jsonl").write_text(annotations.lines(records))


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*.*")}


GRIDS = {"every_steps": 2, "prompts": 3, "steps": 2, "guidance": 2.0}


@pytest.mark.parametrize("family", ["flux", "sdxl"])
def test_grids_are_painted_on_the_way_and_change_nothing(studio, notebook, validation):
    sft.run(studio, notebook)
    without = files(paths.SFT)
    notebook.pictures.clear()

    sft.run(changed(studio, "sft", grids=GRIDS), notebook)

    assert notebook.pictures == ["sft grid", "sft grid"]
    assert files(paths.SFT) == without


def test_a_grid_shows_the_captions_side_by_side(studio, notebook, validation, monkeypatch):
    shown = []
    monkeypatch.setattr(
        notebook, "picture", lambda name, picture, step=None: shown.append((step, picture))
    )

    sft.run(changed(studio, "sft", grids=GRIDS), notebook)

    assert [step for step, _ in shown] == [2, 4]
    assert [picture.size for _, picture in shown] == [(96, 32), (96, 32)]
    assert list(shown[0][1].getdata()) != list(shown[1][1].getdata())  # it learned


def test_mlflow_is_opened_when_the_first_step_is_taken(studio, notebook, monkeypatch):
    order, advance = [], trainer.loop._State.advance

    def advanced(state, rate):
        order.append("step")
        return advance(state, rate)

    monkeypatch.setattr(trainer.loop._State, "advance", advanced)
    monkeypatch.setattr(notebook, "begin", lambda *, beside=False: order.append(beside))
    shutil.rmtree(paths.CACHE, ignore_errors=True)
    sft.run(studio, notebook)  # pictures and prompts have to be encoded: it is opened for that
    encoding, order[:] = order[: order.index("step")], order[order.index("step") :]
    assert encoding
    assert not any(encoding)
    assert order == ["step", True, "step", "step", "step"]

    order.clear()
    shutil.rmtree(paths.SFT)
    shutil.rmtree(paths.RESUME, ignore_errors=True)
    sft.run(studio, notebook)

    assert order == ["step", True, "step", "step", "step"]


def test_gradient_checkpointing_is_on_while_it_learns_alone(studio, notebook, monkeypatch):
    network = loading.load(studio.model).network
    params = changed(studio, "sft", gradient_checkpointing=True).sft.training

    with trainer._prepared(network, params):
        assert network.is_gradient_checkpointing

    assert not network.is_gradient_checkpointing


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # torch's own, on tracing
@pytest.mark.parametrize("family", ["flux", "sdxl"])
def test_a_compiled_network_learns_the_same(studio, notebook):
    sft.run(changed(studio, "sft", steps=3), notebook)
    plain = notebook.curves.copy()
    notebook.curves = {}

    sft.run(changed(studio, "sft", steps=3, compile=True), notebook)

    for step, values in plain.items():
        assert notebook.curves[step]["loss"] == pytest.approx(values["loss"], rel=1e-3)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate"
                     " memory: you tried to allocate 99 bytes"),
    ],
    ids=["cuda", "cpu"],
)  # fmt: skip
def test_too_little_memory_says_what_to_change(studio, notebook, monkeypatch, error):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(trainer.loop, "fit", full)

    with pytest.raises(RoomError) as told:
        sft.run(changed(studio, "sft", batch_images=8), notebook)

    said = str(told.value)
    order = ["images_at_once: 4", "gradient_checkpointing: true", "precision: bf16",
             "optimizer: adamw-8bit", "model.quantise"]  # fmt: skip
    assert [said.index(word) for word in order] == sorted(said.index(word) for word in order)
    assert said.startswith("sft needs more memory than its device has")


def test_what_is_set_already_is_not_advised(studio, notebook, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer.loop, "fit", full)
    set_already = {"images_at_once": 1, "gradient_checkpointing": True, "precision": "bf16"}

    with pytest.raises(RoomError) as told:
        sft.run(changed(studio, "sft", **set_already), notebook)

    assert "images_at_once" not in str(told.value)
    assert "gradient_checkpointing" not in str(told.value)
    assert "precision" not in str(told.value)


def test_what_begins_is_said_before_it_does(studio, notebook, capsys):
    sft.run(changed(studio, "sft", steps=3), notebook)

    said = capsys.readouterr().err
    assert "weights learn; 3 steps of 2 images, 1 process(es) on CPU" in said
    assert said.index("weights learn") < said.index("sft: step 3/3")


def test_another_error_stays_what_it_is(studio, notebook, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(trainer.loop, "fit", broken)

    with pytest.raises(RuntimeError, match="shapes differ"):
        sft.run(studio, notebook)


@pytest.fixture
def drifting(studio, notebook, monkeypatch):
    """Everything drifts; θ1 is there."""
    sft.run(studio, notebook)
    monkeypatch.setattr(trainer.drift.Alarm, "drifting", lambda self, values: True)


def test_a_drifting_run_is_warned_of_once(studio, notebook, drifting):
    with pytest.warns(UserWarning, match="drifts at step 1: ") as warned:
        cpo.run(studio, notebook)

    assert len([one for one in warned if "drifts" in str(one.message)]) == 2  # two objectives


def test_a_drifting_run_stops_where_that_is_asked_for(studio, notebook, drifting):
    stops = changed(studio, "cpo", drift_stop=True)

    with pytest.raises(DivergedError, match=r"cpo-s drifts at step 1.*drift_stop ended it"):
        cpo.run(stops, notebook)

    assert not paths.CPO.exists()


def test_an_alarm_goes_on_from_what_was_reported_before(tmp_path, notebook):
    from tasks.training.curve import Curve

    def quiet(done, values):
        pass

    first = Curve(tmp_path, quiet, notebook)
    away = {"aim_error": 2.0, "aim_error_reference": 1.0}
    for done in range(1, 10):
        first.report(done, away, {})

    watch = trainer._Watch("cpo", Curve(tmp_path, quiet, notebook), stops=True)
    with pytest.raises(DivergedError, match="at step 10"):
        watch.report(10, away)
    # A run that went back to step 5 does not know what came later.
    watch = trainer._Watch("cpo", Curve(tmp_path, quiet, notebook), stops=True)
    watch.report(5, away)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("model", "quantise", "int8"),
        ("cpo.training", "compile", True),
        ("cpo.lora", "dora", True),
        ("cpo", "lora", "full"),
    ],
)
def test_what_does_not_go_with_a_shared_base_is_refused_at_once(profile, section, field, value):
    values = Profile.model_validate(profile).model_dump()
    place = values
    for key in section.split("."):
        place = place[key]
    place[field] = value
    changed = Profile.model_validate(values)
    taken = changed.model, changed.cpo.training, changed.cpo.lora

    trainer.check(Ranks(0, 1), *taken)
    with pytest.raises(ParamsError, match=rf"share the frozen base, and .*{field}"):
        trainer.check(Ranks(0, 1, sharded=True), *taken)


def test_too_little_memory_for_a_grid_advises_nothing_about_the_training(
    studio, notebook, validation, monkeypatch
):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Flux, "decode_latents", full)

    with pytest.raises(RoomError) as told:
        sft.run(changed(studio, "sft", grids=GRIDS), notebook)

    assert str(told.value).startswith("Painting 4 validation images beside a training needs")
    assert "gradient_checkpointing" not in str(told.value)
