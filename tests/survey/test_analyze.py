import json
import random
import re

import pytest
from typer.testing import CliRunner

from cli.app import app
from survey import analyze, files
from survey import results as outcome
from survey.method.analysis import EVERYBODY, OVERALL
from tasks.reporting import studies
from tasks.run import paths


def analyse(name):
    said = CliRunner().invoke(app, ["survey", "analyze", name])
    assert said.exit_code == 0, said.output
    return said.stdout


def results(study):
    file = files.folder(study.name) / studies.RESULTS
    return outcome.Results.model_validate_json(file.read_bytes())


def sees(key, asked):
    return key.pictures[asked.left], key.pictures[asked.right]


def answered(study, book, group, judge, count=None):
    """Let people of a group answer all of their sheets by ``judge(left, right)``."""
    key = files.key(study.name)
    for number, _ in book.invite(study, group, count or len(study.sheets[group])):
        rater = next(one for one in book.raters() if one.number == number)
        for question, asked in enumerate(study.sheets[group][rater.sheet]):
            book.vote(number, question, judge(*sees(key, asked)))


def attentive(judge):
    """Whoever looks answers the checks rightly."""

    def choice(left, right):
        if left.ruined != right.ruined:
            return "right" if left.ruined else "left"
        return judge(left, right)

    return choice


def prefers(painter):
    return attentive(lambda left, right: "left" if left.painter == painter else "right")


def test_a_study_that_everybody_agrees_on(study, book):
    answered(study, book, "experts", prefers("cpo-s"))
    answered(study, book, "laypeople", prefers("base"))

    said = analyse(study.name)

    page = results(study).page
    experts = page.study.finding("light", "experts")
    assert (experts.comparisons[0].first, experts.comparisons[0].second) == ("cpo-s", "base")
    assert experts.comparisons[0].rate.estimate == 1
    assert page.study.finding("light", "laypeople").comparisons[0].rate.estimate == 0
    assert page.study.finding(OVERALL, EVERYBODY).comparisons[0].rate.estimate == 0.5
    assert experts.votes == 4 * 2  # pairs, people
    coverage = page.coverage["experts"]
    assert (coverage.least, coverage.wanted, coverage.reached) == (2, 2, 1.0)
    assert said.startswith("the cpo-s was preferred to the base in 50% of the decided answers")
    assert "registry" not in said  # nothing here was registered


def test_what_is_missing_is_said(study, book):
    answered(study, book, "experts", prefers("cpo-s"), count=1)

    analyse(study.name)

    coverage = results(study).page.coverage
    assert coverage["experts"].least == 0
    assert coverage["experts"].reached == 0
    assert coverage["laypeople"].invited == 0


def test_who_does_not_look_is_left_out_by_the_rule_of_the_study_s_making(study, book, profile):
    answered(study, book, "experts", prefers("cpo-s"))
    answered(study, book, "laypeople", lambda left, right: "same")
    text = paths.profile("starter").read_text()
    paths.profile("starter").write_text(
        text.replace("checks_passed: 0.6", "checks_passed: 0.0")
    )

    analyse(study.name)

    found = results(study).page.study
    assert {(one.group, one.counted) for one in found.trust} == {
        ("experts", True),
        ("laypeople", False),
    }
    assert {finding.group for finding in found.findings} == {"experts", EVERYBODY}
    html = (files.folder(study.name) / analyze.PAGE).read_text()
    assert html.count("of laypeople (0 of 1)") == len(study.sheets["laypeople"])


def test_the_page_needs_nothing_else_and_escapes_everything(study, book):
    answered(study, book, "experts", prefers("cpo-s"))
    analyse(study.name)

    html = (files.folder(study.name) / analyze.PAGE).read_text()

    assert "&lt;script&gt;alert(&#39;name&#39;)" in html
    assert "<script" not in html
    assert not re.search(r"(src|href)=|url\(|@import", html)
    assert "nan" not in html.lower().replace("finance", "")


def test_a_study_without_answers_has_a_page_that_says_so(study, book):
    assert analyse(study.name).startswith("There are no answers yet.")

    html = (files.folder(study.name) / analyze.PAGE).read_text()
    assert "There are no answers yet." in html
    assert results(study).page.study.findings == []


def test_the_report_is_given_what_was_found_on_its_very_pictures(study, book):
    answered(study, book, "experts", prefers("cpo-s"))
    assert studies.sections({"0" * 64}) == []
    analyse(study.name)
    hashes = set(results(study).pictures)

    (section,) = studies.sections(hashes | {"0" * 64})

    assert section.startswith("<section")
    assert "&lt;script&gt;alert(&#39;name&#39;)" in section
    assert section in (files.folder(study.name) / analyze.PAGE).read_text()
    assert studies.sections(hashes - {min(hashes)}) == []


def test_the_same_votes_give_the_same_bytes(study, book):
    answered(study, book, "experts", attentive(lambda left, right: "same"))
    analyse(study.name)
    file = files.folder(study.name) / studies.RESULTS
    before = file.read_bytes()

    analyse(study.name)

    assert file.read_bytes() == before


@pytest.fixture
def three_painters(wanted):
    wanted |= {"painters": ["base", "theta1", "cpo-s"]}


@pytest.mark.usefixtures("three_painters")
def test_three_painters_are_put_on_one_scale(study, book):
    order = ["base", "theta1", "cpo-s"]

    def judge(left, right):
        return "left" if order.index(left.painter) > order.index(right.painter) else "right"

    for group in study.sheets:
        answered(study, book, group, attentive(judge))
    analyse(study.name)

    found = results(study).page.study.finding(OVERALL, EVERYBODY)
    scores = [found.scores[painter].estimate for painter in order]
    assert scores == sorted(scores)
    assert len(found.comparisons) == 3
    html = (files.folder(study.name) / analyze.PAGE).read_text()
    assert "the theta1 to the base" in html


def register(study, weights):
    """Give a painter of the study weights that the registry knows, and register them."""
    from tasks.tracking import connection

    key = files.folder(study.name) / "key.json"
    values = json.loads(key.read_text())
    values["painters"][1]["weights"] = weights
    key.write_text(json.dumps(values))
    mlflow = connection.client()
    at = connection.experiment(mlflow, "starter")
    run = mlflow.create_run(at).info.run_id
    mlflow.create_registered_model("atelier-starter-theta")
    model = mlflow.create_logged_model(at, name="cpo-s", source_run_id=run)
    mlflow.create_model_version(
        "atelier-starter-theta",
        source=f"models:/{model.model_id}",
        run_id=run,
        model_id=model.model_id,
        tags={"mlflow.atelier.md5": weights, "objective": "cpo-s"},
    )
    return mlflow, run


def test_what_people_said_is_on_the_version_that_they_judged(study, book, mlflow_tables):
    import shutil

    paths.MLFLOW.mkdir(parents=True)
    shutil.copy(mlflow_tables, paths.MLFLOW)
    mlflow, run = register(study, "7" * 32)
    answered(study, book, "experts", prefers("cpo-s"))

    said = analyse(study.name)
    analyse(study.name)

    assert "registry: cpo-s, atelier-starter-theta version 1: the cpo-s was preferred" in said
    version = mlflow.get_model_version("atelier-starter-theta", "1")
    assert version.tags["survey.trial"].startswith(
        "the cpo-s was preferred to the base in 100%"
    )
    values = mlflow.get_run(run).data.metrics
    assert values["survey/trial/experts/light/over-base"] == 1
    assert values["survey/trial/experts/overall/score"] > 1
    history = mlflow.get_metric_history(run, "survey/trial/experts/overall/score")
    assert len(history) == 1


@pytest.fixture
def many_pairs(wanted):
    wanted |= {"pairs": 6, "raters": 30, "pairs_each": 6, "checks": 2, "groups": ["experts"]}


@pytest.mark.slow
@pytest.mark.usefixtures("many_pairs")
def test_a_known_preference_put_in_through_the_server_is_inside_the_interval(
    study, book, server, crowd, person
):
    """Sixty people prefer cpo-s with probability 0.8, whatever the picture; none is told."""
    key = files.key(study.name)
    chance = random.Random(6)

    def judge(seen):
        left, right = key.pictures[seen.left], key.pictures[seen.right]
        likes = "cpo-s" if chance.random() < 0.8 else "base"
        return prefers(likes)(left, right)

    invited = book.invite(study, "experts", len(study.sheets["experts"]))
    server.start()
    crowd([person(server.address, token, judge) for _, token in invited])
    analyse(study.name)

    page = results(study).page
    one = page.study.finding(OVERALL, "experts").comparisons[0]
    assert one.rate.count == 6 * 30 * len(study.dimensions)
    assert one.rate.low <= 0.8 <= one.rate.high
    assert one.rate.high - one.rate.low < 0.2  # six captions
    assert page.coverage["experts"].reached == 1
    assert all(trusted.counted for trusted in page.study.trust)
