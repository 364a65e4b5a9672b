import json

from pydantic import Field

from atelier.config import schema
from atelier.config.fields import Count, Params
from atelier.config.profile import Profile
from atelier.config.study import StudyParams
from atelier.criteria.tree import Tree

PROFILE = schema.of(Profile, "A profile")
TABLE = {"cpo": {"objectives": {"mine": {"objective": "dpo", "beta": 7}}}}


class Room(Params):
    width: Count
    """Inner width of the room,
    between its walls. [meters]"""
    name: str = "hall"
    height: Count = Field(3)
    """Height. [meters]"""


def test_a_meaning_is_the_string_below_a_field():
    assert schema.meanings(Room) == {
        "width": "Inner width of the room, between its walls. [meters]",
        "height": "Height. [meters]",
    }


def test_a_schema_has_meanings_bounds_and_defaults():
    made = schema.of(Room, "A room")

    assert made["title"] == "A room"
    assert made["required"] == ["width"]
    assert made["additionalProperties"] is False
    assert made["properties"]["width"] == {
        "description": "Inner width of the room, between its walls. [meters]",
        "exclusiveMinimum": 0,
        "type": "integer",
    }


def test_every_setting_has_a_meaning_and_every_number_a_unit():
    sections = list(schema.Settings(PROFILE).sections())
    every = [one for _, _, inside in sections for one in inside]
    numbers = [one for one in every if "integer" in one.type or "number" in one.type]

    assert len(every) > 350
    assert [one.name for one in every if not one.meaning] == []
    assert [one.name for one in numbers if not one.unit] == []
    assert [one.name for one in every if one.unit and one not in numbers] == []


def test_every_field_of_criteria_and_studies_has_a_meaning():
    for made in (schema.of(Tree, ""), schema.of(StudyParams, "")):
        for section in (made, *made["$defs"].values()):
            assert all(one.get("description") for one in section["properties"].values())


def test_a_field_without_a_meaning_is_found():
    (_, _, inside) = next(schema.Settings(schema.of(Room, "")).sections())

    assert [one.name for one in inside if not one.meaning] == ["name"]


def test_values_tell_which_kind_of_section_is_meant():
    settings = schema.Settings(PROFILE)

    assert settings.below("cpo.objectives.mine", TABLE).keys() == {"dpo"}
    assert len(settings.below("cpo.objectives.mine")) > 8
    assert settings.one("cpo.objectives.mine.omega", TABLE) is None
    assert "½" in settings.one("cpo.objectives.mine.beta", TABLE).meaning


def test_a_kind_may_stand_in_a_name():
    one = schema.Settings(PROFILE).one("cpo.objectives.cpo-s.omega")

    assert one.type == "number ≥ 0 or table, each number ≥ 0"
    assert one.default is None


def test_defaults_bounds_and_null_are_told():
    settings = schema.Settings(PROFILE)

    assert settings.one("cpo.objectives.cpo-s.k").default == "null"
    assert settings.one("sft.training.seed").type == "integer ≥ 0, < 4294967296"
    assert settings.one("generate.distilled_guidance").type == "number > 0 or null"
    assert settings.one("model.dtype").type == "`float32` or `bfloat16` or `float16`"
    assert settings.one("model.colour") is None


def test_a_schema_is_json_and_refers_only_to_itself():
    def references(node: object):
        if isinstance(node, dict):
            if "$ref" in node:
                yield node["$ref"]
            for one in node.values():
                yield from references(one)
        if isinstance(node, list):
            for one in node:
                yield from references(one)

    found = set(references(json.loads(json.dumps(PROFILE))))
    assert len(found) > 20
    assert all(one.removeprefix("#/$defs/") in PROFILE["$defs"] for one in found)
