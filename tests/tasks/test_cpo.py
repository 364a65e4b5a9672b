import json
import signal
import time

import pytest
import yaml

from atelier.criteria import annotations, tree
from atelier.criteria.annotations import Record
from atelier.errors import ArtifactError, ParamsError
from atelier.models import adapters
from atelier.objectives import teacher_targets
from tasks import cpo, sft
from tasks.run import paths
from tasks.training import objective_keys


@pytest.fixture
def taught(studio, notebook):
    """A studio with θ1."""
    sft.run(studio, notebook)
    return studio


def results():
    return {path.as_posix(): path.read_bytes() for path in sorted(paths.CPO.rglob("*.*"))}


def test_each_objective_leaves_a_lora_a_curve_and_what_the_monitor_said(taught, notebook):
    cpo.run(taught, notebook)

    assert [path.name for path in sorted(paths.CPO.iterdir())] == ["cpo", "cpo-s"]
    for name in ("cpo", "cpo-s"):
        metrics = json.loads((paths.CPO / name / "metrics.json").read_text())
        assert (paths.CPO / name / adapters.FILE).is_file()
        assert {"drift", "accuracy", "win_error", "drifting"} <= metrics.keys()
        assert "drift" in notebook.parts[name].curves[4]
        assert notebook.parts[name].results.items() >= metrics.items()
        assert notebook.results[f"{name}/drift"] == metrics["drift"]
    assert notebook.settings["cpo-s"]["omega"] == 4.0
    assert notebook.settings["cpo"]["beta"] == 500
    assert not list(paths.RESUME.iterdir())


def test_kept_targets_are_computed_once_and_change_no_byte(taught, notebook, monkeypatch):
    cpo.run(taught, notebook)
    plain, passes = results(), []
    targets = teacher_targets._targets
    monkeypatch.setattr(
        teacher_targets, "_targets", lambda *a, **k: passes.append(a) or targets(*a, **k)
    )
    monkeypatch.setenv("ATELIER_KEEP_NOTHING", "1")
    kept = taught.cpo.model_copy(update={"keep_targets": True})

    for _ in range(2):
        cpo.run(taught.model_copy(update={"cpo": kept}), notebook)
        assert results() == plain

    assert len(taught.cpo.objectives) == 2
    assert len(passes) == taught.cpo.training.steps


def with_omega(studio, omega, *without):
    objectives = studio.cpo.objectives
    changed = objectives["cpo-s"].model_copy(update={"omega": omega})
    wanted = {k: one for k, one in {**objectives, "cpo-s": changed}.items() if k not in without}
    cpo_params = studio.cpo.model_copy(update={"objectives": wanted})
    return studio.model_copy(update={"cpo": cpo_params})


def test_a_changed_omega_trains_one_objective_and_an_unchanged_profile_none(
    taught, notebook, monkeypatch, capsys
):
    cpo.run(taught, notebook)
    first = results()
    trained = []
    teach = cpo.trainer.teach
    monkeypatch.setattr(
        cpo.trainer, "teach", lambda name, *a, **k: trained.append(name) or teach(name, *a, **k)
    )

    cpo.run(with_omega(taught, 8.0), notebook)
    assert trained == ["cpo-s"]
    assert "cpo: unchanged, kept" in capsys.readouterr().err
    changed = results()
    assert {name for name in first if first[name] != changed[name]} >= {
        f"artifacts/cpo/cpo-s/{adapters.FILE}", "artifacts/cpo/cpo-s/made_of.json"
    }  # fmt: skip
    assert all("/cpo-s/" in name for name in first if first[name] != changed[name])

    with monkeypatch.context() as patch:
        patch.setattr(cpo.loading, "load", lambda params: pytest.fail("it loads the base"))
        again = type(notebook)()
        cpo.run(with_omega(taught, 8.0), again)
        assert results() == changed
        assert "cpo-s/drift" in again.results  # MLflow's run of the stage says it all the same
        cpo.run(with_omega(taught, 8.0, "cpo"), notebook)
    assert [path.name for path in paths.CPO.iterdir()] == ["cpo-s"]

    cpo.run(taught, notebook)
    assert results() == first


def test_damaged_weights_are_trained_again(taught, notebook):
    cpo.run(taught, notebook)
    first = results()
    file = paths.CPO / "cpo-s" / adapters.FILE
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)

    cpo.run(taught, notebook)

    assert results() == first


def test_what_an_objective_is_made_of_decides_which_are_trained(taught):
    before = objective_keys.of(taught)
    params = taught.cpo
    for update, changed in (
        ({"pairs": None}, set()),  # no objective learns from pairs
        ({"featured": "cpo"}, set()),
        ({"caption_dropout": 0.5}, {"cpo", "cpo-s"}),
    ):
        now = objective_keys.of(
            taught.model_copy(update={"cpo": params.model_copy(update=update)})
        )
        assert {name for name in before if now[name] != before[name]} == changed
    file = paths.SPLIT / "train.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))
    assert not set(objective_keys.of(taught).values()) & set(before.values())


def test_objectives_differ_in_what_they_teach(taught, notebook):
    cpo.run(taught, notebook)

    one, two = ((paths.CPO / name / adapters.FILE).read_bytes() for name in ("cpo", "cpo-s"))
    assert one != two


def test_a_missing_theta1_names_its_stage(studio, notebook):
    with pytest.raises(ArtifactError, match=r"pytorch_lora.* is absent; run `dvc repro sft`"):
        cpo.run(studio, notebook)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["flux", "sd3", "sdxl"])
@pytest.mark.filterwarnings("ignore:.* drifts at step")  # a toy may; that is not the question
def test_killed_and_started_again_it_ends_byte_for_byte_the_same(taught, notebook, stage):
    longer = {"steps": 12, "checkpoint_steps": 3}
    profile = yaml.safe_load((paths.PARAMS / "toy.yaml").read_text())
    profile["cpo"]["training"] |= longer
    (paths.PARAMS / "toy.yaml").write_text(yaml.safe_dump(profile))
    training = taught.cpo.training.model_copy(update=longer)
    changed = taught.cpo.model_copy(update={"training": training})
    cpo.run(taught.model_copy(update={"cpo": changed}), notebook)
    undisturbed = results()
    for path in paths.CPO.rglob("*.*"):
        path.unlink()

    process = stage("cpo")
    deadline = time.monotonic() + 240
    while not list(paths.RESUME.glob("cpo-*/step-*.safetensors")):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    again = stage("cpo")
    said, _ = again.communicate(timeout=240)

    assert again.returncode == 0, said
    assert results() == undisturbed


EXTRA = {
    "dpo": {"objective": "dpo", "beta": 500, "learning_rate": 0.001},
    "npo": {"objective": "npo", "beta": 500, "learning_rate": 0.001, "w": 0.0,
            "beside": ["cpo-s"]},
    "unsure": {
        "objective": "cpo-s", "loser_target": "mirror-winner", "winner": "labelled",
        "teacher": "base", "confidence": "weighs", "omega": 1.0,
        "weighting": {"min_snr_gamma": 5.0}, "learning_rate": 0.001,
    },
    "guided": {
        "objective": "cpo-s", "loser_target": "mirror-winner", "winner": "flipped",
        "teacher": "sft", "confidence": "ignored", "omega": 1.0, "weighting": "constant",
        "learning_rate": 0.001, "init": "sft", "reference": "sft", "teacher_guidance": 2.0,
        "k": 0.5, "dpo_beta": 100.0, "empty_positive": "caption-wins",
    },
    "nft": {"objective": "nft", "old": "base", "beta": 1, "clip": 5, "anchor": 0.0001,
            "learning_rate": 0.001},
    "nft-online": {"objective": "nft-online", "beta": 1, "clip": 5, "anchor": 0.0001,
                   "captions": 2, "group": 2, "sampling_steps": 2, "round_steps": 2,
                   "decay_growth": 0.001, "decay_most": 0.5, "learning_rate": 0.001,
                   "init": "sft"},
    "cpo-s-online": {"objective": "cpo-s-online", "loser_target": "mirror-winner",
                     "winner": "flipped", "teacher": "sft", "confidence": "ignored", "omega": 1,
                     "weighting": "constant", "captions": 2, "group": 2, "sampling_steps": 2,
                     "round_steps": 2, "learning_rate": 0.001, "init": "sft"},
    "ddspo": {"objective": "ddspo", "winner": "flipped", "beta": 100, "weighting": "snr",
              "learning_rate": 0.001},
    "spo": {"objective": "spo-measured", "beta": 10, "clip": 0.1, "steps": 10, "untrained": 2,
            "churn": 1.0, "gap": 1, "learning_rate": 0.001},
}  # fmt: skip


def with_objectives(studio, roots, **more):
    by_root = EXTRA["unsure"] | {"omega": dict.fromkeys(roots, 2.0), "confidence": "ignored"}
    every = {"cpo-s": studio.cpo.objectives["cpo-s"].model_dump(), **EXTRA, "by-root": by_root}
    values = studio.model_dump() | {
        "generate": studio.generate.model_dump() | {"guidance": 2.0}
    }
    values["cpo"] |= {"objectives": every, "caption_dropout": 0.5, **more}
    return type(studio).model_validate(values)


@pytest.mark.filterwarnings("ignore:.* drifts at step")
def test_every_kind_of_objective_is_trained_from_one_encoding(taught, notebook):
    roots = tree.parse(paths.JUDGED_BY).roots()

    cpo.run(with_objectives(taught, roots), notebook)

    names = [
        "by-root",
        "cpo-s",
        "cpo-s-online",
        "ddspo",
        "dpo",
        "guided",
        "nft",
        "nft-online",
        "npo",
        "spo",
        "unsure",
    ]
    assert [path.name for path in sorted(paths.CPO.iterdir())] == names
    loras = {(paths.CPO / name / adapters.FILE).read_bytes() for name in names}
    assert len(loras) == len(names)
    said = {n: json.loads((paths.CPO / n / "metrics.json").read_text()) for n in names}
    assert {"pairs", "ties", "unmatched", "pairs_of_two_sizes"} <= said["dpo"].keys()
    assert {"empty_positive", "empty_negative"} <= said["cpo-s"].keys()


@pytest.mark.filterwarnings("ignore:.* drifts at step")
def test_a_trainings_passes_are_those_that_its_objective_states(taught, notebook, monkeypatch):
    profile = with_objectives(taught, tree.parse(paths.JUDGED_BY).roots())
    batch, steps = profile.cpo.training.batch_images, profile.cpo.training.steps
    seldom = profile.cpo.training.model_copy(update={"report_steps": steps})
    profile = profile.model_copy(
        update={"cpo": profile.cpo.model_copy(update={"training": seldom})}
    )
    went = {"policy": 0, "frozen": 0}
    made = {}
    load, teach = cpo.loading.load, cpo.trainer.teach

    def count(module, given, found):
        predicted = found[0] if isinstance(found, tuple) else found.sample
        went["policy" if predicted.requires_grad else "frozen"] += len(predicted)

    def watched(params):
        painter = load(params)
        painter.network.register_forward_hook(count)
        return painter

    def counted(name, *given, **more):
        went.update(policy=0, frozen=0)
        curve = teach(name, *given, **more)
        made[name] = dict(went)
        return curve

    monkeypatch.setattr(cpo.loading, "load", watched)
    monkeypatch.setattr(cpo.trainer, "teach", counted)
    cpo.run(profile, notebook)

    assert len(made) == len(profile.cpo.objectives)
    for name, objective in profile.cpo.objectives.items():
        states = objective.passes(batch)
        # The monitor compares with a reference that the loss does not read, in the last step.
        watching = 0 if objective.needs_reference() else batch
        assert made[name] == {
            "policy": steps * batch * states.policy,
            "frozen": steps * batch * states.frozen + watching,
        }, name


@pytest.mark.filterwarnings("ignore:.* drifts at step")
def test_milestones_are_the_weights_on_the_way_also_after_a_kill(taught, notebook, monkeypatch):
    def with_milestones(*steps):
        one = taught.cpo.objectives["cpo-s"].model_copy(update={"milestones": steps})
        params = taught.cpo.model_copy(update={"objectives": {"cpo-s": one}})
        return taught.model_copy(update={"cpo": params})

    def weights(folder):
        return (folder / adapters.FILE).read_bytes()

    cpo.run(with_milestones(2, 3), notebook)
    whole = paths.CPO / "cpo-s"
    undisturbed = results()
    at = {steps: weights(paths.milestone(whole, steps)) for steps in (2, 3)}
    assert len({*at.values(), weights(whole)}) == 3
    for path in paths.CPO.rglob("*.*"):
        path.unlink()

    save = cpo.adapters.save
    monkeypatch.setattr(cpo.adapters, "save", lambda *given: save(*given) or stop(given[2]))

    def stop(folder):  # at step 3, whose checkpoint is not yet written
        if folder.name == "step-3":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cpo.run(with_milestones(2, 3), notebook)
    monkeypatch.setattr(cpo.adapters, "save", save)
    cpo.run(with_milestones(2, 3), notebook)

    assert results() == undisturbed
    assert not list(paths.RESUME.iterdir())


@pytest.mark.parametrize("milestones", [(4,), (3, 2), (2, 2)])
def test_milestones_lie_on_the_way(taught, milestones):
    values = taught.model_dump()
    values["cpo"]["objectives"]["cpo-s"]["milestones"] = milestones

    with pytest.raises(ValueError, match="milestones should rise and stay below"):
        type(taught).model_validate(values)


def test_averaged_weights_have_no_milestones(taught):
    values = taught.model_dump()
    values["cpo"]["objectives"]["cpo-s"]["milestones"] = (2,)
    values["cpo"]["training"]["ema_decay"] = 0.9

    with pytest.raises(ValueError, match=r"training.ema_decay averages them"):
        type(taught).model_validate(values)


def test_an_omega_by_root_names_every_root(taught, notebook):
    with pytest.raises(ParamsError, match=r"by-root.omega should name every root of the crit"):
        cpo.run(with_objectives(taught, ["nowhere"]), notebook)


def test_brought_pairs_are_learned_from(taught, notebook):
    records = annotations.read(paths.SPLIT / "train.jsonl", Record)
    lines = ["file_win,file_lose,caption", f"{records[0].file},{records[1].file},a quiet sea"]
    (paths.DATA / "pairs.csv").write_text("\n".join(lines) + "\n")
    table = {"source": "table", "table": "pairs.csv"}

    cpo.run(with_objectives(taught, tree.parse(paths.JUDGED_BY).roots(), pairs=table), notebook)

    metrics = json.loads((paths.CPO / "dpo" / "metrics.json").read_text())
    assert metrics["pairs"] == 1


def test_a_theta_begins_as_a_lora_of_another_trainer_and_has_its_bytes_in_its_key(
    taught, notebook, monkeypatch
):
    place = paths.LORAS / "theirs.safetensors"
    place.parent.mkdir()
    place.write_bytes((paths.SFT / adapters.FILE).read_bytes())
    objectives = taught.cpo.objectives
    changed = objectives["cpo-s"].model_copy(update={"init": place.as_posix()})
    cpo_params = taught.cpo.model_copy(update={"objectives": {**objectives, "cpo-s": changed}})
    profile = taught.model_copy(update={"cpo": cpo_params})
    begun = {}
    teach = cpo.trainer.teach

    def noting(name, painter, trained, *args, **more):
        begun[name] = {key: p.detach().clone() for key, p in trained.items()}
        return teach(name, painter, trained, *args, **more)

    monkeypatch.setattr(cpo.trainer, "teach", noting)

    cpo.run(profile, notebook)

    assert any(key.endswith("lora_B.cpo-s.weight") and p.any()
               for key, p in begun["cpo-s"].items())  # fmt: skip
    assert not any(key.endswith("lora_B.cpo.weight") and p.any()
                   for key, p in begun["cpo"].items())  # fmt: skip
    keys = objective_keys.of(profile)
    place.write_bytes(place.read_bytes() + b" ")
    again = objective_keys.of(profile)
    assert again["cpo-s"] != keys["cpo-s"]
    assert again["cpo"] == keys["cpo"]
