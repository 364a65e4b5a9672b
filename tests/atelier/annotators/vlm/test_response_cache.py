import pytest

from atelier.annotators.vlm.response_cache import Response, ResponseCache
from atelier.errors import AnnotationError


def answer(image="a", asked="q", text="{}", unfit=None, criteria="toy 1"):
    return Response(
        image=image * 64,
        asked=asked,
        topic="judging",
        criteria=criteria,
        text=text,
        unfit=unfit,
        prompt_tokens=10,
        completion_tokens=3,
    )


def texts(cache, image):
    return {asked: one.text for asked, one in cache.of(image * 64).items()}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "answers.jsonl"


def test_fit_answers_are_found_again_and_all_are_summed(path):
    with ResponseCache(path, "toy 1") as cache:
        cache.add(answer(text="é"))
        cache.add(answer(asked="r", unfit="no JSON"))
        cache.add(answer("b", criteria="toy 2"))
        assert texts(cache, "a") == {"q": "é"}

    with ResponseCache(path, "toy 1") as cache:
        assert texts(cache, "a") == {"q": "é"}
        assert texts(cache, "b") == {"q": "{}"}
        assert texts(cache, "c") == {}
        assert (cache.prompt_tokens, cache.completion_tokens) == (20, 6)


def test_a_torn_last_line_is_cut_off(path):
    with ResponseCache(path, "toy 1") as cache:
        cache.add(answer())
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])

    with ResponseCache(path, "toy 1") as cache:
        cache.add(answer(asked="r"))
        assert texts(cache, "a") == {"q": "{}", "r": "{}"}

    assert path.read_bytes().startswith(whole)
    assert path.read_bytes().count(b"\n") == 2


def test_damage_in_its_midst_is_named_and_nothing_is_thrown_away(path):
    with ResponseCache(path, "toy 1") as cache:
        cache.add(answer())
        cache.add(answer(asked="r"))
    damaged = b"{" + path.read_bytes()
    path.write_bytes(damaged)

    with pytest.raises(AnnotationError, match=r"answers.jsonl, line 1 is damaged"):
        ResponseCache(path, "toy 1")

    assert path.read_bytes() == damaged


def test_two_runs_do_not_write_to_one_cache(path):
    with (
        ResponseCache(path, "toy 1"),
        pytest.raises(AnnotationError, match="is in use: another run is asking"),
    ):
        ResponseCache(path, "toy 1")


def test_lines_of_an_earlier_version_are_found_again(path):
    line = answer().model_dump_json(exclude={"answered_by"}) + "\n"
    path.parent.mkdir()
    path.write_text(line)

    with ResponseCache(path, "toy 1") as cache:
        assert texts(cache, "a") == {"q": "{}"}
        assert cache.of("a" * 64)["q"].answered_by is None

    assert path.read_text() == line
