"""The page of `dvc plots show` in a real Chromium, without a content network."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser import browser, chromium  # noqa: F401 -- fixtures

ROOT = Path(__file__).parents[1]
PLOTS = """
plots:
- Negatives:
    x: {bars.csv: negatives}
    y: {bars.csv: painter}
    x_label: '#A_neg'
    template: bar_horizontal
- Training:
    x: step
    y: {one.tsv: drift, two.tsv: drift}
"""


@pytest.mark.slow
def test_plots_are_drawn_and_nothing_is_asked_from_elsewhere(
    tmp_path,
    monkeypatch,
    browser,  # noqa: F811
):
    monkeypatch.chdir(tmp_path)
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "-q", "--no-scm"], check=True)
    config = (ROOT / ".dvc/config").read_text()
    (tmp_path / ".dvc/config").write_text(config.replace("[core]", "[core]\n    no_scm = true"))
    (tmp_path / ".dvc/plots").mkdir()
    page = (ROOT / ".dvc/plots/offline.html").read_text()
    (tmp_path / ".dvc/plots/offline.html").write_text(page)
    (tmp_path / "bars.csv").write_text("painter,negatives\nbase,3.5\n<i>cpo</i>,1.25\n")
    for name in ("one", "two"):
        (tmp_path / f"{name}.tsv").write_text("step\tdrift\n1\t0.1\n2\t0.3\n")
    (tmp_path / "dvc.yaml").write_text(PLOTS)

    subprocess.run([*dvc, "plots", "show"], check=True, capture_output=True)
    browser.go((tmp_path / "dvc_plots/index.html").as_uri())

    browser.until("document.querySelectorAll('svg').length === 2")
    text = browser.value("document.body.textContent")
    for word in ("Negatives", "base", "3.5", "<i>cpo</i>", "1.25", "#A_neg", "Training", "0.3"):
        assert word in text
    assert browser.value("document.querySelectorAll('rect').length") >= 2
    assert browser.value("document.querySelectorAll('polyline').length") == 2
    assert browser.value("document.querySelectorAll('i').length") == 0
    assert browser.complaints == []
    assert all(address.startswith("file:") for address in browser.asked)
    browser.screen(1000, 1100)
    browser.picture(tmp_path / "plots.png")
