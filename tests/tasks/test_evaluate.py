import base64
import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from atelier import images
from atelier.config.annotation import VLMParams
from atelier.criteria import annotations, tree
from atelier.criteria.annotations import Judgement, Record
from atelier.errors import ArtifactError, ParamsError
from atelier.metrics import suite
from atelier.models import adapters, loading
from tasks import evaluate
from tasks.commands import compare, table
from tasks.evaluation import candidates, generation, results
from tasks.run import paths
from tasks.tracking import mlflow_runs, registry
from tasks.training.prompts import Prompts

DVC_YAML = Path(__file__).parents[2] / "dvc.yaml"
NAMES = ["base", "theta1", "theta1+pos", "cpo-s", "cpo"]


def pictures():
    return {
        path.relative_to(paths.EVALUATE).as_posix(): path.read_bytes()
        for path in sorted((paths.EVALUATE / "images").rglob("*.png"))
    }


def test_full_weights_are_compared_and_their_cards_say_how_to_load_them(gallery, notebook):
    painter = loading.load(gallery.model)
    for number, folder in enumerate((paths.SFT, paths.CPO / "cpo-s"), start=1):
        adapters.add(painter.network, folder.name, "full", seed=0)
        for parameter in adapters.weights(painter.network, folder.name).values():
            parameter.data *= 1 + 0.1 * number
        adapters.save(painter, folder.name, folder)

    evaluate.run(gallery, notebook)

    suites = json.loads(paths.SUITES.read_text())
    assert list(suites) == NAMES
    shown = [
        pictures()[f"images/{name}/000.png"] for name in ("base", "theta1", "cpo-s", "cpo")
    ]
    assert len(set(shown)) == 4
    cards = {name: (paths.CARDS / name / "README.md").read_text() for name in ("cpo-s", "cpo")}
    assert 'from_pretrained("artifacts/cpo/cpo-s")' in cards["cpo-s"]
    assert "load_lora_weights" not in cards["cpo-s"]
    assert 'load_lora_weights("artifacts/cpo/cpo", ' in cards["cpo"]


def test_every_painter_paints_every_prompt_is_judged_and_compared(gallery, notebook, capsys):
    evaluate.run(gallery, notebook)

    metrics = json.loads(results.METRICS.read_text())
    assert list(metrics) == NAMES
    assert sorted(pictures()) == sorted(
        f"images/{n}/{i:03}.png" for n in NAMES for i in range(4)
    )
    for name in NAMES:
        assert {"negatives", "fid", "kid", "clipped"} <= metrics[name].keys()
        assert negatives_by_hand(name) == metrics[name]["negatives"]
    assert 0 < metrics["base"]["negatives"] < 1
    assert metrics["cpo"]["drift"] == 0.25
    assert "drift" not in metrics["base"]
    assert notebook.results["cpo-s/fid"] == metrics["cpo-s"]["fid"]
    assert notebook.pictures == ["grid"]
    assert not list(paths.RESUME.glob("evaluate-*"))
    said = capsys.readouterr().out
    assert "artifacts/evaluate/report.html" in said
    assert "prefect server start" in said


def negatives_by_hand(name):
    """#A_neg from the files alone: what the measured annotator said of these pictures."""
    rows = annotations.read(paths.EVALUATE / "judgements" / f"{name}.jsonl", Judgement)
    hashes = [images.sha256(path) for path in (paths.EVALUATE / "images" / name).glob("*.png")]
    said = {
        (row.image, row.criterion): row.pole for row in rows if row.annotator == "measured-1"
    }
    poles = [said.get((image, path)) for image in hashes for path in ("edges", "light")]
    return poles.count("negative") / len(hashes)


def test_painters_share_prompts_and_noise_and_differ_by_their_weights(gallery, notebook):
    evaluate.run(gallery, notebook)

    by_painter = [
        np.stack(
            [np.array(Image.open(paths.EVALUATE / f"images/{n}/{i:03}.png")) for i in range(4)]
        )
        for n in NAMES
    ]
    for one in range(len(NAMES)):
        for other in range(one):
            assert (by_painter[one] != by_painter[other]).any()


def test_the_report_is_one_harmless_file(gallery, notebook):
    evaluate.run(gallery, notebook)

    page = results.REPORT.read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert" in page
    assert "&lt;b&gt;.png" in page
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:|#)""", page)
    assert "url(" not in page
    assert "@import" not in page


def test_tables_for_dvc_name_every_painter(gallery, notebook):
    evaluate.run(gallery, notebook)

    tables = {path.stem: path for path in results.PLOTS.glob("*.csv")}
    assert {"negatives", "roots", "criteria", "distances", "change"} <= tables.keys()
    with tables["negatives"].open() as file:
        assert [row["painter"] for row in csv.DictReader(file)] == NAMES
    with tables["change"].open() as file:
        assert [row["painter"] for row in csv.DictReader(file)] == NAMES[1:]


def test_interrupted_it_keeps_what_was_painted_and_ends_the_same(
    gallery, notebook, monkeypatch
):
    evaluate.run(gallery, notebook)
    undisturbed, metrics = pictures(), results.METRICS.read_text()
    shutil.rmtree(paths.CACHE)  # where the last pictures are kept
    files = []

    with monkeypatch.context() as patch:
        patch.setattr(evaluate.atomic, "write", interrupting(evaluate.atomic.write, after=7))
        with pytest.raises(KeyboardInterrupt):
            evaluate.run(gallery, notebook)
    (work,) = paths.RESUME.glob("evaluate-*")
    kept = len(list(work.rglob("*.png")))
    with monkeypatch.context() as patch:
        patch.setattr(
            images,
            "png",
            lambda picture, png=images.png: files.append(1) or png(picture),
        )
        evaluate.run(gallery, notebook)

    assert kept == 7
    # The seventh stood in a batch that was not whole; the grid is a file too.
    assert len(files) == 5 * 4 - 6 + 1
    assert pictures() == undisturbed
    assert results.METRICS.read_text() == metrics
    assert not work.exists()


def test_a_kept_picture_that_the_disk_changed_is_painted_again(gallery, notebook):
    evaluate.run(gallery, notebook)
    before = pictures()
    kept = sorted(paths.PICTURES.rglob("cpo-s/*.png"))[1]
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)

    with pytest.warns(UserWarning, match="cpo-s/001.png is not as it was painted"):
        evaluate.run(gallery, notebook)

    assert pictures() == before


def test_one_more_metric_of_the_same_pictures_paints_nothing_again(
    gallery, notebook, monkeypatch
):
    less = gallery.evaluate.model_copy(update={"metrics": ["vendi"]})
    evaluate.run(gallery.model_copy(update={"evaluate": less}), notebook)
    before = pictures()
    assert "fid" not in json.loads(results.METRICS.read_text())["base"]
    shutil.rmtree(paths.EVALUATE)  # as dvc does before a stage runs

    with monkeypatch.context() as patch:
        patch.setattr(loading, "load", lambda params: pytest.fail("it loads the painter"))
        evaluate.run(gallery, notebook)

    assert pictures() == before
    assert {"fid", "kid", "vendi", "memorisation"} <= json.loads(results.METRICS.read_text())[
        "base"
    ].keys()


def test_a_metric_without_its_weights_is_unavailable_everywhere_and_said_at_once(
    gallery, notebook, monkeypatch, capsys
):
    asked = gallery.evaluate.model_copy(update={"metrics": ["fid", "kid", "pickscore"]})
    monkeypatch.setenv("ATELIER_WEIGHTS", "elsewhere")
    profile = gallery.model_copy(update={"evaluate": asked})
    with monkeypatch.context() as patch:
        patch.setattr(loading, "load", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluate.run(profile, notebook)
    said_before_painting = capsys.readouterr().out

    evaluate.run(profile, notebook)

    cure = "atelier weights --fetch pickscore"
    assert "PickScore is unavailable: elsewhere/pickscore/" in said_before_painting
    assert cure in said_before_painting
    assert "Unavailable: PickScore" in " ".join(capsys.readouterr().out.split())
    assert cure in notebook.said["unavailable.pickscore"]
    suite = json.loads(paths.SUITE.read_text())
    assert [name for name, entry in suite.items() if entry["available"]] == ["fid", "kid"]
    assert cure in suite["pickscore"]["unavailable"]
    assert not any(
        "pickscore" in row for row in json.loads(results.METRICS.read_text()).values()
    )
    assert "pickscore" not in " ".join(notebook.results)


@pytest.mark.slow
def test_a_registered_model_repaints_what_evaluate_painted(gallery, notebook, mlflow_tables):
    import mlflow
    import pandas as pd

    evaluate.run(gallery, notebook)
    outs = {"sft": f"artifacts/sft/{adapters.FILE}", "cpo": "artifacts/cpo"}
    stages = {name: {"cmd": "true", "outs": [out]} for name, out in outs.items()}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    for words in (["init", "--no-scm"], ["commit", "-f"]):
        subprocess.run([sys.executable, "-m", "dvc", *words, "-q"], check=True)
    registry.run()
    records = annotations.read(generation.part_examined(gallery), Record)
    examined = generation.painted_records(records, gallery.generate.prompts)
    # As evaluate asks: the caption that is too long for the encoders is cut between words.
    writer = Prompts(
        loading.load(gallery.model), tree.parse(paths.JUDGED_BY), gallery.generate.seed
    )
    rows = pd.DataFrame(
        {
            "prompt": [writer.write(record, ()) for record in examined],
            "seed": generation.seeds(gallery.generate.seed, len(examined)),
        }
    )

    for painter in ("theta1", "cpo-s"):
        found = mlflow_runs.client().search_model_versions(f"tags.painter = '{painter}'")
        (version,) = found
        model = mlflow.pyfunc.load_model(f"models:/{version.name}/{version.version}")
        repainted = [base64.b64decode(image) for image in model.predict(rows)["image"]]
        for number, content in enumerate(repainted):
            kept = Image.open(paths.EVALUATE / "images" / painter / f"{number:03}.png")
            apart = np.array(Image.open(io.BytesIO(content))).astype(int) - np.array(kept)
            assert abs(apart).max() <= 1  # where a last bit rounds a value otherwise
        assert len(repainted) == len(examined) > gallery.generate.batch_images


def interrupted(params):
    raise KeyboardInterrupt


def test_a_network_that_scores_is_in_every_table(gallery, notebook, monkeypatch):
    asked = gallery.evaluate.model_copy(update={"metrics": ["clipscore"]})
    about = suite.ALL["clipscore"]
    there = about.Entry(about, {"clip-l/x": "ab" * 32}, "float32", None)
    monkeypatch.setattr(suite, "survey", lambda *_, **__: {"clipscore": there})
    bright = lambda images, prompts: np.array([image.mean() for image in images])  # noqa: E731
    monkeypatch.setattr(suite, "load", lambda *_: bright)

    evaluate.run(gallery.model_copy(update={"evaluate": asked}), notebook)

    row = json.loads(results.METRICS.read_text())["cpo-s"]
    files = sorted((paths.EVALUATE / "images/cpo-s").glob("*.png"))
    by_hand = np.mean([np.array(Image.open(file)).mean() for file in files])
    assert row["clipscore"] == pytest.approx(by_hand)
    assert row["clipscore_low"] <= row["clipscore"] <= row["clipscore_high"]
    with (results.PLOTS / "scores.csv").open() as file:
        rows = {one["painter"]: one for one in csv.DictReader(file)}
    assert float(rows["cpo-s"]["score"]) == row["clipscore"]
    assert rows["base"]["wins"] == ""
    assert json.loads(paths.SUITE.read_text())["clipscore"]["weights"] == {
        "clip-l/x": "ab" * 32
    }


def test_a_network_that_cannot_be_read_costs_its_metric_and_not_the_run(
    gallery, notebook, monkeypatch
):
    asked = gallery.evaluate.model_copy(update={"metrics": ["clipscore"]})
    there = about.Entry(suite.ALL["clipscore"], {"clip-l/x": "ab" * 32}, "float32", None)
    monkeypatch.setattr(suite, "survey", lambda *_, **__: {"clipscore": there})

    evaluate.run(gallery.model_copy(update={"evaluate": asked}), notebook)

    entry = json.loads(paths.SUITE.read_text())["clipscore"]
    assert "holds no CLIP" in entry["unavailable"]
    assert "holds no CLIP" in notebook.said["unavailable.clipscore"]


def test_dvc_plots_columns_that_evaluate_writes_with_the_reports_numbers(gallery, notebook):
    evaluate.run(gallery, notebook)

    metrics = json.loads(results.METRICS.read_text())
    files = list(plotted())
    assert files
    for file, column in files:
        with file.open() as rows:
            assert column in csv.DictReader(rows).fieldnames
    html = results.REPORT.read_text()
    with (results.PLOTS / "negatives.csv").open() as rows:
        for row in csv.DictReader(rows):
            assert float(row["negatives"]) == metrics[row["painter"]]["negatives"]
            shown = f"{float(row['negatives']):.2f}"
            ends = f"[{float(row['low']):.2f}, {float(row['high']):.2f}]"
            assert re.search(rf"{shown}(</b>)? <span class=\"range\">{re.escape(ends)}", html)
    with (results.PLOTS / "distances.csv").open() as rows:
        for row in csv.DictReader(rows):
            if row["against"] == "test":
                assert float(row["fid"]) == metrics[row["painter"]]["fid"]
                assert f"{float(row['fid']):.2f}" in html


def plotted():
    """Files and columns that dvc.yaml draws from evaluate's tables."""
    for plot in yaml.safe_load(DVC_YAML.read_text())["plots"]:
        if isinstance(plot, dict):
            for settings in plot.values():
                for axis in ("x", "y"):
                    values = settings.get(axis)
                    for file, column in values.items() if isinstance(values, dict) else ():
                        if file.startswith(results.PLOTS.as_posix()):
                            yield Path(file), column


def interrupting(write, after):
    done = []

    def once(path, content):
        if path.suffix == ".png":
            if len(done) == after:
                raise KeyboardInterrupt
            done.append(path)
        write(path, content)

    return once


@pytest.mark.parametrize(
    ("folder", "stage"), [(paths.SFT, "sft"), (paths.CPO / "cpo-s", "cpo")]
)
def test_a_missing_adapter_names_the_stage_that_makes_it(gallery, notebook, folder, stage):
    (folder / adapters.FILE).unlink()

    with pytest.raises(
        ArtifactError, match=rf"{folder.name}.* is absent; run `dvc repro {stage}`"
    ):
        evaluate.run(gallery, notebook)


def test_recorded_judgements_cannot_judge_what_was_not_painted_yet(gallery, notebook):
    annotate = gallery.annotate.model_copy(update={"annotator": "recorded"})

    with pytest.raises(ParamsError, match="'recorded' replays"):
        evaluate.run(gallery.model_copy(update={"annotate": annotate}), notebook)


def test_the_agent_that_judged_the_paintings_judges_what_is_painted(
    gallery, notebook, vlm, model_server
):
    section = VLMParams.model_validate(vlm)
    annotate = gallery.annotate.model_copy(update={"annotator": "vlm", "vlm": section})

    evaluate.run(gallery.model_copy(update={"annotate": annotate}), notebook)

    files = (paths.EVALUATE / "judgements").glob("*.jsonl")
    said = [one for file in files for one in annotations.read(file, Judgement)]
    assert "vlm-1 toy-vl" in {one.annotator for one in said}
    assert model_server.asked()["asked"] > 0
    base = paths.EVALUATE / "judgements" / "base.jsonl"
    said = annotations.read(base, Judgement)
    hashes = {images.sha256(path) for path in (paths.EVALUATE / "images/base").glob("*.png")}
    bad = [one for one in said if one.annotator == "vlm-1 toy-vl" and one.pole == "negative"]
    metrics = json.loads(results.METRICS.read_text())
    assert metrics["base"]["negatives"] == len(bad) / 4
    assert {one.image for one in bad} <= hashes


def test_only_a_profile_that_asks_for_it_has_an_independent_judge(gallery):
    alone = gallery.evaluate.model_copy(update={"second_judge": None})

    assert evaluate._second_judge(gallery) is not None
    assert evaluate._second_judge(gallery.model_copy(update={"evaluate": alone})) is None


def test_a_prompts_noise_does_not_depend_on_how_many_prompts_there_are():
    assert generation.seeds(3, 10)[:4] == generation.seeds(3, 4)
    assert len(set(generation.seeds(3, 100))) == 100
    assert generation.seeds(3, 4) != generation.seeds(4, 4)


def test_the_told_painter_is_told_the_good_pole_of_every_active_criterion(gallery):
    from atelier.criteria import tree
    from tasks.training.prompts import Prompts

    compared = {one.name: one for one in candidates.of(gallery)}
    writer = Prompts(loading.load(gallery.model), tree.parse(paths.JUDGED_BY), seed=0)
    record = Record(
        image="0" * 64, file="x", caption="a sea", positive=["edges"], negative=["light"]
    )

    assert compared["theta1"].prompts([record], writer) == ["a sea"]
    assert compared["theta1+pos"].prompts([record], writer) == [
        "a sea, calm edges, clear light"
    ]


def test_the_table_needs_an_evaluation(workspace):
    with pytest.raises(ArtifactError, match="run `dvc repro evaluate`"):
        table.run()


def with_npo(gallery, **evaluate):
    npo = {"objective": "npo", "beta": 500, "learning_rate": 0.001, "w": 0.25,
           "beside": ["base", "cpo-s"]}  # fmt: skip
    values = gallery.model_dump()
    values["cpo"]["objectives"]["npo"] = npo
    values["evaluate"] |= {"guidance": 2.0, **evaluate}
    profile = type(gallery).model_validate(values)
    shutil.copytree(paths.CPO / "cpo", paths.CPO / "npo")
    return profile


def test_npo_stands_beside_other_painters_and_paints_nothing_alone(gallery, notebook):
    evaluate.run(with_npo(gallery), notebook)

    metrics = json.loads(results.METRICS.read_text())
    assert list(metrics) == [*NAMES, "base+npo", "cpo-s+npo"]
    painted = pictures()
    for other in ("base", "cpo-s"):
        assert painted[f"images/{other}+npo/000.png"] != painted[f"images/{other}/000.png"]


def test_the_negative_state_keeps_what_w_leaves_of_the_positive_one(gallery):
    compared = {one.name: one for one in candidates.of(with_npo(gallery))}

    assert compared["cpo-s+npo"].negative_state() == {"cpo-s": 0.75, "npo": 1.0}
    assert compared["base+npo"].negative_state() == {"npo": 1.0}
    assert compared["cpo-s"].negative_state() == "cpo-s"
    assert "cpo-s" in compared["cpo-s+npo"].about or "θ" in compared["cpo-s+npo"].about


def test_settings_are_chosen_on_validation_which_is_no_test(gallery, notebook):
    chosen = gallery.generate.model_copy(update={"part": "validation", "prompts": 1})
    (paths.SPLIT / "test.jsonl").unlink()
    validation = annotations.read(paths.SPLIT / "validation.jsonl", Record)

    examined = generation.painted_records(
        annotations.read(
            generation.part_examined(gallery.model_copy(update={"evaluate": chosen})), Record
        ),
        9,
    )

    assert examined == validation


def test_two_models_are_compared_on_the_same_captions_and_noise(
    gallery, notebook, mlflow_tables, monkeypatch, capsys
):
    def side(name, *_):
        return compare.Side(name, None, None if name == "base" else paths.CPO / name)

    monkeypatch.setattr(compare, "_side", side)
    evaluate.run(gallery, notebook)
    compare.run(gallery, "base", "cpo-s", promote=False, slack=0.05)

    said = json.loads(paths.COMPARISON.read_text())
    suites = json.loads(results.METRICS.read_text())
    for letter, name in (("A", "base"), ("B", "cpo-s")):
        assert said[letter]["negatives"]["estimate"] == suites[name]["negatives"]
        assert said[letter]["fid"]["fid"] == pytest.approx(suites[name]["fid"])
    assert said["difference"]["estimate"] == pytest.approx(
        suites["cpo-s"]["negatives"] - suites["base"]["negatives"]
    )
    mlflow = mlflow_runs.client()
    (run,) = mlflow.search_runs([mlflow_runs.experiment(mlflow, "toy")], "tags.better != ''")
    assert run.data.tags["comparison"] == "cpo-s against base"
    assert "B is " in " ".join(capsys.readouterr().out.split())
