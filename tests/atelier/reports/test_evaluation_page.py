import dataclasses
import re

import numpy as np

from atelier.metrics.statistics import Interval
from atelier.reports import evaluation_page
from survey.method import analysis
from survey.method import page as survey
from survey.method.analysis import Answer
from survey.method.design import Picture, Question
from tests.atelier.reports.conftest import BAD, GOOD


def pictures(count, seed, side):
    return list(
        np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    )


def test_whatever_comes_from_outside_is_escaped(page):
    html = evaluation_page.render(page)

    assert "<script" not in html
    assert "off <key>" not in html
    assert "Colour <i>" not in html
    # caption in grid, picture's alternative, cases; file; sentence; params; provenance
    assert html.count("&lt;script&gt;") >= 7


def test_what_people_preferred_has_its_section_and_is_escaped(page):
    votes = [
        Answer("1", "experts", number, question, "right")
        for number, question in enumerate(
            Question(Picture("base", n), Picture("cpo-s", n), "colour") for n in range(4)
        )
    ]
    study = analysis.analyse(
        votes, ["cpo-s", "base"], ["colour"], ["experts"], list("abcd"), checks_passed=1
    )
    people = survey.Page(
        name="spring",
        painters={"base": "base", "cpo-s": "<script>θ</script>"},
        dimensions={"colour": "Colour <i>"},
        pairs=4,
        captions=4,
        coverage={"experts": survey.Coverage(invited=1, wanted=1, least=1, reached=1.0)},
        checks_passed=1,
        study=study,
        provenance=[],
    )

    html = evaluation_page.render(dataclasses.replace(page, studies=[survey.section(people)]))

    assert "&lt;script&gt;θ&lt;/script&gt; was preferred to base in 100% of the decided" in html
    assert 'href="#studies"' in html
    assert "<script" not in html
    assert "What people preferred" not in evaluation_page.render(page)


def test_the_two_judges_are_compared_criterion_by_criterion(page):
    assert "Do the two judges agree?" not in evaluation_page.render(page)
    second = {"base": [GOOD, BAD, BAD, GOOD], "cpo-s": [GOOD, GOOD, BAD, BAD]}
    painters = {
        name: dataclasses.replace(
            one,
            painted=dataclasses.replace(one.painted, second=second[name]),
            result=dataclasses.replace(
                one.result, second=Interval(1.0 if name == "base" else 1.5, 0, 2, 4)
            ),
        )
        for name, one in page.painters.items()
    }

    html = evaluation_page.render(
        dataclasses.replace(page, painters=painters, second="starter-features-1")
    )

    assert "Do the two judges agree?" in html
    assert 'href="#judges"' in html
    # 7 pictures have both judgements, one is bad to the annotator alone, none the other way;
    # the last picture has the independent judge's alone
    assert "<td>7</td>" in html
    assert "86% <span" in html
    assert "<td>3</td><td>1</td><td>1</td>" in html
    # base 1.5 against 0.5, but 1.0 against 1.5
    assert "The judges rank these painters the other way round: base and cpo-s." in html


def test_nothing_is_loaded_from_elsewhere(page):
    html = evaluation_page.render(page)

    sources = re.findall(r"""(?:src|href|srcset|data|poster)\s*=\s*["']([^"']*)""", html)
    assert sources
    assert all(source.startswith(("data:image/webp;base64,", "#")) for source in sources)
    assert not re.search(r"https?://|url\(|@import|<link|<iframe|<object|<form", html)


def test_the_same_results_give_the_same_bytes(page):
    assert evaluation_page.render(page) == evaluation_page.render(page)


def test_every_picture_has_an_alternative_and_every_table_its_heads(page):
    html = evaluation_page.render(page)

    assert all(re.search(r'alt="[^"]+"', tag) for tag in re.findall(r"<img[^>]*>", html))
    assert all("scope=" in tag for tag in re.findall(r"<th[ >][^>]*>?", html))
    for target in re.findall(r'(?:href="#|aria-labelledby=")([a-z-]+)"', html):
        assert f'id="{target}"' in html


def test_the_finding_by_hand(page):
    # base: (2 + 2 + 2 + 0) / 4 = 1.5; cpo-s: (0 + 0 + 2 + 0) / 4 = 0.5
    said = evaluation_page.finding(page)

    assert said.startswith(
        "On 4 pictures of 4 test captions, cpo-s shows 0.50 negative attributes an image where "
        "base shows 1.50 (67% fewer). The paired difference is −1.00, its 95% interval over "
        "captions −2.84 to 0.84."
    )


def test_the_best_of_each_column_is_bold(page):
    best = evaluation_page._best(page)

    assert best["negatives"] == {"cpo-s"}
    assert best["colour"] == {"cpo-s"}
    assert "second" not in best


def test_nobody_is_best_where_all_are_equal(page):
    same = dict.fromkeys(page.painters, page.painters["base"])

    assert not any(evaluation_page._best(dataclasses.replace(page, painters=same)).values())


def test_cases_are_the_largest_gain_and_the_largest_rest(page):
    # changes: -2, -2, 0, 0; the featured θ still shows two negatives on prompt 2
    assert evaluation_page._chosen_cases(page) == [0, 1, 2, 3]


def test_large_pictures_are_made_to_fit(page, monkeypatch):
    monkeypatch.setattr(evaluation_page, "_MOST_BYTES", 30_000)
    large = {
        name: dataclasses.replace(
            painter, painted=dataclasses.replace(painter.painted, images=pictures(4, 5, 400))
        )
        for name, painter in page.painters.items()
    }

    html = evaluation_page.render(dataclasses.replace(page, painters=large))

    embedded = sum(map(len, re.findall(r"base64,([^\"]*)", html)))
    assert embedded < 16 * 9_000  # 96 pixels a side, noise


def test_what_is_unavailable_says_how_to_cure_it_and_is_no_number(page):
    html = evaluation_page.render(page)

    row = html[html.index("PickScore<span") :].split("</tr>")[0]
    assert "<b>unavailable</b>" in row
    assert "atelier weights --fetch pickscore" in row
    assert not re.search(r">\s*0(\.0+)?\s*<", row)


def test_scores_stand_beside_the_base_by_hand(page):
    # base 0 1 2 3, θ one more each: 1.5 and 2.5, a difference of exactly 1, and it always wins
    lines = {line.entry.about.name: line for line in evaluation_page._lines(page)}
    base, theta = lines["clipscore"].cells

    assert (base.text, theta.text) == ("1.50", "2.50")
    assert (base.best, theta.best) == (False, True)
    assert "+1.00 [+1.00, +1.00] · wins 100%" in theta.below
    assert "wins" not in base.below


def test_weights_precision_and_preprocessing_stand_in_the_page(page):
    html = evaluation_page.render(page)

    assert "clip-l/model.safetensors" in html
    assert "abababababababab" in html
    assert "features of mean-colour" in html
    assert html.count("<b>Preprocessing:</b>") == len(page.entries)


def test_near_copies_stand_beside_what_they_copy(page):
    html = evaluation_page.render(page)

    section = html[html.index('id="copies"') : html.index('id="sweeps"')]
    assert "0.80 × limit: near" in section
    assert section.count("<img") == 2
    assert 'alt="Training painting: ' in section


def test_a_sweep_is_drawn_over_its_number_in_words_too(page):
    title, drawn = evaluation_page._sweep(page, page.sweeps[0])

    assert title == "ω of CPO-S"
    assert [name for name, _ in drawn] == ["#A_neg", "FID to the test paintings"]
    assert "base at 0: 1.50 (" in drawn[0][1]
    assert "cpo-s at 10: 0.50 (" in drawn[0][1]


def test_a_page_without_anything_extra_has_no_empty_sections(page):
    bare = dataclasses.replace(page, entries={}, pairs={}, sweeps=[], unseen=None)

    html = evaluation_page.render(bare)

    assert 'id="metrics"' not in html
    assert 'id="copies"' not in html
    assert 'id="sweeps"' not in html


def test_an_annotator_without_a_certificate_says_so(page):
    html = evaluation_page.render(page)

    assert "has no certificate" in html
    assert "corrected" not in html


def test_a_certificate_marks_what_fails_and_corrects_beside_the_count(certified):
    html = evaluation_page.render(certified)

    result = certified.painters["base"].result.attributes.negatives
    corrected = certified.corrected["base"].negatives
    for one in (result, corrected):  # both stand there
        assert f"{one.estimate:.2f} <span" in html
    assert result.estimate != corrected.estimate
    assert certified.certificate.version in html
    assert html.count("fails the control recompressed") >= 2
    assert "for 1 of 2 criteria" in html
