import re

from atelier.reports import certificate_page
from tests.atelier.reports.conftest import TREE


def test_everything_found_stands_in_the_page_and_is_escaped(certificate):
    html = certificate_page.render(certificate, TREE)

    assert certificate.version in html
    assert "<of>" not in html
    assert "off <key>" not in html
    assert "&lt;the painter&gt;" in html
    for control, about in certificate.asked.items():
        assert f"<dt>{control}</dt><dd>{about}</dd>" in html
    assert html.count('class="failing"') == 2  # light: in the controls, and in the agreement
    assert "1 got no answer" in html
    assert "Calls a picture" in html


def test_the_finding_by_hand(certificate):
    assert certificate_page.finding(certificate) == (
        "measured-1, examined on 40 pictures <of> a test: of 2 criteria 1 pass every control, "
        "1 fails one, and none had too few verdicts to tell. Where both speak, it says what "
        "<the painter> says in 76 of 80 answers."
    )


def test_nothing_is_loaded_from_elsewhere(certificate):
    html = certificate_page.render(certificate, TREE)

    assert "default-src 'none'" in html
    assert not re.search(r'(?:src|href)="(?!#)', html)


def test_answers_from_a_file_have_no_controls(certificate):
    standings = {
        path: one.model_copy(update={"controls": {}})
        for path, one in certificate.standings.items()
    }
    html = certificate_page.render(
        certificate.model_copy(
            update={"asked": {}, "standings": standings, "roots": {}, "calibration": []}
        ),
        TREE,
    )

    assert "no control could be done" in html
    assert 'id="controls"' not in html
    assert 'id="calibration"' not in html
