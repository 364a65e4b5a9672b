import importlib.util
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from PIL import Image

FILE = Path(__file__).parents[2] / "benchmarks/scale.py"


def _loaded():
    # Some package of the environment installs a `benchmarks` of its own.
    spec = importlib.util.spec_from_file_location("scale", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["scale"] = module  # where its dataclasses look for their types
    spec.loader.exec_module(module)
    return module


scale = _loaded()


def figure(count, seconds):
    return scale.Measured(
        stage="split",
        count=count,
        seconds=2 * seconds,
        cpu_seconds=seconds,
        start_mib=80,
        peak_mib=100,
    )


def test_a_stage_is_measured_in_a_process_of_its_own(tmp_path):
    folder = tmp_path / "corpus"
    scale.make(folder, 300)

    annotate = scale.measure("annotate", folder, count=300, cores=1)
    split = scale.measure("split", folder, count=300, cores=1)

    assert (annotate.stage, annotate.count) == ("annotate", 300)
    for one in (annotate, split):
        assert one.seconds > 0
        assert one.cpu_seconds > 0
        assert one.peak_mib > one.start_mib > 10
    assert len(list((folder / "data").glob("*/*.png"))) == 300
    rows = sum(
        len((folder / f"artifacts/split/{part}.jsonl").read_text().splitlines())
        for part in ("train", "validation", "test")
    )
    near = json.loads((folder / "artifacts/split/summary.json").read_text())["near_duplicates"]
    assert near["groups"] == 3
    assert rows == 300 - near["left_out"]


@pytest.mark.slow
def test_all_stages_go_on_where_hashes_and_features_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "READ", 200)

    found = scale.run([300], cores=1, folder=tmp_path)

    assert [row.stage for row in found] == list(scale.STAGES)


def test_figures_are_kept_stage_by_stage_and_those_of_whole_counts_are_used(
    tmp_path, monkeypatch
):
    kept = tmp_path / "scale.json"
    whole = [replace(figure(100, 1.0), stage=stage) for stage in scale.STAGES]
    part = [replace(figure(1000, 9.0), stage=stage) for stage in scale.STAGES[:2]]

    def ended(folder, counts, cores, drawn):
        assert not drawn
        if counts:
            assert list(counts) == [1000]
            yield from part
            raise KeyboardInterrupt

    kept.write_text(json.dumps([asdict(row) for row in whole]), encoding="utf-8")
    monkeypatch.setattr(scale, "_in", ended)
    with pytest.raises(KeyboardInterrupt):
        scale.run([100, 1000], cores=1, kept=kept)

    assert len(json.loads(kept.read_text(encoding="utf-8"))) == len(whole) + len(part)
    with pytest.raises(KeyboardInterrupt):
        scale.run([100, 1000], cores=1, kept=kept)
    assert scale.run([100], cores=1, kept=kept) == whole


def test_what_a_stage_complains_of_is_said(tmp_path):
    folder = tmp_path / "corpus"
    scale.make(folder, 2)

    with pytest.raises(RuntimeError, match=r"images\.jsonl is absent"):
        scale.measure("split", folder, count=2, cores=1)


def test_exponent_table_and_plot(tmp_path):
    few, many = figure(100, 0.5), figure(1000, 50.0)

    assert scale.exponent(few, many) == pytest.approx(2)
    assert scale.table([few, many]).splitlines()[-1] == (
        "| split | 1.0 s, 100 MiB | 100.0 s, 100 MiB | 2.00 |"
    )
    scale.plot([few, many], tmp_path / "docs/scale.png")
    with Image.open(tmp_path / "docs/scale.png") as picture:
        assert picture.width > 800
