import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from atelier.errors import ParamsError
from atelier.models.adapters import FILE
from atelier.training import ranks
from atelier.training.ranks import ALONE, Ranks

ROOT = Path(__file__).parents[3]

# A process of its own: it trains the toy as the parent does, with the launcher's variables.
PROCESS = """
import json, sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from tests.atelier.training.two import curve
from atelier.training import ranks
family, folder, images, checkpointing = sys.argv[1:]
together = ranks.join()
told = curve(family, Path(folder), together, int(images), checkpointing == "True")
Path(folder, f"told-{together.rank}.json").write_text(json.dumps(told))
torch.distributed.destroy_process_group()
"""


def assert_close(found, expected):
    """Reports of two ways to sum: a hundred times what that was seen to make of them."""
    for one, two in zip(found, expected, strict=True):
        # Nobody knows on which side rounding puts the margin of a policy that is its reference.
        assert one | {"accuracy": 0} == pytest.approx(two | {"accuracy": 0}, rel=1e-3, abs=1e-3)


def assert_near(found, expected):
    """LoRAs by their length: Adam makes large steps of gradients that are rounding alone."""
    one, two = (
        torch.cat([tensor.flatten() for _, tensor in sorted(weights.items())])
        for weights in (found, expected)
    )
    assert (one - two).norm() < 0.01 * two.norm()


@pytest.mark.parametrize("images", [3, 4, 7])
@pytest.mark.parametrize("at_once", [None, 1, 2])
def test_parts_cover_the_batch_once_between_all_processes(images, at_once):
    parts = [part for rank in range(3) for part in Ranks(rank, 3).parts(images, at_once)]

    assert [row for part in parts for row in range(part.start, part.stop)] == list(
        range(images)
    )
    assert all(part.stop - part.start <= (at_once or images) for part in parts)


def test_alone_the_batch_is_one_part():
    assert ALONE.parts(32, None) == [slice(0, 32)]


def test_more_processes_than_images_are_refused():
    with pytest.raises(ParamsError, match="batch_images is 2, fewer than the 4 processes"):
        Ranks(0, 4).parts(2, None)


@pytest.mark.parametrize("variable", ["FSDP_OFFLOAD_PARAMS", "ACCELERATE_USE_DEEPSPEED"])
def test_other_kinds_of_sharding_are_refused_with_what_to_do_instead(monkeypatch, variable):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(variable, "true")

    with pytest.raises(ParamsError, match=rf"{variable} is true.*--multi_gpu.*--use_fsdp"):
        ranks.join()


def test_processes_that_share_the_base_must_make_as_many_passes_each():
    assert Ranks(1, 2, sharded=True).parts(6, 2) == [slice(3, 5), slice(5, 6)]
    with pytest.raises(ParamsError, match="is 5, not a multiple of the 2 processes"):
        Ranks(0, 2, sharded=True).parts(5, 2)


def test_large_gradients_are_summed_in_several_buffers(monkeypatch):
    monkeypatch.setattr(ranks, "_BUFFER", 5)
    tensors = [torch.zeros(2), torch.zeros(3), torch.zeros(3), torch.zeros(1).double()]

    groups = list(ranks._groups(tensors))

    assert [[len(tensor) for tensor in group] for group in groups] == [[2, 3], [3], [1]]


@pytest.mark.parametrize("family", ["flux", pytest.param("sdxl-v", marks=pytest.mark.slow)])
def test_two_processes_learn_what_one_does(tmp_path, family):
    with two_processes(tmp_path / "two", family, images=5) as ended:
        alone = one_process(tmp_path / "one", family, images=5)
        together, _ = ended()

    assert len(together) == len(alone) == 8
    assert_close(together, alone)
    # The first process alone wrote checkpoints.
    assert len(list((tmp_path / "two").glob("step-*"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("family", ["flux", "sdxl-v"])
def test_two_processes_with_half_of_the_base_each_learn_what_one_does(tmp_path, family):
    with two_processes(tmp_path / "two", family, images=6, sharded=True) as ended:
        alone = one_process(tmp_path / "one", family, images=6)
        together, held = ended()

    assert held == pytest.approx([0.5, 0.5], abs=0.02)
    assert len(together) == len(alone) == 8
    assert_close(together, alone)
    one, two = (load_file(tmp_path / name / FILE) for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert_near(two, one)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", ["flux", "sdxl-v", "sd3"])
def test_shares_of_the_base_change_nothing_but_rounding(tmp_path, family, checkpointing):
    told = {}
    for sharded in (False, True):
        folder = tmp_path / str(sharded)
        with two_processes(
            folder, family, images=6, checkpointing=checkpointing, sharded=sharded
        ) as ended:
            told[sharded] = ended()

    (whole, held), (shared, _) = told[False], told[True]
    assert held == [1.0, 1.0]
    assert_close(shared, whole)
    one, two = (load_file(tmp_path / name / FILE) for name in ("False", "True"))
    for name, weight in one.items():
        assert torch.allclose(two[name], weight, rtol=0, atol=1e-5), name


def one_process(folder, family, *, images):
    from tests.atelier.training.two import curve

    folder.mkdir()
    told, _ = curve(family, folder, ALONE, images)
    return told


@contextlib.contextmanager
def two_processes(folder, family, *, images, checkpointing=False, sharded=False):
    """Start both; inside, a function that waits: the curve, and what share each one holds."""
    folder.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(20000 + os.getpid() % 20000),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_FSDP": str(sharded).lower(),
    }
    words = [family, str(folder), str(images), str(checkpointing)]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, *words],
            env={**environment, "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]

    def ended():
        for process in started:
            _, said = process.communicate(timeout=200)
            assert process.returncode == 0, said
        told = [json.loads((folder / f"told-{rank}.json").read_text()) for rank in (0, 1)]
        return told[0][0], [held for _, held in told]

    try:
        yield ended
    finally:
        for process in started:
            process.kill()
