import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from atelier import images
from atelier.certificates import certificate
from atelier.certificates.certificate import Certificate
from atelier.criteria import tree
from atelier.errors import ArtifactError
from atelier.metrics import about, suite
from atelier.models import adapters, loading
from tasks import evaluate, report
from tasks.commands import compare, table
from tasks.evaluation import evaluated, pictures
from tasks.reporting import studies
from tasks.run import paths
from tasks.tracking import connection, registry
from tests.conftest import Notebook

DVC_YAML = Path(__file__).parents[2] / "dvc.yaml"
NAMES = ["base", "theta1", "theta1+pos", "cpo-s", "cpo"]


def metrics():
    return json.loads(paths.SUITES.read_text())


def test_every_candidate_is_judged_measured_and_compared(gallery, reported, notebook, capsys):
    reported(gallery)

    assert list(metrics()) == NAMES
    for name, row in metrics().items():
        assert {"negatives", "fid", "kid", "clipped"} <= row.keys()
        assert negatives_by_hand(name) == row["negatives"]
    assert 0 < metrics()["base"]["negatives"] < 1
    assert metrics()["cpo"]["drift"] == 0.25
    assert "drift" not in metrics()["base"]
    assert notebook.results["cpo-s/fid"] == metrics()["cpo-s"]["fid"]
    assert notebook.pictures == ["grid"]
    said = capsys.readouterr().out
    assert "artifacts/report/report.html" in said
    assert "atelier up" in said


def negatives_by_hand(name):
    """#A_neg from the files alone: what the measured annotator said of these pictures."""
    hashes = [images.sha256(path) for path in pictures.files(name)]
    said = {
        (row.image, row.criterion): row.pole
        for row in evaluated.judgements(name)
        if row.annotator == "measured-1"
    }
    poles = [said.get((image, path)) for image in hashes for path in ("edges", "light")]
    return poles.count("negative") / len(hashes)


def test_full_weights_are_compared_and_their_cards_say_how_to_load_them(gallery, reported):
    painter = loading.load(gallery.model)
    for number, folder in enumerate((paths.SFT, paths.CPO / "cpo-s"), start=1):
        adapters.add(painter.network, folder.name, "full", seed=0)
        for parameter in adapters.weights(painter.network, folder.name).values():
            parameter.data *= 1 + 0.1 * number
        adapters.save(painter, folder.name, folder)

    reported(gallery)

    assert list(metrics()) == NAMES
    shown = [pictures.files(name)[0].read_bytes() for name in NAMES if "+" not in name]
    assert len(set(shown)) == 4
    cards = {name: (paths.CARDS / name / "README.md").read_text() for name in ("cpo-s", "cpo")}
    assert 'from_pretrained("artifacts/cpo/cpo-s")' in cards["cpo-s"]
    assert "load_lora_weights" not in cards["cpo-s"]
    assert 'load_lora_weights("artifacts/cpo/cpo", ' in cards["cpo"]


def test_the_report_is_one_harmless_file(gallery, reported):
    reported(gallery)

    page = paths.PAGE.read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert" in page
    assert "&lt;b&gt;.png" in page
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:|#)""", page)
    assert "url(" not in page
    assert "@import" not in page


def test_the_report_alone_loads_no_network_and_no_torch(gallery, reported):
    values = gallery.model_dump(mode="json")
    paths.profile("toy").write_text(yaml.safe_dump(values, sort_keys=False))
    reported(gallery)
    before = {path: path.read_bytes() for path in paths.REPORT.rglob("*.*")}
    code = """
import sys
from atelier.config.profile import read_in_force
from tasks import report
from tasks.run import paths
from tasks.tracking import registry
from tests.conftest import Notebook

registry.run = lambda **_: None
report.run(read_in_force(paths.PARAMS), Notebook())
print([name for name in ("torch", "diffusers", "cleanfid", "peft") if name in sys.modules])
"""

    said = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(DVC_YAML.parent)},
    )

    assert said.returncode == 0, said.stderr[-2000:]
    assert said.stdout.splitlines()[-1] == "[]"
    assert {path: path.read_bytes() for path in paths.REPORT.rglob("*.*")} == before


def elsewhere(profile, **model):
    """The profile with its base in a folder of this machine that diffusers alone can load."""
    base = Path(profile.model.source)
    index = json.loads((base / "model_index.json").read_text())
    index["vae"] = ["diffusers", "AutoencoderKL"]
    (base / "model_index.json").write_text(json.dumps(index))
    source = {"source": str(base.absolute()), **model}
    return profile.model_copy(update={"model": profile.model.model_copy(update=source)})


@pytest.mark.parametrize("published", [None, "black-forest-labs/FLUX.1-dev"])
def test_no_place_on_a_machine_is_in_a_card_or_a_report(
    gallery, reported, monkeypatch, tmp_path, published
):
    asked = gallery.evaluate.model_copy(update={"metrics": ["pickscore"]})
    reported(gallery)  # what was judged of these pictures is kept
    profile = elsewhere(gallery, published=published)
    monkeypatch.setenv("ATELIER_WEIGHTS", str(tmp_path / "weights"))
    profile = profile.model_copy(update={"evaluate": asked})
    monkeypatch.setattr(loading, "load", None)
    evaluate.run(profile, Notebook())
    report.run(profile, Notebook())

    card = (paths.CARDS / "cpo-s/README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head.get("base_model") == published
    assert "of atelier's own classes" not in card
    named = published or "starter"
    assert f'DiffusionPipeline.from_pretrained("{named}")' in card
    written = [
        path for path in paths.REPORT.rglob("*") if path.suffix in {".md", ".html", ".json"}
    ]
    assert len(written) > 3
    for path in written:
        assert str(tmp_path) not in path.read_text(), path
    assert registry._base(profile)["base"] == named
    assert "$ATELIER_WEIGHTS/pickscore" in paths.SUITE.read_text()


def test_a_base_with_a_class_of_ours_says_that_atelier_loads_it(gallery, reported):
    reported(gallery)

    card = (paths.CARDS / "cpo-s/README.md").read_text()
    assert "of atelier's own classes" in card
    assert "base_model" not in yaml.safe_load(card.split("---")[1])


def test_tables_for_dvc_name_every_candidate(gallery, reported):
    reported(gallery)

    tables = {path.stem: path for path in paths.PLOTS.glob("*.csv")}
    assert {"negatives", "roots", "criteria", "distances", "change"} <= tables.keys()
    with tables["negatives"].open() as file:
        assert [row["painter"] for row in csv.DictReader(file)] == NAMES
    with tables["change"].open() as file:
        assert [row["painter"] for row in csv.DictReader(file)] == NAMES[1:]


def test_a_metric_without_its_weights_is_unavailable_everywhere(
    gallery, reported, notebook, monkeypatch, capsys
):
    asked = gallery.evaluate.model_copy(update={"metrics": ["fid", "kid", "pickscore"]})
    monkeypatch.setenv("ATELIER_WEIGHTS", "elsewhere")

    reported(gallery.model_copy(update={"evaluate": asked}))

    cure = "atelier weights --fetch pickscore"
    assert "Unavailable: PickScore" in " ".join(capsys.readouterr().out.split())
    assert cure in notebook.said["unavailable.pickscore"]
    suite = json.loads(paths.SUITE.read_text())
    assert [name for name, entry in suite.items() if entry["available"]] == ["fid", "kid"]
    assert cure in suite["pickscore"]["unavailable"]
    assert not any("pickscore" in row for row in metrics().values())
    assert "pickscore" not in " ".join(notebook.results)


def test_a_network_that_scores_is_in_every_table(gallery, reported, monkeypatch):
    asked = gallery.evaluate.model_copy(update={"metrics": ["clipscore"]})
    there = about.Entry(suite.ALL["clipscore"], {"clip-l/x": "ab" * 32}, "float32", None)
    monkeypatch.setattr(suite, "survey", lambda *_, **__: {"clipscore": there})
    bright = lambda images, prompts: np.array([image.mean() for image in images])  # noqa: E731
    monkeypatch.setattr(suite, "load", lambda *_: bright)

    reported(gallery.model_copy(update={"evaluate": asked}))

    row = metrics()["cpo-s"]
    by_hand = np.mean([np.array(Image.open(file)).mean() for file in pictures.files("cpo-s")])
    assert row["clipscore"] == pytest.approx(by_hand)
    assert row["clipscore_low"] <= row["clipscore"] <= row["clipscore_high"]
    with (paths.PLOTS / "scores.csv").open() as file:
        rows = {one["painter"]: one for one in csv.DictReader(file)}
    assert float(rows["cpo-s"]["score"]) == row["clipscore"]
    assert rows["base"]["wins"] == ""
    assert json.loads(paths.SUITE.read_text())["clipscore"]["weights"] == {
        "clip-l/x": "ab" * 32
    }


def test_dvc_plots_columns_that_the_stage_writes_with_the_reports_numbers(gallery, reported):
    reported(gallery)

    files = list(plotted())
    assert files
    for file, column in files:
        with file.open() as rows:
            assert column in csv.DictReader(rows).fieldnames
    html = paths.PAGE.read_text()
    with (paths.PLOTS / "negatives.csv").open() as rows:
        for row in csv.DictReader(rows):
            assert float(row["negatives"]) == metrics()[row["painter"]]["negatives"]
            shown = f"{float(row['negatives']):.2f}"
            ends = f"[{float(row['low']):.2f}, {float(row['high']):.2f}]"
            assert re.search(rf"{shown}(</b>)? <span class=\"range\">{re.escape(ends)}", html)
    with (paths.PLOTS / "distances.csv").open() as rows:
        for row in csv.DictReader(rows):
            if row["against"] == "test":
                assert float(row["fid"]) == metrics()[row["painter"]]["fid"]
                assert f"{float(row['fid']):.2f}" in html


def plotted():
    """Files and columns that dvc.yaml draws from the report's tables."""
    for plot in yaml.safe_load(DVC_YAML.read_text())["plots"]:
        if isinstance(plot, dict):
            for settings in plot.values():
                for axis in ("x", "y"):
                    values = settings.get(axis)
                    for file, column in values.items() if isinstance(values, dict) else ():
                        if file.startswith(paths.PLOTS.as_posix()):
                            yield Path(file), column


def test_a_report_needs_what_was_evaluated(gallery, notebook):
    with pytest.raises(ArtifactError, match="run `dvc repro evaluate`"):
        report.run(gallery, notebook)


def test_the_table_needs_a_report(workspace):
    with pytest.raises(ArtifactError, match="run `dvc repro report`"):
        table.run()


def test_only_studies_of_these_very_pictures_are_shown(workspace):
    study = paths.SURVEY / "spring"
    study.mkdir(parents=True)
    results = study / studies.RESULTS
    results.write_text(json.dumps({"pictures": ["a", "b"]}))
    with pytest.raises(ArtifactError, match=r"section.html is absent.*survey analyze spring"):
        studies.sections({"a", "b", "c"})

    (study / studies.SECTION).write_text("<section>What people said</section>")

    assert studies.sections({"a", "b", "c"}) == ["<section>What people said</section>"]
    assert studies.sections({"a", "c"}) == []
    results.write_text("{")
    with pytest.raises(ArtifactError, match=r"results.json is absent, damaged, or .* spring"):
        studies.sections({"a", "b", "c"})


def test_two_models_are_compared_on_the_same_captions_and_noise(
    gallery, reported, mlflow_tables, monkeypatch, capsys
):
    def side(name, *_):
        return compare.Side(name, None, None if name == "base" else paths.CPO / name)

    monkeypatch.setattr(compare, "_side", side)
    reported(gallery)
    compare.run(gallery, "base", "cpo-s", promote=False, slack=0.05)

    said = json.loads(paths.COMPARISON.read_text())
    for letter, name in (("A", "base"), ("B", "cpo-s")):
        assert said[letter]["negatives"]["estimate"] == metrics()[name]["negatives"]
        assert said[letter]["fid"]["fid"] == pytest.approx(metrics()[name]["fid"])
    assert said["difference"]["estimate"] == pytest.approx(
        metrics()["cpo-s"]["negatives"] - metrics()["base"]["negatives"]
    )
    mlflow = connection.client()
    (run,) = mlflow.search_runs([connection.experiment(mlflow, "toy")], "tags.better != ''")
    assert run.data.tags["comparison"] == "cpo-s against base"
    assert "B is " in " ".join(capsys.readouterr().out.split())


def certificate_of(reference):
    """A certificate of the gallery's annotator: light can be corrected, and fails a control."""

    def part(share, low, high):
        return {"estimate": share, "low": low, "high": high, "count": 60}

    found = part(0.9, 0.8, 0.96)
    against = {
        "both": 60, "agree": found, "kappa": found, "sensitivity": found, "specificity": found,
        "missed": None, "alone": 0,
    }  # fmt: skip
    light = {
        "spoke": found, "overconfidence": None, "compared": {}, "against": {reference: against},
        "controls": {"mirrored": {"kept": found, "opposed": 0.5, "verdict": "fails"}},
    }  # fmt: skip
    return Certificate.model_validate(
        {
            "format": 1, "annotator": "measured-1",
            "criteria": tree.parse(paths.JUDGED_BY).identity, "settings": {}, "pictures": 60,
            "unanswered": 0, "units": 60, "of": "pictures", "references": {reference: "it"},
            "asked": {"mirrored": "m"},
            "standings": {"light": light}, "roots": {"light": light},
            "calibration": [], "cost": {}, "made": "2026-01-01",
        }
    )  # fmt: skip


def test_with_a_certificate_the_count_is_corrected_and_what_fails_is_marked(gallery, reported):
    reported(gallery)
    before = metrics()
    assert json.loads(paths.CERTIFIED.read_text())["version"] is None
    made = certificate_of("the painter")
    certificate.write(made, paths.CERTIFICATES / "measured.json")

    reported(gallery)

    for name, row in metrics().items():
        assert row["negatives"] == before[name]["negatives"]  # never instead of it
        low, high = row["negatives_corrected_low"], row["negatives_corrected_high"]
        assert 0 <= low <= row["negatives_corrected"] <= high <= 1
        assert row["criteria_corrected"] == 1
    said = json.loads(paths.CERTIFIED.read_text())
    assert said == {
        "version": made.version, "annotator": "measured-1", "failing": {"light": ["mirrored"]}
    }  # fmt: skip
    assert made.version in paths.PAGE.read_text()
    assert "fails the control mirrored" in paths.PAGE.read_text()
    assert made.version in (paths.CARDS / "cpo-s" / "README.md").read_text()
