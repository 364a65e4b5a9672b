import pytest

from atelier.annotators.vlm.response_cache import Answer, ResponseCache
from atelier.errors import AnnotationError


def answer(image="a", asked="q", text="{}", unfit=None, criteria="toy 1"):
    return Answer(
        image=image * 64,
        asked=asked,
        topic="judging",
        criteria=criteria,
        text=text,
        unfit=unfit,
        prompt_tokens=10,
        completion_tokens=3,
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "answers.jsonl"


def test_fit_answers_are_found_again_and_all_are_summed(path):
    with ResponseCache(path, "toy 1") as ledger:
        ledger.add(answer(text="é"))
        ledger.add(answer(asked="r", unfit="no JSON"))
        ledger.add(answer("b", criteria="toy 2"))
        assert ledger.of("a" * 64) == {"q": "é"}

    with ResponseCache(path, "toy 1") as ledger:
        assert ledger.of("a" * 64) == {"q": "é"}
        assert ledger.of("b" * 64) == {"q": "{}"}
        assert ledger.of("c" * 64) == {}
        assert (ledger.prompt_tokens, ledger.completion_tokens) == (20, 6)


def test_a_torn_last_line_is_cut_off(path):
    with ResponseCache(path, "toy 1") as ledger:
        ledger.add(answer())
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])

    with ResponseCache(path, "toy 1") as ledger:
        ledger.add(answer(asked="r"))
        assert ledger.of("a" * 64) == {"q": "{}", "r": "{}"}

    assert path.read_bytes().startswith(whole)
    assert path.read_bytes().count(b"\n") == 2


def test_damage_in_its_midst_is_named_and_nothing_is_thrown_away(path):
    with ResponseCache(path, "toy 1") as ledger:
        ledger.add(answer())
        ledger.add(answer(asked="r"))
    damaged = b"{" + path.read_bytes()
    path.write_bytes(damaged)

    with pytest.raises(AnnotationError, match=r"answers.jsonl, line 1 is damaged"):
        ResponseCache(path, "toy 1")

    assert path.read_bytes() == damaged


def test_two_runs_do_not_write_to_one_ledger(path):
    with (
        ResponseCache(path, "toy 1"),
        pytest.raises(AnnotationError, match="is in use: another run is asking"),
    ):
        ResponseCache(path, "toy 1")
