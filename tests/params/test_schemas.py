import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from tasks.commands import settings

PARAMS = Path(__file__).parents[2] / "params"
KINDS = {
    file: "study" if file.stem.startswith("study") else "profile"
    for file in PARAMS.glob("*.yaml")
    if file.stem != "profile"
} | dict.fromkeys((PARAMS / "criteria").glob("*.yaml"), "criteria")


def test_the_schemas_are_what_the_code_says():
    for name, text in settings.texts().items():
        assert (PARAMS / "schema" / name).read_text(encoding="utf-8") == text, (
            "run `atelier settings schema`, and read the difference"
        )


@pytest.mark.parametrize("file", sorted(KINDS), ids=lambda file: file.stem)
def test_every_file_fits_its_schema(file):
    schema = json.loads((PARAMS / "schema" / f"{KINDS[file]}.json").read_text("utf-8"))
    values = yaml.safe_load(file.read_text(encoding="utf-8"))

    jsonschema.validate(values, schema)
    with pytest.raises(jsonschema.ValidationError, match="mistyped"):
        jsonschema.validate({**values, "mistyped": 1}, schema)


@pytest.mark.parametrize("file", sorted(set(KINDS) - {*PARAMS.glob("criteria/*")}))
def test_an_editor_finds_the_schema_by_the_first_line(file):
    first, *_ = file.read_text(encoding="utf-8").splitlines()

    assert first == f"# yaml-language-server: $schema=schema/{KINDS[file]}.json"


@pytest.mark.parametrize("file", sorted(f for f, kind in KINDS.items() if kind == "profile"))
def test_every_profile_says_what_it_needs_and_what_was_run(file):
    head = file.read_text(encoding="utf-8").partition("\nmodel:")[0]

    assert "# Needs" in head
    assert "# Run here: " in head
