import hashlib

import pytest

from atelier.config.pairs import AnnotationPairs
from atelier.criteria import pairs
from atelier.criteria.annotations import Record
from atelier.errors import ArtifactError


def record(name, caption, negatives, positives=1):
    return Record(
        image=hashlib.sha256(name.encode()).hexdigest(),
        file=f"{name}.png",
        caption=caption,
        positive=[f"good/{n}" for n in range(positives)],
        negative=[f"bad/{n}" for n in range(negatives)],
    )


def rule(**more):
    values = {"caption_similarity": 1.0, "neighbours": 1, "ties": "dropped"} | more
    return AnnotationPairs(source="annotations", **values)


def found(paired):
    return {(pair.win, pair.lose, pair.weight) for pair in paired.pairs}


def test_of_one_caption_fewer_negatives_win():
    records = [record("a", "a sea", 3), record("b", "a sea", 1), record("c", "a hill", 0)]

    paired = pairs.from_annotations(records, rule())

    assert found(paired) == {(1, 0, 1.0)}
    assert paired.pairs[0].caption == "a sea"
    assert paired.counts == {"pairs": 1, "ties": 0, "unjudged": 0, "unmatched": 1}


def test_a_tie_is_left_out_or_enters_both_ways_at_half_weight():
    records = [record("a", "a sea", 2), record("b", "a sea", 2), record("c", "a sea", 0)]

    dropped = pairs.from_annotations(records, rule(neighbours=2))
    halved = pairs.from_annotations(records, rule(neighbours=2, ties="halved"))

    assert found(dropped) == {(2, 0, 1.0), (2, 1, 1.0)}
    assert found(halved) == found(dropped) | {(0, 1, 0.5), (1, 0, 0.5)}
    assert dropped.counts["ties"] == halved.counts["ties"] == 1


def test_a_picture_that_nobody_judged_has_no_negatives_and_wins_nothing():
    records = [record("a", "a sea", 0, positives=0), record("b", "a sea", 2)]

    with pytest.raises(ArtifactError, match="unjudged 1, unmatched 1"):
        pairs.from_annotations(records, rule())


def test_each_picture_meets_so_many_neighbours_and_nobody_twice():
    records = [record(f"p{n}", "a sea", n) for n in range(7)]

    one = pairs.from_annotations(records, rule())
    three = pairs.from_annotations(records, rule(neighbours=3))
    every = pairs.from_annotations(records, rule(neighbours=50))

    assert len(one.pairs) == 7
    assert len(found(three)) == len(three.pairs) == 21 == len(every.pairs)
    assert all(win < lose for win, lose, _ in found(three))


def test_pairs_do_not_depend_on_the_order_of_the_records():
    records = [record(f"p{n}", f"a sea {n % 3}", n % 5) for n in range(20)]
    backwards = records[::-1]

    def named(of):
        paired = pairs.from_annotations(of, rule(neighbours=2))
        return {(of[pair.win].file, of[pair.lose].file) for pair in paired.pairs}

    assert named(records) == named(backwards)


def test_a_lone_picture_meets_those_of_the_nearest_caption_if_it_is_near_enough():
    records = [
        record("a", "a calm sea in blue", 2),
        record("b", "a calm sea in red", 0),  # 4 of 6 words in common with a's
        record("c", "portrait", 5),
    ]

    far = pairs.from_annotations
    near = pairs.from_annotations(records, rule(caption_similarity=0.6))

    assert found(near) == {(1, 0, 1.0)}
    assert near.pairs[0].caption == "a calm sea in red"  # the winner's
    assert near.counts["unmatched"] == 1
    with pytest.raises(ArtifactError, match=r"lower cpo\.pairs\.caption_similarity"):
        far(records, rule(caption_similarity=0.7))


@pytest.fixture
def data(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(b"picture")
    return tmp_path


def table(data, text):
    (data / "pairs.csv").write_text(text, encoding="utf-8")
    return data / "pairs.csv"


RECORDS = [record("a", "a sea", 0), record("b", "a sea", 0)]


def test_a_table_names_winner_loser_and_caption(data):
    file = table(data, "\ufefffile_win,file_lose,caption,note\nb.png,a.png,a quiet sea,x\n")

    paired = pairs.from_table(file, RECORDS, data)

    assert found(paired) == {(1, 0, 1.0)}
    assert paired.pairs[0].caption == "a quiet sea"


def test_a_pair_with_a_picture_outside_of_the_training_part_is_held_out(data):
    file = table(data, "file_win,file_lose,caption\nb.png,a.png,sea\nc.png,a.png,sea\n")

    paired = pairs.from_table(file, RECORDS, data)

    assert paired.counts == {"pairs": 1, "held_out": 1}
    with pytest.raises(ArtifactError, match=r"no pair of which both .* \(2 have one elsewhere"):
        pairs.from_table(file, RECORDS[:1], data)


def test_all_mistakes_of_a_table_are_named_by_their_lines(data):
    file = table(
        data, "file_win,file_lose,caption\na.png,a.png,sea\nz.png,b.png,\nb.png,a.png,sea\n"
    )

    with pytest.raises(ArtifactError) as caught:
        pairs.from_table(file, RECORDS, data)

    text = str(caught.value)
    assert "line 2: 'a.png' cannot be better than itself" in text
    assert "line 3: caption is empty" in text
    assert f"line 3: file_win 'z.png' is no file of {data}" in text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "has no file_win, file_lose, caption"),
        (b"file_win;file_lose;caption\n", "line 1 should name the columns"),
        (b"file_win,file_lose\n", "has no caption"),
        (b"\xff\xfe\xff", "is not UTF-8"),
    ],
)
def test_a_broken_table_is_one_clear_paragraph(data, content, says):
    (data / "pairs.csv").write_bytes(content)

    with pytest.raises(ArtifactError, match=says):
        pairs.from_table(data / "pairs.csv", RECORDS, data)


def test_an_absent_table_names_its_setting(data):
    with pytest.raises(ArtifactError, match=r"cpo.pairs.table names a CSV"):
        pairs.from_table(data / "pairs.csv", RECORDS, data)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("a" * 5000 + ",b.png,c", "line 2: file_win 'a.* is no file of"),
        ("/etc/passwd,../b.png,c", "line 2: file_win '/etc/passwd' is no file of"),
        ('"a.png', "line [12]: unexpected end of data; is a quote left open"),
        ("a" * 200_000 + ",b.png,c", "field larger than field limit"),
    ],
)
def test_a_table_names_files_of_the_folder_alone(tmp_path, row, says):
    table = tmp_path / "pairs.csv"
    table.write_text(f"file_win,file_lose,caption\n{row}\n")

    with pytest.raises(ArtifactError, match=says) as caught:
        pairs.from_table(table, [record("a", "a sea", 1)], tmp_path)

    assert len(str(caught.value)) < 1000


def test_a_picture_of_a_pair_may_be_spelled_in_another_way(tmp_path):
    for name in ("a.png", "e\u0301.png", "o.png"):
        (tmp_path / name).touch()
    records = [
        record("a", "a sea", 0).model_copy(update={"file": name})
        for name in ("a.png", "e\u0301.png")
    ]
    file = table(
        tmp_path,
        "File_win , file_lose,caption\n./a.png,\u00e9.png ,sea\n,,\n.//o.png,a.png,sea\n",
    )

    paired = pairs.from_table(file, records, tmp_path)

    assert found(paired) == {(0, 1, 1.0)}
    assert paired.counts == {"pairs": 1, "held_out": 1}
    file = table(tmp_path, "file_win,file_lose,caption\n./a.png,a.png,sea\n")
    with pytest.raises(ArtifactError, match="cannot be better than itself"):
        pairs.from_table(file, records, tmp_path)


def test_pairs_may_be_json_lines(data):
    file = data / "pairs.jsonl"
    file.write_text('{"file_win": "b.png", "file_lose": "a.png", "caption": 1984}')

    assert pairs.from_table(file, RECORDS, data).pairs[0].caption == "1984"


def test_a_folder_in_the_place_of_a_table_is_said(tmp_path):
    with pytest.raises(ArtifactError, match="cannot be read: Is a directory"):
        pairs.from_table(tmp_path, [record("a", "a sea", 1)], tmp_path)
