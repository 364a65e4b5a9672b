import importlib.util
import math
import re
import sys
import tracemalloc
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageOps

from atelier.criteria import near_duplicates

ROOT = Path(__file__).parents[3]
PAINTINGS = ROOT.parent / "shared/paintings"


def hashes(*positions):
    """One view, with some bits set."""
    flags = np.zeros(256, np.uint8)
    flags[list(positions)] = 1
    return np.packbits(flags).view(np.uint64)[None]


@pytest.fixture(params=[False, True], ids=["", "as of very many"])
def many_pictures(request, monkeypatch):
    """Whether pieces are as long as of more pictures than fit here."""
    if request.param:
        monkeypatch.setattr(near_duplicates, "_piece_bits", lambda count: 20)


def test_neighbors_within_the_distance_are_one_group_and_chains_hold():
    # distances: 0-1 is 2, 1-2 is 2, 0-2 is 4, 3 is far from all
    four = np.stack([hashes(), hashes(0, 99), hashes(0, 99, 180, 255), hashes(*range(100))])

    assert len(set(near_duplicates.near_duplicates(four, 1))) == 4
    labels = near_duplicates.near_duplicates(four, 2)
    assert labels[0] == labels[1] == labels[2] != labels[3]


@pytest.mark.parametrize("bits", [0, 3, 7, 15, 16, 36])
def test_groups_are_those_of_comparing_every_pair(bits):
    random = np.random.default_rng(0)
    centers = random.integers(0, 2**64, (40, 2, 4), dtype=np.uint64)
    flips = np.uint64(1) << random.integers(0, 64, (300, 2, 4), dtype=np.uint64)
    many = centers[random.integers(0, 40, 300)] ^ flips

    labels = near_duplicates.near_duplicates(many, bits)

    unpacked = np.unpackbits(many.view(np.uint8).reshape(300, 2, 32), axis=2)
    apart = (unpacked[:, None, :1] != unpacked[None]).sum(3).min(2)
    reach = np.minimum(apart, apart.T) <= bits
    for _ in range(9):  # paths of up to 2^9 steps
        reach = reach.astype(int) @ reach.astype(int) > 0
    np.testing.assert_array_equal(labels[:, None] == labels[None], reach)


@pytest.mark.parametrize("bits", [3, 36])
@pytest.mark.parametrize(
    "changed",
    [{"_MANY": 100}, {"_TABLES": 1}, {"_PICTURES": 7, "_ROWS": 5}, {"_CONNECTED": 1}],
    ids=lambda one: "-".join(one),
)
def test_groups_are_the_same_however_many_are_looked_at_at_once(bits, changed, monkeypatch):
    random = np.random.default_rng(3)
    centers = random.integers(0, 2**64, (60, 3, 4), dtype=np.uint64)
    flips = np.uint64(1) << random.integers(0, 64, (400, 3, 4), dtype=np.uint64)
    many = centers[random.integers(0, 60, 400)] ^ flips
    expected = near_duplicates.near_duplicates(many, bits)

    for name, value in changed.items():
        monkeypatch.setattr(near_duplicates, name, value)

    np.testing.assert_array_equal(near_duplicates.near_duplicates(many, bits), expected)


def test_the_tables_of_one_turn_alone_are_held(monkeypatch):
    many = np.random.default_rng(4).integers(0, 2**64, (500, 1, 4), dtype=np.uint64)
    pieces = list(near_duplicates._pieces(20, 36))
    monkeypatch.setattr(near_duplicates, "_piece_bits", lambda count: 20)
    monkeypatch.setattr(near_duplicates, "_TABLES", 4 * 4 * 2**20 + 4 * 4 * 500)  # of four

    most = []
    for count in (4, 12):
        monkeypatch.setattr(near_duplicates, "_pieces", lambda *_, n=count: iter(pieces[:n]))
        tracemalloc.start()
        near_duplicates.near_duplicates(many, 36)
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert most[0] > 4 * 4 * 2**20
    assert most[1] < 1.35 * most[0]  # and the last of the turn before


def test_a_label_is_the_first_of_its_group():
    labels = near_duplicates.connect(
        np.array([0, 1, 1, 3, 4]), np.array([4, 2]), np.array([3, 0])
    )

    assert labels.tolist() == [0, 0, 0, 3, 3]


@pytest.mark.parametrize("length", [16, 20, 24])
def test_pieces_hold_other_bits_each_and_leave_no_pair_out_by_more_than_chance(length):
    pieces = list(near_duplicates._pieces(length, 36))

    first = pieces[: 256 // length]
    assert len({bit for piece in first for bit in piece}) == 256 // length * length
    kept = math.comb(256 - length, 36) / math.comb(256, 36)
    assert (1 - kept) ** len(pieces) <= 0.001 < (1 - kept) ** (len(pieces) - len(first))


def test_pairs_at_the_largest_distance_are_hardly_ever_missed(many_pictures):
    random = np.random.default_rng(1)
    many = random.integers(0, 2**64, (2000, 1, 4), dtype=np.uint64)
    flat = np.unpackbits(many.view(np.uint8).reshape(2000, 32), axis=1)
    for row in range(1000):
        flat[1000 + row] = flat[row]
        flat[1000 + row, random.choice(256, 36, replace=False)] ^= 1
    many = np.packbits(flat, axis=1).view(np.uint64)[:, None]

    labels = near_duplicates.near_duplicates(many, 36)

    assert (labels[:1000] == labels[1000:]).sum() >= 995  # 999 expected
    assert len(set(labels[:1000].tolist())) == 1000


def test_not_every_pair_is_compared(monkeypatch):
    compared = []
    count = np.bitwise_count
    monkeypatch.setattr(
        near_duplicates.np,
        "bitwise_count",
        lambda bits: (compared.append(len(bits)), count(bits))[1],
    )
    many = np.random.default_rng(0).integers(0, 2**64, (4000, 4, 4), dtype=np.uint64)

    near_duplicates.near_duplicates(many, 36)

    assert sum(compared) < 4000 * 4000 * 4 / 100


def test_candidates_are_compared_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr(near_duplicates, "_CANDIDATES", 50)
    random = np.random.default_rng(2)
    many = np.repeat(hashes(3, 4)[None], 100, axis=0) ^ (
        np.uint64(1) << random.integers(0, 64, (100, 1, 4), dtype=np.uint64)
    )

    assert len(set(near_duplicates.near_duplicates(many, 8).tolist())) == 1


def test_many_equal_pictures_are_one_group():
    equal = np.repeat(hashes(3, 4)[None], 1000, axis=0)

    assert len(set(near_duplicates.near_duplicates(equal, 0))) == 1


def painting(seed, side=160):
    """Something smooth, as paintings are, and unlike any other."""
    rough = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(rough).resize((side, side), Image.Resampling.BICUBIC)


def test_the_whole_and_its_mirror_image_are_those_of_imagehash():
    for seed in range(5):
        picture = painting(seed, 128)
        for view, theirs in zip(
            near_duplicates.views(picture), (picture, ImageOps.mirror(picture)), strict=False
        ):
            expected = imagehash.phash(theirs, 16).hash.ravel()
            ours = np.unpackbits(view.view(np.uint8)).astype(bool)
            assert (ours != expected).sum() <= 4  # half a gray value moves bits at the median


def loaded():
    # Some package of the environment installs a `benchmarks` of its own.
    file = ROOT / "benchmarks/near_duplicates.py"
    spec = importlib.util.spec_from_file_location("near_duplicates_measured", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["near_duplicates_measured"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "kind", [kind for kind in loaded().CHANGES if not re.search("10%|corner|4, 1", kind)]
)
def test_planted_copies_are_found_and_nothing_else(kind):
    """The first version found re-encodings at its 12 bits, and no mirror image at any."""
    originals = [painting(seed) for seed in range(25)]
    copies = [loaded().CHANGES[kind](original) for original in originals[:10]]
    every = np.stack([near_duplicates.views(one) for one in [*originals, *copies]])

    labels = near_duplicates.near_duplicates(every, 36)

    assert len(set(labels[:25].tolist())) == 25
    found = (labels[:10] == labels[25:]).sum()
    assert found >= 9


@pytest.mark.slow
@pytest.mark.skipif(not PAINTINGS.is_dir(), reason="no paintings beside the repository")
def test_copies_of_real_paintings_are_found_as_the_document_says(monkeypatch):
    measured = loaded()
    monkeypatch.setattr(measured.parallel, "cores", lambda: 1)  # workers cannot import it
    files = sorted(PAINTINGS.rglob("*.jpg"))

    copies, unlike = measured.measure(files)

    assert unlike[0] > 36
    printed = (ROOT / "docs/split.md").read_text(encoding="utf-8")
    for line in measured.table(copies, unlike).splitlines():
        assert line in printed
