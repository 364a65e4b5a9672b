import json
import shutil

import numpy as np
import pytest
import safetensors.torch
from PIL import Image

from atelier.errors import ArtifactError, ParamsError
from atelier.models import adapters, loading, sampling
from tasks.commands import paint
from tasks.run import paths

CRITERIA = """
domain: toy
version: "1"
literature: {}
criteria:
  light:
    name: Light
    about: Light.
    branches:
      key: {positive: clear light, negative: dull light, positive_means: "Bright.",
            negative_means: "Grey.", applies: any, sources: []}
      edge: {positive: calm edges, negative: harsh edges, positive_means: "Soft.",
             negative_means: "Hard.", applies: any, sources: []}
"""


@pytest.fixture
def trained(studio):
    """A studio with θ1 and one θ, whose weights are not zero."""
    paths.JUDGED_BY.write_text(CRITERIA)
    painter = loading.load(studio.model)
    for number, folder in enumerate((paths.SFT, paths.CPO / "cpo-s"), start=1):
        adapters.add(painter.network, folder.name, studio.sft.lora, seed=number)
        for key, parameter in adapters.weights(painter.network, folder.name).items():
            if ".lora_B." in key:
                parameter.data.fill_(0.02 * number)
        adapters.save(painter, folder.name, folder)
    return studio


@pytest.fixture
def wish(tmp_path):
    def wish(**changes):
        values = {
            "prompts": ["a sea"],
            "models": ["base"],
            "promote": [],
            "suppress": [],
            "seeds": [0],
            "steps": 2,
            "guidance": 2.0,
            "out": tmp_path / "painted",
        }
        return paint.Wish(**(values | changes))

    return wish


def picture(folder, number=0):
    return np.array(Image.open(folder / f"{number:03}.png"))


def test_models_side_by_side_are_rows_prompts_and_seeds_are_columns(trained, wish, tmp_path):
    names = ["base", "theta1", "cpo-s"]
    grid = paint.run(trained, wish(models=names, prompts=["a sea", "a hill"], seeds=[0, 1]))

    out = tmp_path / "painted"
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*names, "grid.png", "paint.json"]
    )
    pictures = np.stack([[picture(out / name, n) for n in range(4)] for name in names])
    assert len(np.unique(pictures.reshape(12, -1), axis=0)) == 12
    how = json.loads((out / "paint.json").read_text())
    assert how["prompts"] == ["a sea", "a sea", "a hill", "a hill"]
    assert how["seeds"] == [0, 1, 0, 1]
    assert how["models"]["base"]["lora"] is None
    assert len(how["models"]["theta1"]["lora"]) == 64
    with Image.open(grid) as shown:
        assert shown.width > 4 * 32
        assert shown.height > 3 * 32


def test_a_folder_is_a_model_and_paints_what_the_stage_of_that_name_paints(trained, wish):
    folder = paths.CPO / "cpo-s"
    paint.run(trained, wish(models=["cpo-s", str(folder)]))

    out = wish().out
    by_folder = out / "artifacts-cpo-cpo-s"
    apart = picture(out / "cpo-s").astype(int) - picture(by_folder)
    assert abs(apart).max() <= 1  # where a last bit rounds a value otherwise


def test_a_branch_promotes_all_its_good_poles_and_suppresses_all_its_bad_ones(trained, wish):
    plain = wish(models=["theta1"])
    paint.run(trained, plain)
    before = picture(plain.out / "theta1")
    paint.run(trained, wish(models=["theta1"], promote=["light"], suppress=["light/key"]))

    how = json.loads((plain.out / "paint.json").read_text())
    assert how["prompts"] == ["a sea, clear light, calm edges"]
    assert how["against"] == ["dull light"]
    assert (picture(plain.out / "theta1") != before).any()


def unguided(profile):
    own = profile.cpo.objectives["cpo-s"].model_copy(update={"teacher_guidance": 2.0})
    cpo = profile.cpo.model_copy(update={"objectives": {"cpo-s": own}})
    guided = profile.generate.model_copy(update={"guidance": 3.0})
    return profile.model_copy(update={"cpo": cpo, "generate": guided})


def test_a_model_with_guidance_inside_is_sampled_without_unless_asked(trained, wish):
    profile = unguided(trained)
    file = wish().out / "paint.json"

    paint.run(profile, wish(models=["theta1", "cpo-s"], guidance=None))
    usual = json.loads(file.read_text())["models"]
    paint.run(profile, wish(models=["theta1", "cpo-s"], guidance=2.0))
    asked = json.loads(file.read_text())["models"]

    assert (usual["theta1"]["guidance"], usual["cpo-s"]["guidance"]) == (3, 1)
    assert (asked["theta1"]["guidance"], asked["cpo-s"]["guidance"]) == (2, 2)
    with pytest.raises(ParamsError, match=r"guidance, which is 1, off, for cpo-s; add"):
        paint.run(profile, wish(models=["theta1", "cpo-s"], guidance=None, suppress=["light"]))


def test_two_bases_are_rows_with_names_of_their_own(trained, wish, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained.model.source, other)
    file = other / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = safetensors.torch.load_file(file)
    for tensor in weights.values():
        tensor.mul_(1.5)
    safetensors.torch.save_file(weights, file)

    paint.run(trained, wish(models=[f"before={other}", "after=base", f"same={other}"]))

    out = wish().out
    before, after, same = (picture(out / name) for name in ("before", "after", "same"))
    assert (before == same).all()
    assert (before != after).any()
    told = json.loads((out / "paint.json").read_text())["models"]
    hashes = [told[name]["base_hash"] for name in ("before", "after", "same")]
    assert hashes[0] == hashes[2] != hashes[1]
    assert told["before"]["base"] == "other at None"
    with pytest.raises(ParamsError, match="another row is called 'a'; name it apart"):
        paint.run(trained, wish(models=["a=base", "a=theta1"]))


MISTYPED = [
    ({"promote": ["lihgt"]}, r"'lihgt' is no criterion or branch .* its roots are light"),
    ({"suppress": ["light"], "guidance": 1.0}, r"guidance, which is 1, off"),
    ({"models": ["theta2"]}, r"'theta2' is unknown; it should be one of base, theta1, cpo"),
    ({"prompts": ["sea " * 40]}, r"tokens with its criteria, this model reads 16"),
]


def test_a_model_that_was_not_trained_is_refused_before_anything_is_loaded(
    trained, wish, monkeypatch
):
    monkeypatch.setattr(loading, "load", None)

    with pytest.raises(ArtifactError) as refused:
        paint.run(trained, wish(models=["base", "cpo"]))

    assert str(refused.value) == (
        "cpo was not trained yet: artifacts/cpo/cpo/pytorch_lora_weights.safetensors is "
        "absent; run `dvc repro cpo`, or take `--model base` or `--model theta1` or "
        "`--model cpo-s`"
    )


def test_what_was_mistyped_is_named(trained, wish):
    for changes, said in MISTYPED:
        with pytest.raises(ParamsError, match=said):
            paint.run(trained, wish(**changes))


def test_a_model_that_the_registry_does_not_have_is_named(trained, wish, mlflow_tables):
    with pytest.raises(
        ArtifactError, match="models:/nothing@champion cannot be read from MLflow"
    ):
        paint.run(trained, wish(models=["models:/nothing@champion"]))


def test_a_lora_of_another_trainer_paints_as_a_file_or_a_folder(trained, wish, tmp_path):
    own = safetensors.torch.load_file(paths.SFT / adapters.FILE)
    theirs = {key.replace("transformer.", "diffusion_model.", 1): t for key, t in own.items()}
    (tmp_path / "lora").mkdir()
    file = tmp_path / "lora" / "mine.safetensors"
    safetensors.torch.save_file(theirs, file)

    paint.run(trained, wish(models=["theta1", str(file), str(file.parent)]))

    ours = picture(tmp_path / "painted" / "theta1")
    rows = [path for path in (tmp_path / "painted").iterdir() if path.is_dir()]
    assert len(rows) == 3
    assert all((picture(row) == ours).all() for row in rows)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["a.safetensors", "b.safetensors"], "holds 2 files of weights .*name one of them"),
        (["pytorch_lora_weights.bin"], "is unknown; it should be one of .*LoRA or the folder"),
    ],
)
def test_a_folder_without_one_lora_says_so(trained, wish, tmp_path, files, says):
    (tmp_path / "lora").mkdir()
    for name in files:
        (tmp_path / "lora" / name).touch()

    with pytest.raises((ArtifactError, ParamsError), match=says):
        paint.run(trained, wish(models=[str(tmp_path / "lora")]))


def test_a_pickle_is_never_read(trained, wish, tmp_path):
    (tmp_path / "mine.pt").touch()

    with pytest.raises(ArtifactError, match="is a pickle, which can run code"):
        paint.run(trained, wish(models=[str(tmp_path / "mine.pt")]))


@pytest.fixture
def dialled(trained):
    """Dials of both roots of a tree, whose weights are not zero."""
    paths.JUDGED_BY.write_text(
        CRITERIA
        + """  space:
    name: Space
    about: Space.
    branches:
      depth: {positive: deep space, negative: flat space, positive_means: "Deep.",
              negative_means: "Flat.", applies: any, sources: []}
"""
    )
    painter = loading.load(trained.model)
    for number, root in enumerate(("light", "space"), start=1):
        adapters.add(painter.network, root, trained.sft.lora, seed=10 + number)
        for key, parameter in adapters.weights(painter.network, root).items():
            if ".lora_B." in key:
                parameter.data.fill_(0.03 * number)
        adapters.save(painter, root, paths.DIALS / root)
    return trained


def test_dials_add_up_and_turn_to_both_sides(dialled, wish, tmp_path):
    def painted(name, **changes):
        paint.run(dialled, wish(out=tmp_path / name, models=["cpo-s"], **changes))
        return picture(tmp_path / name / "cpo-s")

    plain = painted("plain")
    up = painted("up", promote=["light=0.5"])
    down = painted("down", suppress=["light=0.5"])
    both = painted("both", promote=["light=0.5"], suppress=["space=1"])

    shown = [plain, up, down, both]
    assert len(np.unique(np.stack(shown).reshape(4, -1), axis=0)) == 4
    told = json.loads((tmp_path / "both" / "paint.json").read_text())["dials"]
    assert {root: one["share"] for root, one in told.items()} == {"light": 0.5, "space": -1.0}
    # By hand: the same sum of LoRAs, made by the switch itself.
    painter = loading.load(dialled.model)
    adapters.attach(painter, "own", paths.CPO / "cpo-s")
    for root in ("light", "space"):
        adapters.attach(painter, root, paths.DIALS / root)
    with adapters.use(painter.network, {"own": 1.0, "light": 0.5, "space": -1.0}):
        (expected,) = sampling.paint(
            painter, ["a sea"], [0], paint._how(paint.named("cpo-s", dialled), wish(), dialled),
            pixels=dialled.model.pixels, batch_images=1, report=lambda done, values: None,
        )  # fmt: skip
    np.testing.assert_array_equal(both, expected)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("light/key=1", "a dial is of a root of the criteria, one of light, space"),
        ("light=much", "should be a number above 0, up to 5"),
        ("light=0", "should be a number above 0"),
        ("light=nan", "should be a number above 0"),
        ("light=6", "up to 5"),
    ],
)
def test_a_dial_that_cannot_be_turned_says_why(option, said, dialled, wish):
    with pytest.raises(ParamsError, match=said):
        paint.run(dialled, wish(promote=[option]))


def test_a_dial_is_turned_once_and_has_to_be_there(dialled, trained, wish):
    with pytest.raises(ParamsError, match="the dial of light is turned twice"):
        paint.run(dialled, wish(promote=["light=1"], suppress=["light=1"]))

    (paths.DIALS / "space" / adapters.FILE).unlink()
    with pytest.raises(ParamsError, match="there is no dial for 'space' yet; `atelier dials`"):
        paint.run(dialled, wish(promote=["space=1"]))
