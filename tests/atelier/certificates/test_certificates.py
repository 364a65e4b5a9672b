"""Judges of known faults are examined: the controls find each fault, and nothing else."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from atelier.annotators.inspection import Inspector, Limits
from atelier.annotators.protocol import Answer, Answers
from atelier.annotators.vlm.annotator import VLM
from atelier.certificates import certificate, controls, correction, examination
from atelier.certificates.certificate import Certificate
from atelier.certificates.examination import Shown
from atelier.certificates.findings import Examined, Pairs
from atelier.config.annotation import VLMParams
from atelier.criteria.annotations import Judgement
from atelier.criteria.tree import Tree
from atelier.errors import ArtifactError
from atelier.reporting import silent

LEAF = {"positive_means": "", "negative_means": "", "applies": "any", "sources": []}
TREE = Tree.model_validate(
    {
        "domain": "toy",
        "version": "1",
        "literature": {},
        "criteria": {
            "light": {"positive": "bright", "negative": "dark", **LEAF},
            "color": {"positive": "warm", "negative": "cold", **LEAF},
        },
    }
)
LIMITS = Limits(smallest_side_pixels=1, largest_pixels=10**6, pixels=None)
COUNT = 40


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Pictures with their truth: bright or dark, warm or cold, each combination ten times."""
    folder = tmp_path_factory.mktemp("pictures")
    shown, truth = [], []
    for place in range(COUNT):
        bright, warm = place % 2 == 0, place // 2 % 2 == 0
        pixels = np.full((32, 32, 3), 190 if bright else 60, np.uint8)
        pixels[:, :, 0 if warm else 2] += 40
        pixels[place % 32] += 5  # no two alike
        pixels[:, place // 32] += 3
        file = folder / f"{place:02}.png"
        Image.fromarray(pixels).save(file)
        shown.append(Shown(file, str(place), f"caption {place}"))
        truth.append(
            {
                "light": "positive" if bright else "negative",
                "color": "positive" if warm else "negative",
            }
        )
    return shown, truth


@dataclasses.dataclass
class Scripted:
    """A judge that answers by a function of its picture, its wording and the criterion."""

    say: object
    name: str = "scripted-1"
    asks: bool = True
    inspector: Inspector = dataclasses.field(default_factory=lambda: Inspector(LIMITS))

    def judge_many(self, pictures, report, journal=None):
        report(len(pictures), {})
        return Answers([self._answer(one) for one in pictures])

    def _answer(self, one):
        pixels = np.asarray(Image.open(one.file).convert("RGB")).astype(float)
        said = {path: self.say(pixels, one, path) for path in TREE.leaves()}
        judgements = [
            Judgement(
                image="0" * 64, criterion=path, pole=pole, annotator=self.name, confidence=0.9
            )
            for path, pole in said.items()
            if pole is not None
        ]
        return Answer("0" * 64, 32, 32, None, judgements)


def honest(pixels, one, path):
    red, green, blue = pixels.mean((0, 1))
    seen = red + green + blue > 3 * 128 if path == "light" else red > blue
    return "positive" if seen else "negative"


def coin(pixels, one, path):
    return "positive" if np.random.default_rng().random() < 0.5 else "negative"


def by_the_caption(pixels, one, path):
    if one.wording.caption is None:
        return honest(pixels, one, path)
    return "positive" if len(one.wording.caption) % 2 else "negative"


def by_its_left_half(pixels, one, path):
    """A judge of whatever is seen in the upper left corner, to the last bit."""
    return "positive" if pixels[0, 0].sum() % 2 else "negative"


def examined(judge, gallery, folder, pairs=None):
    shown, truth = gallery
    observed = examination.examine(
        judge, TREE, shown, folder, largest_pixels=10**6, seed=0, report=silent
    )
    return Examined(
        TREE,
        [one.unit for one in shown],
        [one.caption for one in shown],
        observed,
        {"truth": truth},
        pairs,
    )


def failing(judge, gallery, folder):
    return {
        path: set(one.failing)
        for path, one in examined(judge, gallery, folder).standings().items()
    }


def test_a_judge_that_looks_passes_every_control(gallery, tmp_path):
    standings = examined(Scripted(honest), gallery, tmp_path).standings()

    assert list(standings) == ["light", "color"]
    for one in standings.values():
        assert one.verdict == "passes"
        assert set(one.controls) == set(controls.ABOUT)
        assert one.against["truth"].agree.estimate == 1
        assert one.against["truth"].sensitivity.low > 0.8
        assert one.overconfidence.estimate == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("say", "control"),
    [
        (lambda pixels, one, path: "positive", controls.LOOKS),
        (coin, controls.REPEATED),
        (by_the_caption, controls.CAPTION),
        (by_its_left_half, "recompressed"),
        (lambda p, o, path: o.wording.told.get(path) or honest(p, o, path), controls.TOLD),
        (
            lambda p, o, path: None if o.wording.backwards else honest(p, o, path),
            controls.BACKWARDS,
        ),
    ],
    ids=["blind", "coin", "caption", "last bit", "told", "silent when turned"],
)
def test_a_fault_fails_its_control(say, control, gallery, tmp_path):
    for path, found in failing(Scripted(say), gallery, tmp_path).items():
        assert control in found, path


def test_a_judge_that_is_asked_nothing_has_no_controls_of_words(gallery, tmp_path):
    judge = Scripted(honest, asks=False)

    standing = examined(judge, gallery, tmp_path).standings()["light"]

    assert not set(controls.OF_WORDS) & set(standing.controls)
    assert standing.verdict == "passes"


@pytest.mark.parametrize(
    ("behaviour", "control"),
    [
        ("looks", None),
        ("blind", controls.LOOKS),
        ("first", controls.SWAPPED),
        ("first", controls.BACKWARDS),
        ("told", controls.TOLD),
    ],
)
def test_controls_find_out_a_model_behind_a_server(
    behaviour, control, gallery, model_server, vlm, tmp_path
):
    model_server.follow(behaviour=behaviour)
    judge = VLM(TREE, VLMParams.model_validate(vlm), LIMITS, tmp_path / "answers")

    found = failing(judge, gallery, tmp_path)

    assert found.keys() == {"light", "color"}
    for path, failed in found.items():
        assert (control in failed) if control else not failed, (path, failed)
    if behaviour == "told":
        assert found["light"] == {controls.TOLD}


@pytest.mark.parametrize(("behaviour", "settled"), [("looks", 1.0), ("first", 0.0)])
def test_a_model_compares_pictures_in_both_orders(
    behaviour, settled, gallery, model_server, vlm, tmp_path
):
    model_server.follow(behaviour=behaviour)
    judge = VLM(TREE, VLMParams.model_validate(vlm), LIMITS, tmp_path / "answers")
    shown, _ = gallery
    places = [(place, (place + 1) % COUNT) for place in range(12)]

    said = judge.compare_many(
        [(shown[one].file, shown[other].file) for one, other in places], ["light"], silent
    )

    result = examined(Scripted(honest), gallery, tmp_path / "x", Pairs(places, said))
    compared = result.standings()["light"].compared
    assert compared["settled"].estimate == settled
    if behaviour == "looks":
        assert compared["truth"].estimate == 1
        assert compared["truth"].count == 12  # bright and dark pictures take turns


def test_strangers_are_other_pictures_and_of_another_unit_where_there_is_one():
    units = ["a", "a", "a", "b", "c"]

    strangers = examination.derangement(units, seed=3)

    assert all(units[place] != units[other] for place, other in enumerate(strangers))
    assert examination.derangement(["a", "a"], seed=0) == [1, 0]


def certified(result, **changes):
    values = {
        "format": 1,
        "annotator": "scripted-1",
        "criteria": TREE.identity,
        "settings": {},
        "pictures": COUNT,
        "unanswered": 0,
        "units": COUNT,
        "of": "toy pictures",
        "references": {"truth": "it"},
        "asked": dict(controls.ABOUT),
        "standings": result.standings(),
        "roots": result.roots(),
        "calibration": result.calibration(),
        "cost": {"seconds": 0.1},
        "made": "2026-01-01",
    }
    return Certificate.model_validate(values | changes)


def test_a_certificate_is_found_by_annotator_and_criteria_and_vouches_for_its_bytes(
    gallery, tmp_path
):
    made = certified(examined(Scripted(honest), gallery, tmp_path / "views"))
    file = tmp_path / "certificates" / "scripted.json"
    certificate.write(made, file)

    assert certificate.of(file.parent, "scripted-1", TREE) == made
    assert certificate.of(file.parent, "another", TREE) is None
    assert (
        certificate.of(file.parent, "scripted-1", TREE.model_copy(update={"version": "2"}))
        is None
    )
    assert certificate.of(tmp_path / "absent", "scripted-1", TREE) is None
    assert (
        certified(
            examined(Scripted(honest), gallery, tmp_path / "v2"), made="2027-02-02"
        ).version
        == made.version
    )

    file.write_text(file.read_text().replace('"unanswered": 0', '"unanswered": 1'))
    with pytest.raises(ArtifactError, match="was changed by hand"):
        certificate.of(file.parent, "scripted-1", TREE)


def test_marks_are_of_criteria_that_fail(gallery, tmp_path):
    judge = Scripted(lambda p, o, path: honest(p, o, path) if path == "light" else "positive")
    made = certified(examined(judge, gallery, tmp_path))

    assert certificate.marks(made, ["light", "color"]) == {"color": "fails the control looks"}
    assert certificate.marks(None, ["light"]) == {}


def test_a_count_is_corrected_by_hand():
    # Se = (45 + 1) / (48 + 2) = 0.92, Sp = (97 + 1) / (98 + 2) = 0.98, J = 0.9; the judge names
    # 29 of 100 pictures dark: (0.29 + 0.98 - 1) / 0.9 = 0.3.
    made = judge_of(sensitivity=(45, 48), specificity=(97, 98))
    found = [{"light": "negative"}] * 29 + [{"light": "positive"}] * 71

    corrected = correction.correct(found, [str(n) for n in range(100)], made)

    assert corrected.raw.estimate == pytest.approx(0.29)
    assert corrected.negatives.estimate == pytest.approx(0.3)
    assert corrected.shares["light"] == corrected.negatives
    assert corrected.criteria == ["light"]
    assert corrected.left_out == []
    assert corrected.negatives.low < 0.22
    assert corrected.negatives.high > 0.38


def test_a_judge_that_guesses_corrects_nothing():
    made = judge_of(sensitivity=(10, 20), specificity=(20, 40))

    corrected = correction.correct([{"light": "negative"}] * 5, list("abcde"), made)

    assert corrected.negatives is None
    assert corrected.left_out == ["light"]


def judge_of(sensitivity, specificity):
    from atelier.metrics import statistics

    def share(hits, count):
        found = statistics.share([True] * hits + [False] * (count - hits), range(count))
        return {key: getattr(found, key) for key in ("estimate", "low", "high", "count")}

    spoke = share(9, 10)
    against = {
        "both": 1, "agree": None, "kappa": None, "missed": None, "alone": 0,
        "sensitivity": share(*sensitivity), "specificity": share(*specificity),
    }  # fmt: skip
    standing = {
        "spoke": spoke, "controls": {}, "against": {"truth": against},
        "overconfidence": None, "compared": {},
    }  # fmt: skip
    return Certificate.model_validate(
        {
            "format": 1, "annotator": "a", "criteria": TREE.identity, "settings": {},
            "pictures": 10, "unanswered": 0, "units": 10, "of": "toys",
            "references": {"truth": "it"}, "asked": {}, "standings": {"light": standing},
            "roots": {"light": standing}, "calibration": [], "cost": {}, "made": "2026-01-01",
        }
    )  # fmt: skip


@pytest.mark.parametrize("truth", [0.02, 0.1, 0.3, 0.6])
def test_the_corrected_interval_holds_the_truth_about_as_often_as_it_says(truth):
    chance = np.random.default_rng(7)
    held = 0
    for _ in range(300):
        made = judge_of(
            (int(chance.binomial(60, 0.85)), 60), (int(chance.binomial(140, 0.95)), 140)
        )
        dark = chance.random(80) < truth
        named = chance.random(80) < np.where(dark, 0.85, 0.05)
        found = [{"light": "negative"} if one else {} for one in named]
        corrected = correction.correct(found, [str(n) for n in range(80)], made)
        assert corrected.negatives is not None
        held += corrected.negatives.low <= truth <= corrected.negatives.high

    assert held / 300 >= 0.93
