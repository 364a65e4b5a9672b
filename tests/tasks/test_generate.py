import base64
import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from atelier import images
from atelier.criteria import tree
from atelier.criteria.annotations import Record
from atelier.errors import ArtifactError, ParamsError, RoomError
from atelier.models import adapters, loading
from atelier.models.families.flux import Flux
from tasks import generate
from tasks.evaluation import candidates, captions, generation
from tasks.run import paths
from tasks.tracking import connection, registry, version_pages
from tasks.training.prompts import Prompts

NAMES = ["base", "theta1", "theta1+pos", "cpo-s", "cpo"]


def pictures():
    return {
        path.relative_to(paths.GENERATE).as_posix(): path.read_bytes()
        for path in sorted(paths.GENERATE.rglob("*.png"))
    }


def loaded(monkeypatch):
    """Names of the LoRAs that are loaded from now on."""
    names = []
    attach = adapters.attach
    monkeypatch.setattr(
        adapters, "attach", lambda p, name, f: names.append(name) or attach(p, name, f)
    )
    return names


def no_network(params):
    pytest.fail("it loads the base")


def test_every_candidate_paints_every_caption(gallery, notebook):
    generate.run(gallery, notebook)

    assert sorted(pictures()) == sorted(f"{n}/{i:03}.png" for n in NAMES for i in range(4))
    by_candidate = [
        np.stack([np.array(Image.open(paths.GENERATE / n / f"{i:03}.png")) for i in range(4)])
        for n in NAMES
    ]
    for one in range(len(NAMES)):
        for other in range(one):
            assert (by_candidate[one] != by_candidate[other]).any()
    assert not list(paths.RESUME.glob("*"))


def test_only_a_candidate_with_other_weights_paints_again(
    gallery, notebook, monkeypatch, capsys
):
    generate.run(gallery, notebook)
    before = pictures()
    shutil.copytree(paths.CPO / "cpo", paths.CPO / "cpo-s", dirs_exist_ok=True)
    names = loaded(monkeypatch)

    generate.run(gallery, notebook)

    after = pictures()
    assert names == ["cpo-s"]
    assert all(name.startswith("cpo-s/") for name in before if before[name] != after[name])
    for number in range(4):
        assert after[f"cpo-s/{number:03}.png"] == after[f"cpo/{number:03}.png"]
    assert "theta1+pos: unchanged, kept" in capsys.readouterr().err


def test_another_name_or_company_paints_nothing_and_a_removed_one_goes(
    gallery, notebook, monkeypatch
):
    generate.run(gallery, notebook)
    objectives = dict(gallery.cpo.objectives)
    del objectives["cpo"]
    fewer = gallery.cpo.model_copy(update={"objectives": objectives})

    with monkeypatch.context() as patch:
        patch.setattr(loading, "load", no_network)
        generate.run(gallery.model_copy(update={"cpo": fewer}), notebook)

    assert sorted(folder.name for folder in paths.GENERATE.iterdir()) == sorted(NAMES[:-1])


def test_another_seed_paints_everything_again(gallery, notebook):
    generate.run(gallery, notebook)
    before = pictures()
    other = gallery.generate.model_copy(update={"seed": 1})

    generate.run(gallery.model_copy(update={"generate": other}), notebook)

    assert not set(before.values()) & set(pictures().values())


def interrupting(write, after):
    done = []

    def once(path, content):
        if path.suffix == ".png":
            if len(done) == after:
                raise KeyboardInterrupt
            done.append(path)
        write(path, content)

    return once


def test_interrupted_it_keeps_what_was_painted_and_ends_the_same(
    gallery, notebook, monkeypatch
):
    generate.run(gallery, notebook)
    undisturbed = pictures()
    shutil.rmtree(paths.GENERATE)
    files = []

    with monkeypatch.context() as patch:
        write = interrupting(generation.atomic.write, after=7)
        patch.setattr(generation.atomic, "write", write)
        with pytest.raises(KeyboardInterrupt):
            generate.run(gallery, notebook)
    kept = len(list(paths.RESUME.rglob("*.png")))
    with monkeypatch.context() as patch:
        patch.setattr(
            images,
            "png",
            lambda picture, png=images.png: files.append(1) or png(picture),
        )
        generate.run(gallery, notebook)

    assert kept == 7
    assert len(files) == 5 * 4 - 6  # the seventh stood in a batch that was not whole
    assert pictures() == undisturbed
    assert not list(paths.RESUME.glob("*"))


def test_a_picture_that_the_disk_changed_is_painted_again(gallery, notebook, monkeypatch):
    generate.run(gallery, notebook)
    before = pictures()
    flip(paths.GENERATE / "cpo-s/001.png")
    names = loaded(monkeypatch)

    generate.run(gallery, notebook)

    assert names == ["cpo-s"]
    assert pictures() == before


def test_a_picture_of_an_interrupted_run_that_the_disk_changed_is_painted_again(
    gallery, notebook, monkeypatch
):
    generate.run(gallery, notebook)
    before = pictures()
    shutil.rmtree(paths.GENERATE)
    with monkeypatch.context() as patch:
        patch.setattr(generate.atomic, "copy_tree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            generate.run(gallery, notebook)
    flip(sorted(paths.RESUME.rglob("generate-cpo-s-*/pictures/*.png"))[1])

    with pytest.warns(UserWarning, match=r"001.png is not as it was painted"):
        generate.run(gallery, notebook)

    assert pictures() == before


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def interrupted(*_):
    raise KeyboardInterrupt


def test_what_cannot_be_judged_or_measured_is_said_before_anything_is_painted(
    gallery, notebook, monkeypatch, capsys
):
    asked = gallery.evaluate.model_copy(update={"metrics": ["fid", "kid", "pickscore"]})
    monkeypatch.setenv("ATELIER_WEIGHTS", "elsewhere")
    monkeypatch.setattr(loading, "load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate.run(gallery.model_copy(update={"evaluate": asked}), notebook)
    said = capsys.readouterr().out
    assert "PickScore is unavailable: elsewhere/pickscore/" in said
    assert "atelier weights --fetch pickscore" in said

    annotate = gallery.annotate.model_copy(update={"annotator": "recorded"})
    with pytest.raises(ParamsError, match="'recorded' replays"):
        generate.run(gallery.model_copy(update={"annotate": annotate}), notebook)


@pytest.mark.parametrize(
    ("folder", "stage"), [(paths.SFT, "sft"), (paths.CPO / "cpo-s", "cpo")]
)
def test_a_missing_adapter_names_the_stage_that_makes_it(gallery, notebook, folder, stage):
    (folder / adapters.FILE).unlink()

    with pytest.raises(
        ArtifactError, match=rf"{folder.name}.* is absent; run `dvc repro {stage}`"
    ):
        generate.run(gallery, notebook)


@pytest.mark.slow
def test_a_registered_model_repaints_what_the_stage_painted(gallery, notebook, mlflow_tables):
    import mlflow
    import pandas as pd

    generate.run(gallery, notebook)
    outs = {"sft": f"artifacts/sft/{adapters.FILE}", "cpo": "artifacts/cpo"}
    stages = {name: {"cmd": "true", "outs": [out]} for name, out in outs.items()}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    for words in (["init", "--no-scm"], ["commit", "-f"]):
        subprocess.run([sys.executable, "-m", "dvc", *words, "-q"], check=True)
    registry.run()
    examined = captions.painted(captions.records(gallery), gallery.generate.prompts)
    # As the stage asks: a caption that is too long for the encoders is cut between words.
    writer = Prompts(
        loading.load(gallery.model), tree.parse(paths.JUDGED_BY), gallery.generate.seed
    )
    rows = pd.DataFrame(
        {
            "prompt": [writer.write(record, ()) for record in examined],
            "seed": captions.seeds(gallery.generate.seed, len(examined)),
        }
    )

    for painter in ("theta1", "cpo-s"):
        found = connection.client().search_model_versions(
            f"tags.`{version_pages.OBJECTIVE}` = '{painter}'"
        )
        (version,) = found
        model = mlflow.pyfunc.load_model(f"models:/{version.name}/{version.version}")
        repainted = [base64.b64decode(image) for image in model.predict(rows)["image"]]
        for number, content in enumerate(repainted):
            kept = Image.open(paths.GENERATE / painter / f"{number:03}.png")
            apart = np.array(Image.open(io.BytesIO(content))).astype(int) - np.array(kept)
            assert abs(apart).max() <= 1  # where a last bit rounds a value otherwise
        assert len(repainted) == len(examined) > gallery.generate.batch_images


def test_a_captions_noise_does_not_depend_on_how_many_captions_there_are():
    assert captions.seeds(3, 10)[:4] == captions.seeds(3, 4)
    assert len(set(captions.seeds(3, 100))) == 100
    assert captions.seeds(3, 4) != captions.seeds(4, 4)


def test_prompts_with_positives_name_the_good_pole_of_every_active_criterion(gallery):
    compared = {one.name: one for one in candidates.of(gallery)}
    writer = Prompts(loading.load(gallery.model), tree.parse(paths.JUDGED_BY), seed=0)
    record = Record(
        image="0" * 64, file="x", caption="a sea", positive=["edges"], negative=["light"]
    )

    assert generation.prompt(compared["theta1"], record, writer) == "a sea"
    assert (
        generation.prompt(compared["theta1+pos"], record, writer)
        == "a sea, calm edges, clear light"
    )


def with_npo(gallery):
    npo = {"objective": "npo", "beta": 500, "learning_rate": 0.001, "w": 0.25,
           "beside": ["base", "cpo-s"]}  # fmt: skip
    values = gallery.model_dump()
    values["cpo"]["objectives"]["npo"] = npo
    values["generate"] |= {"guidance": 2.0}
    profile = type(gallery).model_validate(values)
    shutil.copytree(paths.CPO / "cpo", paths.CPO / "npo")
    return profile


def test_npo_stands_beside_other_candidates_and_paints_nothing_alone(gallery, notebook):
    generate.run(with_npo(gallery), notebook)

    painted = pictures()
    assert {name.partition("/")[0] for name in painted} == {*NAMES, "base+npo", "cpo-s+npo"}
    for other in ("base", "cpo-s"):
        assert painted[f"{other}+npo/000.png"] != painted[f"{other}/000.png"]


def test_the_negative_state_keeps_what_w_leaves_of_the_positive_one(gallery):
    compared = {one.name: one for one in candidates.of(with_npo(gallery))}

    assert generation._negative_state(compared["cpo-s+npo"]) == {"cpo-s": 0.75, "npo": 1.0}
    assert generation._negative_state(compared["base+npo"]) == {"npo": 1.0}
    assert "cpo-s" in compared["cpo-s+npo"].about or "θ" in compared["cpo-s+npo"].about


def test_a_milestone_is_a_candidate_with_the_weights_of_its_step(gallery, notebook):
    one = gallery.cpo.objectives["cpo-s"].model_copy(update={"milestones": (2,)})
    objectives = {**gallery.cpo.objectives, "cpo-s": one}
    params = gallery.cpo.model_copy(update={"objectives": objectives})
    profile = gallery.model_copy(update={"cpo": params})
    with pytest.raises(ArtifactError, match=r"cpo-s/step-2/.* is absent; run `dvc repro cpo`"):
        candidates.of(profile)
    # At step 2 it is what "cpo" is in the end.
    shutil.copytree(paths.CPO / "cpo", paths.milestone(paths.CPO / "cpo-s", 2))

    generate.run(profile, notebook)

    painted = pictures()
    assert painted["cpo-s@2/000.png"] == painted["cpo/000.png"] != painted["cpo-s/000.png"]
    assert [one.name for one in candidates.of(profile)][3:] == ["cpo-s", "cpo-s@2", "cpo"]


def test_settings_are_chosen_on_validation_which_is_no_test(gallery):
    chosen = gallery.generate.model_copy(update={"part": "validation", "prompts": 1})
    (paths.SPLIT / "test.jsonl").unlink()

    found = captions.records(gallery.model_copy(update={"generate": chosen}))

    assert captions.part(gallery) == paths.SPLIT / "test.jsonl"
    assert len(found) == 1


def test_too_little_memory_to_paint_says_what_helps_there(gallery, notebook, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Flux, "decode_latents", full)

    with pytest.raises(RoomError) as told:
        generate.run(gallery, notebook)

    said = str(told.value)
    assert said.startswith("Painting 2 picture(s) at once needs more memory")
    assert said.index("generate.batch_images: 1 (now 2)") < said.index(
        "model.codec.tile_pixels"
    )
    assert "training" not in said
