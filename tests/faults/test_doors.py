"""Doors: pages in a real browser, a folder of the worst pictures, names that lead elsewhere."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import psutil
import pytest
import yaml

from atelier.criteria import tree as trees
from atelier.reports import criteria_page
from tests.browser import Browser
from tests.conftest import small_profile
from tests.faults import mutations, targets, workshop

HOSTILE = "<script>window.hacked=1</script><img src=x onerror='window.hacked=2'>"
TORN = 600
MOST_MEMORY = 1500  # MB of all processes of annotate together, for pictures of a megapixel


def tree(tmp_path):
    values = yaml.safe_load(targets._small_criteria()[1])
    values["domain"] = values["literature"]["book"] = HOSTILE
    light = values["criteria"]["light"]
    light["name"] = light["about"] = HOSTILE
    light["branches"]["clear"] |= {
        "positive": "<img src=x onerror=window.hacked=3>",
        "positive_means": f'">{HOSTILE}',
    }
    (tmp_path / "hostile.yaml").write_text(yaml.safe_dump(values))
    return trees.parse(tmp_path / "hostile.yaml")


@pytest.fixture
def browser(tmp_path):
    command = shutil.which("chromium") or shutil.which("chromium-browser")
    if command is None or os.environ.get("ATELIER_NO_BROWSER"):
        pytest.skip("there is no Chromium on this machine")
    (tmp_path / "chromium").mkdir()
    one = Browser(command, tmp_path / "chromium")
    yield one
    one.close()


def opened(browser, file):
    """Open a file; return what it asked for beside itself."""
    browser.complaints.clear()
    browser.asked.clear()
    browser.go(file.as_uri())
    browser.value("0")
    return [one for one in browser.asked if one != file.as_uri() and one[:5] != "data:"]


def test_the_page_of_criteria_runs_its_script_and_nobody_elses(browser, tmp_path, figure):
    file = tmp_path / "criteria.html"
    file.write_text(criteria_page.html(tree(tmp_path)), encoding="utf-8")

    assert opened(browser, file) == []
    assert browser.complaints == []
    assert browser.value("document.querySelector('output').textContent") == "2 pairs"
    search = "const s = document.querySelector('#words'); s.value = 'hard'; "
    browser.value(search + "s.dispatchEvent(new Event('input'))")
    assert browser.value("document.querySelector('output').textContent") == "1 of 2 pairs"
    assert browser.value("window.hacked") is None

    slipped = file.read_text().replace("</main>", f"{HOSTILE}</main>")
    file.write_text(slipped, encoding="utf-8")
    opened(browser, file)
    assert browser.value("window.hacked") is None
    assert any("Content Security Policy" in one for one in browser.complaints)
    figure(
        "Security",
        "the page of criteria in Chromium, with scripts in its words, then beside them",
        2,
        "its own script alone ran; nothing was asked of anybody",
    )


def test_the_report_asks_nobody_and_runs_nothing(browser, undisturbed, tmp_path, figure):
    html = (undisturbed / "after/artifacts/report/report.html").read_text(encoding="utf-8")
    for name, text in (("report", html), ("slipped", html.replace("</main>", HOSTILE))):
        file = tmp_path / f"{name}.html"
        file.write_text(text, encoding="utf-8")
        asked = opened(browser, file)
        assert [one for one in asked if not one.startswith("file:")] == []
        assert browser.value("window.hacked") is None
        assert (browser.complaints == []) == (name == "report")
        assert browser.value("document.images.length") > 0
    figure(
        "Security",
        "the report in Chromium, as made, then with scripts slipped in",
        2,
        "nothing was asked of anybody, nothing ran; as made, the console is empty",
    )


@pytest.mark.timeout(600)
def test_a_folder_of_the_worst_pictures_is_judged_or_set_aside(tmp_path, figure):
    data = tmp_path / "data"
    data.mkdir()
    seeds = targets.pictures()
    for number, case in zip(range(len(seeds) + TORN), mutations.torn(seeds, 1), strict=False):
        (data / f"{number:04}{('.png', '.jpg', '.tif', '')[number % 4]}").write_bytes(case)
    os.mkfifo(data / "pipe.png")
    (data / "zero.png").symlink_to("/dev/zero")
    (data / "gone.png").symlink_to(tmp_path / "absent")
    (data / "round").symlink_to(data)
    (data / "self.png").symlink_to(data / "self.png")
    (data / "[red] a\nb.png").write_bytes(seeds[0])
    (data / os.fsdecode(b"\xff.png")).write_bytes(seeds[0])
    (data / f"{'n' * 240}.png").write_bytes(seeds[1])
    profile = small_profile()
    profile["annotate"] |= {"captions": None, "smallest_side_pixels": 1}
    (tmp_path / "params/criteria").mkdir(parents=True)
    shutil.copy(workshop.ROOT / "params/criteria/starter.yaml", tmp_path / "params/criteria")
    (tmp_path / "params/profile.yaml").write_text("profile: toy\n")
    (tmp_path / "params/toy.yaml").write_text(yaml.safe_dump(profile))

    with (tmp_path / "said.txt").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "tasks", "annotate"],
            cwd=tmp_path,
            env=workshop.environment(PYTHONPATH=str(workshop.ROOT)),
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    most = memory_until_its_end(process)

    text = (tmp_path / "said.txt").read_text()
    assert process.returncode == 0, text[-3000:]
    assert "Traceback" not in text
    assert most < MOST_MEMORY
    summary = json.loads((tmp_path / "artifacts/annotate/summary.json").read_text())
    files = len(seeds) + TORN + 7
    assert summary["images"] + summary["quarantined"] == files
    assert summary["images"] > 50
    shutil.copy(workshop.ROOT / "dvc.yaml", tmp_path)  # by which a clone is known
    checked = subprocess.run(
        [sys.executable, "-m", "cli", "data", "check", "data"],
        cwd=tmp_path,
        env=workshop.environment(PYTHONPATH=str(workshop.ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr[-3000:]
    assert "Traceback" not in checked.stderr
    counts = [re.search(rf"  {word} +(\d+)", checked.stdout)[1] for word in CHECKED]
    assert sum(map(int, counts)) == files
    figure(
        "Bad input",
        "annotate on a folder of them, with pipes, devices, links to nowhere and in circles",
        files,
        f"{summary['images']:,} judged, {summary['quarantined']:,} set aside with a reason; "
        f"{most} MB at most, all processes together",
    )


def memory_until_its_end(process):
    """MB of a process and its children together, at most."""
    most = 0
    one = psutil.Process(process.pid)
    end = time.monotonic() + 500
    while process.poll() is None:
        assert time.monotonic() < end, "it hangs"
        try:
            family = [one, *one.children(recursive=True)]
            most = max(most, sum(each.memory_info().rss for each in family) // 2**20)
        except psutil.Error:
            pass
        time.sleep(0.1)
    return most


CHECKED = ("pictures", "set aside")  # what `data check` counts
ELSEWHERE = (
    ["cli", "survey", "status", "../../x"],
    ["cli", "survey", "make", "/etc"],
    ["cli", "study", "../../x"],
    ["cli", "study", "/etc/passwd"],
    ["cli", "criteria", "check", "/dev/null"],
    ["cli", "criteria", "check", "/etc"],
    ["cli", "weights", "--fetch", "--from", "/etc/passwd"],
    ["cli", "plan", "--set", "annotate.criteria=../../../etc/passwd"],
    ["cli", "plan", "--set", "cpo.pairs.table=../x", "--set", "nonsense.at.all=1"],
    ["cli", "plan", "--set", "sft.init=loras/../../x.safetensors"],
    ["cli", "plan", "--set", "cpo.objectives.cpo.init=/etc/passwd"],
    ["cli", "data", "unpack", "/etc/passwd"],
)


def test_names_lead_out_of_no_folder(tmp_path, figure):
    (tmp_path / "params/criteria").mkdir(parents=True)
    shutil.copy(workshop.ROOT / "params/criteria/starter.yaml", tmp_path / "params/criteria")
    shutil.copy(workshop.ROOT / "dvc.yaml", tmp_path)
    (tmp_path / "params/profile.yaml").write_text("profile: toy\n")
    (tmp_path / "params/toy.yaml").write_text(yaml.safe_dump(small_profile()))
    subprocess.run(
        [sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=tmp_path, check=True
    )
    before = {file for file in tmp_path.parent.rglob("*") if ".dvc" not in file.parts}
    for words in ELSEWHERE:
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=tmp_path,
            env=workshop.environment(PYTHONPATH=str(workshop.ROOT)),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 2, (words, done.stdout, done.stderr)
        assert done.stderr.startswith("Error: "), (words, done.stderr)
        assert "Traceback" not in done.stderr
    after = {file for file in tmp_path.parent.rglob("*") if ".dvc" not in file.parts}
    made = {file for file in after - before if file.is_file()}
    assert {file for file in made if tmp_path not in file.parents} == set()
    figure("Security", "names that lead out of their folder, by command", len(ELSEWHERE),
           "each refused in a paragraph; nothing was written elsewhere")  # fmt: skip
