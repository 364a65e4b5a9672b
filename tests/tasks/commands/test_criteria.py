from pathlib import Path

import pytest
from typer.testing import CliRunner

from atelier.errors import CriteriaError
from cli.app import app
from tasks.commands import criteria

ROOT = Path(__file__).parents[3]


def invoke(*words):
    return CliRunner().invoke(app, ["criteria", *words])


def test_the_tree_of_the_profile_is_drawn_in_the_terminal(workspace):
    said = invoke("show").output

    assert said.splitlines() == [
        "painting · 1 pairs, 1 roots, 2 levels, version 1",
        "└── colour Colours and their relations.",
        "    └── harmony: + harmonious colours − clashing colours",
    ]


def test_a_page_is_written_where_it_is_asked_for(workspace):
    result = invoke("show", "params/criteria/starter.yaml", "--html", "out/tree.html")

    assert result.exit_code == 0
    assert "out/tree.html shows 1 pairs" in result.output
    assert 'id="colour/harmony"' in Path("out/tree.html").read_text()


def test_what_fits_is_counted_and_what_could_be_better_is_said(workspace):
    file = workspace / "params/criteria/starter.yaml"
    file.write_text(file.read_text().replace("clashing colours", "no harmony"))

    result = invoke("check")

    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "  colour/harmony: 'no harmony' negates; name what is seen instead",
        "params/criteria/starter.yaml fits: 1 pairs, 1 roots, 2 levels, version 1",
    ]


def test_every_mistake_is_named_at_once_with_its_path(workspace):
    file = workspace / "mine.yaml"
    file.write_text(
        'domain: x\nversion: "1"\ncriteria: {a: {positive: b}, B c: {branches: {}}}'
    )

    result = invoke("check", str(file))

    assert result.exit_code == 2
    for mistake in (
        "a: a leaf needs both 'positive' and 'negative', has ['positive']",
        "B c: a name is lower-case words joined by hyphens",
        "B c: branches should hold at least one node",
        "literature: field required",
    ):
        assert mistake in result.stderr
    assert "Traceback" not in result.output


def test_markup_in_a_phrase_is_shown_as_it_is(workspace):
    file = workspace / "params/criteria/starter.yaml"
    file.write_text(file.read_text().replace("clashing colours", '"[red]loud[/] colours"'))

    assert "− [red]loud[/] colours" in invoke("show").output


def test_a_guide_is_rewritten_between_its_marks_and_nowhere_else(workspace):
    guide = workspace / "guide.md"
    guide.write_text(
        "before\n<!-- criteria: params/criteria/starter.yaml -->\nold\n"
        "<!-- end of criteria -->\nafter\n"
    )

    assert invoke("document", str(guide)).exit_code == 0

    text = guide.read_text()
    assert text.startswith("before\n<!-- criteria: params/criteria/starter.yaml -->\n")
    assert text.endswith("<!-- end of criteria -->\nafter\n")
    assert "`harmony` harmonious colours ↔ clashing colours" in text
    assert "old" not in text
    assert criteria.documented(text) == text


def test_a_guide_without_marks_or_without_a_file_is_refused(workspace):
    with pytest.raises(CriteriaError, match="the guide has no place for a tree"):
        criteria.documented("nothing here")
    with pytest.raises(CriteriaError, match=r"absent.md is absent"):
        criteria.document(workspace / "absent.md")


def test_the_guide_shows_the_criteria_as_they_are(monkeypatch):
    monkeypatch.chdir(ROOT)
    guide = (ROOT / "docs/criteria.md").read_text(encoding="utf-8")

    assert criteria.documented(guide) == guide, (
        "run `atelier criteria document docs/criteria.md`"
    )
