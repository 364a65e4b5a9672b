import time
from pathlib import Path

import pytest
import yaml

from atelier import reading
from atelier.reading import UnreadableError, json_values, short, yaml_values

PARAMS = Path(__file__).parents[2] / "params"


def bomb(levels):
    """A page of aliases in which each level stands for nine of the one before."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


def test_our_own_files_say_what_pyyaml_reads_of_them():
    for file in PARAMS.glob("*.yaml"):
        text = file.read_text()
        assert yaml_values(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 50_000, "nested too deeply"),
        ("{a: " * 50_000, "nested too deeply"),
        (bomb(9), "stands for more than 200000 values"),
        ("&a {again: *a}", "stands for itself"),
        ("a: " + "1" * 5000, "is no int"),
        ("a: !!int x", "'x' is no int"),
        ("a: !!float x", "'x' is no float"),
        ("a: !!bool x", "'x' is no bool"),
        ("a: 1\na: 2", "'a' stands twice"),
        ("1: a\n0x1: b", "'0x1' stands twice"),
        ("? [a]\n: b", "plain words"),
        ('a: "\\ud800"', "half of a character"),
        ("a: !!binary YQ==", "could not determine a constructor"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ("a: !!set {b}", "could not determine a constructor"),
        ("a: \x00", "special characters are not allowed"),
    ],
)  # fmt: skip
def test_yaml_that_cannot_be_meant_is_one_error(text, says):
    with pytest.raises(UnreadableError, match=says) as caught:
        yaml_values(text)
    assert len(str(caught.value)) < 1000


def test_a_date_is_a_text_and_a_merge_is_a_merge():
    assert yaml_values("a: 2001-99-99") == {"a": "2001-99-99"}
    assert yaml_values("a: =") == {"a": "="}
    assert yaml_values("a: &a {x: 1}\nb: {<<: *a, y: 2}") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 2},
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON, Expecting property name .* at column 2"),
        ("[1,\n2,\n!]", "at line 3, column 1"),
        ("[" * 100_000, "nested too deeply"),
        ("1" * 5000, "limit"),
        ("NaN", "NaN is no number"),
        ("-Infinity", "no number"),
        (r'["\ud800"]', "half of a character"),
        (r'{"\udfff": 1}', "half of a character"),
    ],
)
def test_json_that_cannot_be_meant_is_one_error(text, says):
    with pytest.raises(UnreadableError, match=says):
        json_values(text)


def test_both_halves_of_a_character_are_one():
    assert json_values(r'["\ud83d\ude00"]') == ["\N{GRINNING FACE}"]


def test_a_value_in_a_message_is_short_however_large_it_is():
    shared = [1] * 9
    for _ in range(30):
        shared = [shared] * 9
    began = time.process_time()
    assert len(short(shared)) < 5000
    assert len(short("x" * 10**6)) <= 200
    assert len(short({str(n): "y" * 1000 for n in range(1000)})) < 2500
    assert time.process_time() - began < 5
    assert reading.writable("ü")
    assert not reading.writable("\udc80")


def test_a_long_word_is_cut_in_the_middle_and_a_long_text_at_its_end():
    assert reading.clipped("no method named 'a'") == "no method named 'a'"
    assert (
        reading.clipped(f"none named {'a' * 100_000}z") == f"none named {'a' * 80}…{'a' * 19}z"
    )
    assert len(reading.clipped("many words " * 10_000)) < 5_000
