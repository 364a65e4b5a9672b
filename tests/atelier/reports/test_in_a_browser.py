"""The report in a real Chromium, opened from disk."""

import shutil
import subprocess

import pytest
from PIL import Image

from atelier.reports import evaluation_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.slow,
]


def browse(file, tmp_path, *options):
    """Open a file; return what the console said and what was written to stdout."""
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            "--hide-scrollbars",
            "--disable-background-networking",
            "--disable-component-update",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=2000",
            *options,
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    said = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return said, done.stdout


@pytest.fixture
def file(page, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(evaluation_page.render(page), encoding="utf-8")
    return path


def test_the_console_says_nothing(file, tmp_path):
    said, dom = browse(file, tmp_path, "--dump-dom")

    assert said == []
    assert 'id="made-title"' in dom


def test_what_a_page_says_to_the_console_is_heard(tmp_path):
    path = tmp_path / "loud.html"
    path.write_text("<script>console.error('ouch')</script><img src='absent.png'>")

    said, _ = browse(path, tmp_path, "--dump-dom")

    assert any("ouch" in line for line in said)


def test_a_script_that_slips_in_is_stopped_by_the_page_itself(file, tmp_path):
    html = file.read_text(encoding="utf-8")
    file.write_text(html.replace("</main>", "<script>document.title='run'</script></main>"))

    said, dom = browse(file, tmp_path, "--dump-dom")

    assert any("Content Security Policy" in line for line in said)
    assert "<title>run</title>" not in dom


@pytest.mark.parametrize("width", [1280, 500])
@pytest.mark.parametrize("dark", [False, True])
def test_it_is_drawn_in_light_and_dark_at_each_width(file, tmp_path, width, dark):
    shot = tmp_path / "shot.png"
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []

    browse(file, tmp_path, f"--screenshot={shot}", f"--window-size={width},900", *scheme)

    corner = Image.open(shot).convert("RGB").getpixel((3, 3))
    assert (max(corner) < 60) == dark


def test_it_prints(file, tmp_path):
    pdf = tmp_path / "report.pdf"

    browse(file, tmp_path, f"--print-to-pdf={pdf}", "--no-pdf-header-footer")

    assert pdf.read_bytes().startswith(b"%PDF")
    assert pdf.stat().st_size > 10_000
