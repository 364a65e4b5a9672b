import re

import pytest
import yaml

from atelier.config.model import public_name
from atelier.config.profile import Profile
from atelier.reports import model_card
from atelier.reports.model_card import Subject


@pytest.fixture
def model(profile):
    """The params of a base on the hub."""
    found = Profile.model_validate(profile).model
    source = "stabilityai/stable-diffusion-xl-base-1.0"
    return found.model_copy(update={"source": source, "revision": "abc"})


@pytest.fixture
def subject(model):
    return Subject(
        name="cpo-s",
        registered="atelier-toy-theta",
        folder="artifacts/cpo/cpo-s",
        file="pytorch_lora_weights.safetensors",
        base=model,
        needs_atelier=False,
        settings={"objective": "cpo-s", "training": {"steps": 80}},
        sampling="12 steps, without guidance",
    )


def test_a_card_says_the_numbers_of_the_report(page, subject):
    text = model_card.render(page, subject)

    assert "Sampled in 12 steps, without guidance." in text

    result = page.painters["cpo-s"].result
    negatives, score = result.attributes.negatives, result.scores["clipscore"].mean
    for value in (negatives, score):
        shown = f"{value.estimate:.2f} [{value.low:.2f}, {value.high:.2f}]"
        assert shown in text
    assert f"{result.fid.fid:.2f}" in text
    assert "| training.steps | 80 |" in text


def test_what_was_not_measured_is_named_with_its_cure(page, subject):
    text = model_card.render(page, subject)

    section = text[text.index("Not measured") :]
    assert "PickScore: " in section
    assert "atelier weights --fetch pickscore" in section


def test_base_licence_revision_and_loading_code(page, subject, model):
    text = model_card.render(page, subject)

    head = yaml.safe_load(text.split("---")[1])
    assert head["base_model"] == "stabilityai/stable-diffusion-xl-base-1.0"
    assert "Licence of the base: CreativeML Open RAIL++-M." in text
    assert "at commit abc" in text
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        compile(code, "card", "exec")
    assert model_card.licence(model.model_copy(update={"source": "x/y"})).startswith(
        "not known here"
    )


def test_a_base_in_a_folder_says_its_licence_itself(model, tmp_path):
    (tmp_path / "README.md").write_text("# A base\nLicense: CC0, drawn here \n")

    assert (
        model_card.licence(model.model_copy(update={"source": str(tmp_path)}))
        == "CC0, drawn here"
    )


def test_what_came_from_outside_stays_in_its_cell(page, subject):
    assert model_card.cell("a | b\n<script>") == r"a \| b \<script\>"
    text = model_card.render(page, subject)
    for row in [line for line in text.splitlines() if line.startswith("| ")]:
        cells = re.split(r"(?<!\\)\|", row)
        assert len(cells) in {4, 5, 6}, row


def test_a_card_names_the_certificate_and_what_fails(page, certified, subject):
    assert "has no certificate" in model_card.render(page, subject)

    text = model_card.render(certified, subject)

    assert certified.certificate.version in text
    assert "light (fails the control recompressed)" in text
    corrected = certified.corrected["cpo-s"].negatives
    shown = f"{corrected.estimate:.2f} [{corrected.low:.2f}, {corrected.high:.2f}]"
    assert "corrected for the judge's errors, 1 of 2 criteria" in text
    assert shown in text


@pytest.mark.parametrize(
    ("source", "published", "name"),
    [
        ("base/starter", None, "base/starter"),
        ("/home/ann/models/sdxl", None, "sdxl"),
        ("../models/sdxl", None, "sdxl"),
        ("~/models/sdxl", None, "sdxl"),
        ("/home/ann/models/sdxl", "a/b", "a/b"),
        ("a/b", None, "a/b"),
    ],
)
def test_a_base_is_called_by_no_place_on_a_machine(model, source, published, name):
    changed = {"source": source, "published": published}

    assert public_name(model.model_copy(update=changed)) == name
