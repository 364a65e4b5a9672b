import re
from pathlib import Path

import numpy as np
import pytest

from atelier import images
from atelier.config.profile import Profile
from atelier.reports.study import claims, figures, report
from atelier.reports.study.fronts import Fronts
from atelier.reports.study.results import Results

GOLDEN = Path(__file__).parents[3] / "golden"
BOTH = ("measured-1", "starter-features-1")


@pytest.fixture
def results(experiments, found):
    """A function that returns the results of a whole study, judged by some."""

    def results(judges):
        done = {one.name: found(one, judges) for one in experiments}
        return Results(done, "starter-features-1")

    return results


@pytest.mark.parametrize(("name", "judges"), [("study", BOTH), ("study-one", BOTH[:1])])
def test_the_page_of_stored_results(study, chosen, results, profile, name, judges):
    page = report.render(
        name, study, chosen, results(judges), Profile.model_validate(profile),
        commit="abc1234", reading="As expected.\n" * (name == "study"),
    )  # fmt: skip

    golden = (GOLDEN / f"{name}.md").read_text(encoding="utf-8")
    assert re.sub(r"\d+\.\d+", "0", page) == re.sub(r"\d+\.\d+", "0", golden)
    numbers = [re.findall(r"-?\d+\.\d+", text) for text in (page, golden)]
    np.testing.assert_allclose(*(np.array(one, float) for one in numbers), atol=0.011)


def test_a_claim_holds_where_all_judges_agree():
    assert claims.verdict([True, True], [False, False]) == claims.HOLDS
    assert claims.verdict([True, False], [False, False]) == claims.OPEN
    assert claims.verdict([False, False], [True, True]) == claims.NOT


def test_figures_are_drawn_and_the_grid_shows_what_was_painted(
    study, chosen, results, tmp_path
):
    for name in ("base", "theta1", "inside-0"):
        file = tmp_path / "kept/alone-0" / name / "000.png"
        file.parent.mkdir(parents=True)
        file.write_bytes(images.png(np.zeros((32, 32, 3), np.uint8)))

    figures.write(tmp_path / "drawn", study, chosen, results(BOTH), tmp_path / "kept")

    drawn = {file.name: file.stat().st_size for file in (tmp_path / "drawn").iterdir()}
    assert drawn.keys() == {"fronts.png", "training.png", "pictures.png"}
    assert min(drawn.values()) > 500


def test_pictures_that_may_not_be_published_are_kept_out_of_the_page(
    study, chosen, results, profile, tmp_path
):
    study = study.model_copy(update={"grid": False})
    file = tmp_path / "kept/alone-0/base/000.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(images.png(np.zeros((32, 32, 3), np.uint8)))

    figures.write(tmp_path / "drawn", study, chosen, results(BOTH), tmp_path / "kept")
    page = report.render(
        "study", study, chosen, results(BOTH), Profile.model_validate(profile),
        commit="abc1234", reading="",
    )  # fmt: skip

    assert not (tmp_path / "drawn/pictures.png").exists()
    assert (tmp_path / "kept/pictures.png").is_file()
    assert "pictures.png" not in page


def test_unstabilised_cpo_collapses_where_it_ends_worse_than_the_base(study, results):
    done = results(BOTH)
    ends = claims.unstable(study)

    (said,) = claims._collapse(study, Fronts(study, done))

    base, end = (Fronts(study, done).at("alone", name, "fid") for name in ("base", "cpo-100"))
    assert ends == [("alone", "cpo-100")]
    assert said.verdict == (claims.HOLDS if end > base else claims.NOT)
    assert said.figures == f"base {base:.1f}, cpo-100 {end:.1f}"
