import threading

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from atelier.errors import ParamsError
from flows.dvc.stages import Meta, Stage
from flows.infra import gpus

TWO = "0, NVIDIA H100, 81559, 80000\n1, NVIDIA H100, 81559, 40000\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that gives this machine other GPUs, by what nvidia-smi prints."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(gpus, "_SECONDS_BETWEEN_TRIES", 0.02)

    def machine(listed):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\nprintf '{listed}'\n")
        program.chmod(0o755)

    machine("")
    return machine


def stage(name="sft", gpu=1, memory=0):
    meta = Meta(gpu=gpu, memory=memory, retries=0, timeout=60, silence=30)
    return Stage(name=name, needs=(), outs=(), about="", meta=meta)


def held(*wanted, tell=print):
    """What each of these stages gets while those before it keep theirs."""
    if not wanted:
        return []
    with gpus.slot(wanted[0], None, tell) as variables:
        return [variables.get("CUDA_VISIBLE_DEVICES"), *held(*wanted[1:], tell=tell)]


def test_two_stages_get_a_gpu_each_and_one_alone_may_get_both(machine):
    machine(TWO)

    assert held(stage(), stage("cpo")) == ["0", "1"]
    assert held(stage(gpu=2)) == ["0,1"]
    assert held(stage(gpu=0)) == [None]


def test_a_training_gets_a_process_for_each_gpu_that_it_holds(machine, monkeypatch):
    monkeypatch.setenv("ATELIER_PROCESSES", "8")  # of a person who meant another machine

    def asked_for(gpu):
        with gpus.slot(stage(gpu=gpu), None, print) as variables:
            return variables

    assert asked_for(2) == {}  # the CPU: what the person says stays
    machine(TWO)
    assert asked_for(2) == {"CUDA_VISIBLE_DEVICES": "0,1", "ATELIER_PROCESSES": "2"}
    assert asked_for(1) == {"CUDA_VISIBLE_DEVICES": "0", "ATELIER_PROCESSES": "1"}
    assert asked_for(0) == {}


def test_a_third_waits_until_one_is_free_and_says_so(machine):
    machine(TWO)
    said, got, leave = [], [], threading.Event()

    def third():
        with gpus.slot(stage("evaluate"), None, said.append) as variables:
            got.append(variables["CUDA_VISIBLE_DEVICES"])

    with gpus.slot(stage(), None, said.append):
        with gpus.slot(stage("cpo"), None, said.append):
            waiting = threading.Thread(target=third)
            waiting.start()
            while not said:
                leave.wait(0.02)
            assert not got
        waiting.join(10)

    assert said == ["evaluate waits for 1 GPU(s) with 0 GiB free"]
    assert got == ["1"]


def test_a_gpu_with_too_little_free_memory_is_passed_over(machine):
    machine(TWO)

    assert held(stage(memory=50)) == ["0"]


def test_what_the_machine_never_has_is_refused_at_once(machine):
    machine(TWO)

    with pytest.raises(ParamsError, match=r"3 GPU(.|\n)*H100 with 80 GiB"):
        held(stage(gpu=3))
    with pytest.raises(ParamsError, match="141 GiB free; this machine"):
        held(stage(memory=141))


def test_only_the_gpus_that_we_were_given_are_handed_out(machine, monkeypatch):
    machine(TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")

    assert held(stage()) == ["1"]


def test_without_a_gpu_the_cpu_is_one_slot(machine):
    assert [one.index for one in gpus.devices()] == [None]
    assert held(stage()) == [None]


def test_a_run_that_starts_a_server_for_itself_asks_no_limit_of_it(monkeypatch):
    """It would wait for ever for the slot of a run that was killed."""
    monkeypatch.setattr(gpus, "ensure_limit", lambda: "gpu-studio")

    with temporary_settings({PREFECT_API_URL: None}):
        assert gpus.limit() is None
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:4200/api"}):
        assert gpus.limit() == "gpu-studio"
