import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from atelier.errors import ParamsError
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
family, folder = sys.argv[1:]
together = ranks.join()
told = curve(family, Path(folder), together)
if together.first:
    Path(folder, "told.json").write_text(json.dumps(told))
torch.distributed.destroy_process_group()
"""


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


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_sharding_is_refused_with_what_to_do_instead(monkeypatch, variable):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(variable, "true")

    with pytest.raises(ParamsError, match=r"the network is not sharded here.*--multi_gpu"):
        ranks.join()


def test_large_gradients_are_summed_in_several_buffers(monkeypatch):
    monkeypatch.setattr(ranks, "_BUFFER", 5)
    tensors = [torch.zeros(2), torch.zeros(3), torch.zeros(3), torch.zeros(1).double()]

    groups = list(ranks._groups(tensors))

    assert [[len(tensor) for tensor in group] for group in groups] == [[2, 3], [3], [1]]


@pytest.mark.parametrize("family", ["flux", pytest.param("sdxl-v", marks=pytest.mark.slow)])
def test_two_processes_learn_what_one_does(tmp_path, family):
    import json

    from tests.atelier.training.two import curve

    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        folder.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(20000 + os.getpid() % 20000),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, family, str(folders[1])],
            env={**environment, "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    alone = curve(family, folders[0], ALONE)
    for process in started:
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said
    together = json.loads((folders[1] / "told.json").read_text())

    assert len(together) == len(alone) == 8
    for one, two in zip(alone, together, strict=True):
        assert two == pytest.approx(one, abs=1e-5)
    # The first process alone wrote checkpoints.
    assert len(list(folders[1].glob("step-*"))) == 2
