import base64
import io
import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from pydantic import ValidationError

from atelier.config.profile import Profile, read_profile
from atelier.errors import ArtifactError
from tasks.run import paths
from tasks.tracking import connection, mlflow_runs, registry, version_pages

THETA1, THETA = "atelier-starter-theta1", "atelier-starter-theta"
SUITES = {
    "base": {"negatives": 3.4, "fid": 9.0},
    "theta1": {"negatives": 3.1, "fid": 7.0},
    "theta1+pos": {"negatives": 1.0, "fid": 4.0},
    "cpo-s": {"negatives": 1.5, "fid": 3.0},
    "cpo": {"negatives": 1.0, "fid": 12.0},  # fewest, but by wrecking the picture
}


def dvc(*words):
    from dvc.cli import main  # in this process: a new one costs seconds

    assert main([*words, "-q"]) == 0


def track_with_dvc():
    """Make the folder a DVC repository whose stages are what lies in artifacts/."""
    outs = {
        "sft": [f"artifacts/sft/{registry.LORA}"],
        "cpo": ["artifacts/cpo"],
        "report": ["artifacts/report/metrics.json"],
    }
    deps = {"report": [*outs["sft"], *outs["cpo"]]}
    stages = {
        name: {"cmd": "true", "outs": outs[name], "deps": deps.get(name, [])} for name in outs
    }
    paths.DVC_LOCK.with_name("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    dvc("init", "--no-scm")


def train(theta1="one", **thetas):
    """Leave weights behind as sft and cpo do; their bytes are what they are called."""
    for folder, content in [(paths.SFT, theta1)] + [
        (paths.CPO / name.replace("_", "-"), content) for name, content in thetas.items()
    ]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / registry.LORA).write_text(content)
    dvc("commit", "-f", "sft", "cpo")


def report(**changes):
    suites = {**SUITES, **{name.replace("_", "-"): row for name, row in changes.items()}}
    paths.REPORT.mkdir(parents=True, exist_ok=True)
    paths.SUITES.write_text(json.dumps(suites))
    dvc("commit", "-f", "report")


def versions(name):
    """Painter and number of each version, oldest first."""
    found = connection.client().search_model_versions(f"name = '{name}'")
    return sorted((int(version.version), version.tags["objective"]) for version in found)


def champion():
    return int(connection.client().get_model_version_by_alias(THETA, "champion").version)


@pytest.fixture
def trained(workspace, mlflow_folder):
    track_with_dvc()
    train(cpo="a", cpo_s="b")
    return read_profile(paths.profile("starter"))


def test_the_registry_follows_dvc_lock_there_and_back(trained, workspace, capsys):
    report()
    registry.run()

    assert versions(THETA1) == [(1, "theta1")]
    assert versions(THETA) == [(1, "cpo"), (2, "cpo-s")]
    assert champion() == 2
    assert capsys.readouterr().out.splitlines() == [
        "registry: theta1 is atelier-starter-theta1 version 1, new",
        "registry: cpo is atelier-starter-theta version 1, new",
        "registry: cpo-s is atelier-starter-theta version 2, new",
        "registry: champion of atelier-starter-theta is version 2 (cpo-s)",
    ]
    before = paths.DVC_LOCK.read_text()

    registry.run()  # as after a cached skip: nothing new
    assert len(versions(THETA)) == 2

    train(cpo="a", cpo_s="c")
    registry.run()  # trained anew, not evaluated yet: the old numbers are not its own
    assert versions(THETA)[2:] == [(3, "cpo-s")]
    assert "headline" not in connection.client().get_model_version(THETA, "3").tags

    report(cpo_s={"negatives": 1.2, "fid": 3.5})
    registry.run()
    assert champion() == 3

    paths.DVC_LOCK.write_text(before)  # as `git checkout` does
    dvc("checkout")
    registry.run()
    assert len(versions(THETA)) == 3
    assert champion() == 3  # the one of before has no fewer negatives
    assert capsys.readouterr().out.splitlines()[-1] == (
        "registry: champion of atelier-starter-theta stays version 3: version 2 (cpo-s) has no "
        "fewer negatives on the same captions"
    )


def test_a_model_measured_on_other_captions_is_not_crowned_by_its_numbers(trained, capsys):
    report()
    registry.run()
    assert champion() == 2
    assert registry.challenger("starter") is None

    train(cpo_s="c")
    report(cpo_s={"negatives": 0.1, "fid": 3.5})
    paths.PLOTS.mkdir()
    (paths.PLOTS / "prompts.csv").write_text("prompt,caption\n0,an easy one\n")
    registry.run()

    assert champion() == 2
    assert "`atelier compare champion theta/3 --crown` compares them" in capsys.readouterr().out
    assert registry.challenger("starter") == f"models:/{THETA}/3"


@pytest.mark.parametrize("how", ["ATELIER_EXPERIMENT", "DVC_EXP_NAME"])
def test_an_experiment_is_registered_as_such_and_moves_no_alias(trained, monkeypatch, how):
    report()
    registry.run()
    before = connection.client().get_model_version(THETA, "1").tags["headline"]

    with monkeypatch.context() as trial:
        trial.setenv(how, "omega-2")
        train(cpo="a", cpo_s="c")
        report(cpo={"negatives": 9.0, "fid": 3.5}, cpo_s={"negatives": 0.1, "fid": 3.5})
        registry.run()

    mlflow = connection.client()
    assert champion() == 2
    tried = mlflow.get_model_version(THETA, "3")
    assert tried.tags["experiment"] == "omega-2"
    assert tried.tags["headline"].startswith("#A_neg 0.10")
    kept = mlflow.get_model_version(THETA, "1").tags
    assert "experiment" not in kept
    assert kept["headline"] == before  # what a trial painted is not what this one painted

    registry.run()  # taken over, as by `dvc exp apply`
    assert "experiment" not in mlflow.get_model_version(THETA, "3").tags
    assert champion() == 3


def test_lineage_can_be_walked_both_ways(trained):
    registry.run()

    mlflow = connection.client()
    theta = mlflow.get_model_version(THETA, "2")
    assert theta.tags[version_pages.PARENT] == f"{THETA1}/1"
    model = mlflow.get_logged_model(theta.source.removeprefix("models:/"))
    assert model.tags["base"] == "base/starter"
    children = mlflow.search_model_versions(f"tags.`{version_pages.PARENT}` = '{THETA1}/1'")
    assert sorted(int(one.version) for one in children) == [1, 2]
    assert version_pages.PARENT not in mlflow.get_model_version(THETA1, "1").tags


def test_headlines_are_on_the_version_and_the_suite_on_the_model(trained):
    report()
    registry.run()
    registry.run()

    mlflow = connection.client()
    version = mlflow.get_model_version(THETA, "2")
    shown = {tag: v for tag, v in version.tags.items() if not tag.startswith("mlflow.")}
    assert shown == {
        "objective": "cpo-s",
        "headline": "#A_neg 1.50, FID 3.00",
        "verdict": "fewer negatives than the base, FID no worse",
    }
    model = mlflow.get_logged_model(version.source.removeprefix("models:/"))
    assert {m.key: m.value for m in model.metrics} == SUITES["cpo-s"]
    assert model.params["omega"] == "4.0"
    assert len(mlflow.get_metric_history(version.run_id, "fid")) == 1


def test_without_a_theta_that_keeps_the_pictures_there_is_no_champion(trained, capsys):
    report()
    registry.run()
    report(cpo_s={"negatives": 0.5, "fid": 9.5})
    registry.run()

    assert "there is no champion" in capsys.readouterr().out
    assert "champion" not in connection.client().get_registered_model(THETA).aliases


def test_weights_that_are_nowhere_are_said_with_what_brings_them(trained, capsys):
    shutil.rmtree(".dvc/cache")
    shutil.rmtree(paths.SFT)
    shutil.rmtree(paths.CPO)

    registry.run()

    said = capsys.readouterr().out
    assert said.startswith("registry: the registry is as it was: dvc.lock names weights that")
    assert "`dvc pull` fetches them" in said


def test_results_of_other_weights_than_dvc_lock_has_are_put_on_no_version(trained, capsys):
    (paths.CPO / "cpo-s" / registry.LORA).write_text("trained by hand")
    paths.REPORT.mkdir(parents=True)
    paths.SUITES.write_text(json.dumps(SUITES))

    registry.run(evaluating=True)

    assert "cpo-s/pytorch_lora_weights.safetensors is not what dvc.lock has" in (
        capsys.readouterr().out
    )
    assert "headline" not in connection.client().get_model_version(THETA, "2").tags
    assert "champion" not in connection.client().get_registered_model(THETA).aliases


def choose(guard):
    file = paths.profile("starter")
    values = yaml.safe_load(file.read_text())
    values["report"]["champion"] = guard
    file.write_text(yaml.safe_dump(values))


def measured_without_fid():
    row = {"kid": 0.01, "pickscore": 20.0}
    report(
        base={"negatives": 3.4, **row},
        cpo={"negatives": 1.0, "kid": 0.02, "pickscore": 20.5},
        cpo_s={"negatives": 1.5, "kid": 0.005, "pickscore": 19.0},
    )
    why = "weights/inception is absent; run `atelier weights --fetch inception`"
    entry = {"label": "FID", "available": False, "unavailable": why}
    paths.SUITE.write_text(json.dumps({"fid": entry}))


def test_no_champion_where_fid_was_not_measured_says_so_and_how_it_would_be(trained, capsys):
    measured_without_fid()

    registry.run()

    assert capsys.readouterr().out.splitlines()[-1] == (
        "registry: there is no champion, because FID was not measured, in which a θ is "
        "compared with the base: weights/inception is absent; run `atelier weights --fetch "
        "inception`, or let report.champion be kid or pickscore"
    )
    assert "champion" not in connection.client().get_registered_model(THETA).aliases


@pytest.mark.parametrize(
    ("guard", "best"),
    [("kid", 2), ("pickscore", 1)],  # lower is better of a distance, higher of a judge
)
def test_another_guard_of_champions_is_a_setting(trained, guard, best):
    measured_without_fid()
    choose(guard)

    registry.run()

    assert champion() == best


def test_a_guard_that_was_not_asked_for_is_named_where_it_is_set(trained, capsys):
    measured_without_fid()
    choose("imagereward")

    registry.run()

    assert "name imagereward in evaluate.metrics" in capsys.readouterr().out


def test_the_stage_itself_registers_before_dvc_knows_its_results(trained):
    paths.REPORT.mkdir(parents=True)
    paths.SUITES.write_text(json.dumps(SUITES))

    registry.run()
    assert "champion" not in connection.client().get_registered_model(THETA).aliases
    registry.run(evaluating=True)
    assert champion() == 2


def test_a_version_comes_from_the_run_that_wrote_its_bytes(workspace, mlflow_folder):
    track_with_dvc()
    with mlflow_runs.stage("sft", read_profile(paths.profile("starter"))):
        train(cpo="a")
    registry.run()

    mlflow = connection.client()
    source = mlflow.get_run(mlflow.get_model_version(THETA1, "1").run_id)
    assert source.data.tags["stage"] == "sft"


def test_versions_of_one_stage_are_compared_by_their_own_runs(workspace, mlflow_folder):
    profile = read_profile(paths.profile("starter"))
    track_with_dvc()
    with mlflow_runs.stage("cpo", profile) as tracked:
        for name, omega in (("cpo", None), ("cpo-s", 4.0)):
            with tracked.part(name, {"omega": omega}, paths.CPO / name) as own:
                train(**{name.replace("-", "_"): name})
                own.metrics({"drift": 0.25 if omega is None else 0.5})
    report()

    registry.run()

    client = connection.client()
    found = {
        version.tags["objective"]: client.get_run(version.run_id)
        for version in client.search_model_versions(f"name = '{THETA}'")
    }
    assert found["cpo"].info.run_id != found["cpo-s"].info.run_id
    for name, run in found.items():
        assert run.data.tags["objective"] == name
        assert run.data.metrics.items() >= SUITES[name].items()
    assert found["cpo-s"].data.params["omega"] == "4.0"
    assert found["cpo"].data.metrics["drift"] == 0.25


def test_before_the_first_training_there_is_nothing_to_do(workspace, capsys):
    registry.run()

    assert capsys.readouterr().out == "registry: dvc.lock has no trained model yet\n"


def test_mlflow_away_is_said_and_is_no_error(trained, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")

    registry.run()

    assert capsys.readouterr().out.startswith("registry: the registry is as it was: ")


def test_models_cannot_be_listed_while_mlflow_is_away(trained, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")

    assert registry.address("theta/1", "starter") is None
    with pytest.raises(ArtifactError, match=r"MLflow at .*127\.0\.0\.1:9 does not answer"):
        registry.listed("starter")


@pytest.mark.parametrize("call", ["create_logged_model", "create_model_version", "create_run"])
def test_what_was_made_although_nobody_heard_of_it_is_there_once(trained, monkeypatch, call):
    do, calls = getattr(mlflow.MlflowClient, call), []

    def lost_at_first_and_twice_later(*words, **named):
        calls.append(words)
        do(*words, **named)
        if len(calls) == 1:
            raise ConnectionError("the answer was lost")
        return do(*words, **named)  # as MLflow's own client asks again

    with monkeypatch.context() as broken:
        broken.setattr(mlflow.MlflowClient, call, lost_at_first_and_twice_later)
        registry.run()
        registry.run()
    registry.run()

    assert len(calls) == 3
    client = connection.client()
    at = [connection.experiment(client, "starter")]
    assert sorted(one.name for one in client.search_logged_models(at)) == [
        "cpo",
        "cpo-s",
        "theta1",
    ]
    assert len(client.search_runs(at)) == 3
    assert [painter for _, painter in versions(THETA1)] == ["theta1"]
    assert sorted(painter for _, painter in versions(THETA)) == ["cpo", "cpo-s"]


@pytest.mark.parametrize("learns", ["lora", "full"])
def test_a_registered_model_paints_what_its_weights_paint(
    studio, notebook, mlflow_tables, learns
):
    import mlflow

    from atelier.models import adapters, loading, sampling
    from atelier.reporting import silent
    from tasks import cpo, sft

    sft.run(studio, notebook)
    if learns == "full":
        section = studio.cpo.model_copy(update={"lora": "full"})
        studio = studio.model_copy(update={"cpo": section})
    cpo.run(studio, notebook)
    track_with_dvc()
    dvc("commit", "-f", "sft", "cpo")
    prompts, seeds = ["a sea number 1", "a sea number 2", "a sea"], [5, 6, 7]
    painter = loading.load(studio.model)
    adapters.attach(painter, "theta", paths.CPO / "cpo-s")
    with adapters.use(painter.network, "theta"):
        expected = list(
            sampling.paint(
                painter,
                prompts,
                seeds,
                sampling.Sampling(studio.generate.steps, studio.generate.guidance),
                pixels=studio.model.pixels,
                batch_images=studio.generate.batch_images,
                report=silent,
            )
        )

    if learns == "full":  # as if guidance had been inside the targets: it is painted without
        values = yaml.safe_load((paths.PARAMS / "toy.yaml").read_text())
        values["cpo"]["objectives"]["cpo-s"]["teacher_guidance"] = 2.0
        values["generate"]["guidance"] = 3.0
        (paths.PARAMS / "toy.yaml").write_text(yaml.safe_dump(values))
    registry.run()
    (number,) = [n for n, painter in versions("atelier-toy-theta") if painter == "cpo-s"]
    version = connection.client().get_model_version("atelier-toy-theta", number)
    *_, guided = registry.fetch(f"models:/atelier-toy-theta/{number}")
    assert guided == (learns == "lora") == ("sampled_without_guidance" not in version.tags)
    model = mlflow.pyfunc.load_model(f"models:/atelier-toy-theta/{number}")
    rows = model.predict(pd.DataFrame({"prompt": prompts, "seed": seeds}))

    for image, picture in zip(rows["image"], expected, strict=True):
        painted = np.array(Image.open(io.BytesIO(base64.b64decode(image)))).astype(int)
        assert abs(painted - picture).max() <= 1  # where a last bit rounds a value otherwise

    if learns == "lora":  # the same of a version of earlier days
        address = as_registered_before_newer_settings("atelier-toy-theta", number)
        with pytest.raises(ValidationError, match="text_chunks"):
            mlflow.pyfunc.load_model(address)
        registry.run()
        again = mlflow.pyfunc.load_model(address)
        assert again.predict(pd.DataFrame({"prompt": prompts, "seed": seeds})).equals(rows)


def as_registered_before_newer_settings(name, number):
    """Let a version be as code of earlier days left it; return its address."""
    client = connection.client()
    folder = Path(rewritten(name, without_newer_settings, number))
    code = folder / "pyfunc_model.py"
    strict = code.read_text().replace(
        'recorded_model(config["model"], "this model")',
        'ModelParams.model_validate(config["model"])',
    )
    assert strict != code.read_text()
    code.write_text(strict)
    shutil.rmtree(folder / "code")  # then, the library came from the clone
    client.delete_model_version_tag(name, str(number), version_pages.CODE)
    return f"models:/{name}/{number}"


def test_a_version_holds_its_model_card_and_says_what_was_not_measured(trained):
    (paths.CARDS / "cpo-s").mkdir(parents=True)
    (paths.CARDS / "cpo-s/README.md").write_text("# a card")
    suite = {
        "fid": {"label": "FID", "available": True},
        "pickscore": {"label": "PickScore", "available": False},
    }
    paths.SUITE.write_text(json.dumps(suite))
    report()

    registry.run()

    client = connection.client()
    found = {
        version.tags["objective"]: version
        for version in client.search_model_versions(f"name = '{THETA}'")
    }
    said = found["cpo-s"].description
    assert "not measured: pickscore: `atelier weights --fetch`" in said
    folder = mlflow.artifacts.download_artifacts(
        found["cpo-s"].source, tracking_uri=connection.tracking_uri()
    )
    assert (Path(folder) / "README.md").read_text() == "# a card"
    assert said.endswith("# a card\n")


def card_of(name, number):
    """The card that a version carries, and its description; None where it has no card."""
    version = connection.client().get_model_version(name, str(number))
    folder = mlflow.artifacts.download_artifacts(
        version.source, tracking_uri=connection.tracking_uri()
    )
    file = Path(folder) / "README.md"
    return file.read_text() if file.is_file() else None, version.description


def test_a_card_that_comes_later_or_changes_is_put_beside_the_weights(trained):
    report()
    registry.run()
    assert card_of(THETA, 2) == (None, "**cpo-s: #A_neg 1.50, FID 3.00**")

    (paths.CARDS / "cpo-s").mkdir(parents=True)
    for text in ("# a card", "# a better card"):
        (paths.CARDS / "cpo-s/README.md").write_text(text)
        registry.run()
        said, description = card_of(THETA, 2)
        assert said == text
        assert description == f"**cpo-s: #A_neg 1.50, FID 3.00**\n\n{text}\n"


def rewritten(name, change, number=1):
    """Change what a version's MLmodel says of its base, as if written by other code."""
    version = connection.client().get_model_version(name, str(number))
    folder = mlflow.artifacts.download_artifacts(  # of a local store: the store's own folder
        version.source, tracking_uri=connection.tracking_uri()
    )
    file = Path(folder) / "MLmodel"
    content = yaml.safe_load(file.read_text())
    change(content["flavors"]["python_function"])
    file.write_text(yaml.safe_dump(content))
    return folder


def without_newer_settings(python):
    for name in ("quantise", "text_chunks", "buckets", "true_sizes"):
        del python["config"]["model"][name]


def test_versions_of_other_code_are_read_as_they_were_made_or_refused_with_a_cure(trained):
    registry.run()

    rewritten(THETA1, without_newer_settings)
    base, lora, _ = registry.fetch(f"models:/{THETA1}/1")
    assert base == trained.model
    assert (lora / registry.LORA).read_text() == "one"
    rewritten(THETA1, lambda python: python["config"]["model"].update(tomorrow=1))
    address = f"models:/{THETA1}/1"
    with pytest.raises(ArtifactError, match=rf"{address} was registered with .*\n  tomorrow: "):
        registry.fetch(address)
    rewritten(THETA, lambda python: python.pop("artifacts"))
    address = f"models:/{THETA}/1"
    with pytest.raises(ArtifactError, match=f"{address} is no model that `atelier reg"):
        registry.fetch(address)


@pytest.mark.parametrize("name", ["starter", "starter-sdxl"])
def test_shipped_bases_name_their_licence_and_retrain_nothing_by_it(name, monkeypatch):
    from dvc.repo import Repo

    monkeypatch.chdir(Path(__file__).parents[3])
    profile = read_profile(paths.profile(name))

    assert registry._base(profile)["licence"].endswith("no third-party data")
    with Repo() as repo:
        assert repo.dvcignore.is_ignored_file(str(Path(profile.model.source, "README.md")))


def test_a_base_on_the_hub_has_its_publishers_licence(profile):
    profile["model"] |= {"source": "black-forest-labs/FLUX.1-schnell", "revision": "abc"}

    tags = registry._base(Profile.model_validate(profile))

    assert tags == {"base": "black-forest-labs/FLUX.1-schnell@abc", "licence": "Apache-2.0"}


def test_versions_of_earlier_days_keep_their_place_and_lose_their_many_tags(trained):
    report()
    registry.run()
    mlflow = connection.client()
    for version in mlflow.search_model_versions(f"name = '{THETA}'"):
        at = (version.name, version.version)
        for former, now in version_pages._FORMER.items():
            if now in version.tags:
                mlflow.set_model_version_tag(*at, former, version.tags[now])
                mlflow.delete_model_version_tag(*at, now)
        for tag in ("negatives", "git.dirty", "licence", "evaluation.md5"):
            mlflow.set_model_version_tag(*at, tag, "1")

    registry.run()

    assert versions(THETA) == [(1, "cpo"), (2, "cpo-s")]
    tags = mlflow.get_model_version(THETA, "2").tags
    assert {tag for tag in tags if not tag.startswith("mlflow.")} == {
        "objective", "headline", "verdict",
    }  # fmt: skip


def test_a_long_card_is_cut_for_the_page_and_whole_among_the_artifacts(trained):
    (paths.CARDS / "cpo-s").mkdir(parents=True)
    card = "---\nlicense: mit\n---\n# A card\n" + "a line of it\n" * 1000
    (paths.CARDS / "cpo-s/README.md").write_text(card)
    report()
    registry.run()

    said, description = card_of(THETA, 2)
    assert said == card
    assert len(description) <= 5000
    assert "license: mit" not in description
    assert description.endswith("The whole card is `README.md` among the artifacts.\n")


def test_the_run_of_the_champion_is_marked_and_no_other(workspace, mlflow_folder, monkeypatch):
    profile = read_profile(paths.profile("starter"))
    track_with_dvc()
    for night, content in (("prefect/one", "b"), ("prefect/two", "c")):
        monkeypatch.setenv("ATELIER_PIPELINE", night)
        with (
            mlflow_runs.stage("cpo", profile) as tracked,
            tracked.part("cpo-s", {}, paths.CPO / "cpo-s"),
        ):
            train(cpo_s=content)
        report(cpo_s={"negatives": 1.5 if content == "b" else 1.2, "fid": 3.0})
        registry.run()

    client = connection.client()
    at = connection.experiment(client, "starter")
    marked = client.search_runs([at], "tags.champion != ''")
    assert [
        (one.data.tags["atelier.pipeline"], one.data.tags["champion"]) for one in marked
    ] == [("prefect/two", "cpo-s v2")]


def test_the_certificate_of_the_judge_is_a_tag_that_follows_it(trained):
    report()
    registry.run()
    assert "certificate" not in connection.client().get_model_version(THETA, "2").tags

    for said, tags in (
        ({"version": None, "failing": {}}, {"certificate": "none"}),
        (
            {"version": "abc", "annotator": "a", "failing": {"light": ["looks"]}},
            {"certificate": "abc", "certificate.failing": "light"},
        ),
    ):
        paths.CERTIFIED.write_text(json.dumps(said))
        registry.run()
        found = connection.client().get_model_version(THETA, "2").tags
        assert tags.items() <= found.items()
