from pathlib import Path

import pytest

from atelier.config.profile import Profile
from atelier.reports.study import design, figures, report
from atelier.reports.study.results import Found, Results

GOLDEN = Path(__file__).parents[3] / "golden"


@pytest.fixture
def write(study, found, profile):
    """A function that returns the page after so many experiments, and their results."""

    def write(name, experiments, judges):
        tuned = Found(**found("tuning", 0))
        chosen = {method: design.choose(method, study, tuned) for method in study.methods}
        names = [one.name for one in design.final_runs(study, chosen)]
        done = {
            name: Found(**found(kind, int(seed), judges))
            for name in names[:experiments]
            for kind, _, seed in [name.rpartition("-")]
        }
        results = Results(done, len(study.seeds), "starter-features-1")
        page = report.render(
            name, study, chosen, tuned, results, Profile.model_validate(profile),
            planned=len(names), commit="abc1234", reading="As expected.\n" * (name == "study"),
        )  # fmt: skip
        return page, results

    return write


@pytest.mark.parametrize(
    ("name", "experiments", "judges"),
    [
        ("study", 14, ("measured-1", "starter-features-1")),
        ("study-few", 3, ("measured-1",)),
        ("study-none", 0, ()),
    ],
)
def test_the_page_of_stored_results(write, name, experiments, judges):
    page, _ = write(name, experiments, judges)

    assert page == (GOLDEN / f"{name}.md").read_text(encoding="utf-8")


def test_the_readme_shows_the_methods_best_first(write, study):
    _, results = write("study", 14, ("measured-1", "starter-features-1"))
    begin, end = report.SHOWN

    once = report.shown_in(f"# A\n{begin}\nold\n{end}\nmore\n", study, results)

    assert once.startswith(f"# A\n{begin}\n| painter |")
    assert once.endswith(f"{end}\nmore\n")
    assert "old" not in once
    rows = [line for line in once.splitlines() if line.startswith("| ")][2:]
    means = [float(row.split("|")[2].split()[0]) for row in rows]
    assert means == sorted(means)
    assert len(means) == 6
    assert report.shown_in(once, study, results) == once
    assert report.shown_in("# no place for it", study, results) == "# no place for it"


def test_figures_are_drawn_of_what_there_is(write, study, tmp_path):
    _, some = write("study-few", 3, ("measured-1",))
    figures.write(tmp_path / "few", study, some)
    _, all_of_them = write("study", 14, ("measured-1", "starter-features-1"))
    figures.write(tmp_path / "study", study, all_of_them)

    first = {"methods.png", "training.png", "tradeoff.png"}
    assert {file.name for file in (tmp_path / "few").iterdir()} == first
    assert {file.name for file in (tmp_path / "study").iterdir()} == first | {"sweep.png"}
    assert all(file.stat().st_size > 1000 for file in tmp_path.rglob("*.png"))


def test_names_at_the_edge_are_moved_apart_by_as_little_as_it_takes():
    # 0.50 and 0.52 need 0.1 between them: 0.46 and 0.56, their mean as it was
    assert figures._apart([0.1, 0.5, 0.52, 0.9], 0.1) == pytest.approx([0.1, 0.46, 0.56, 0.9])
