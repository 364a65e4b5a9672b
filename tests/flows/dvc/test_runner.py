import pytest

from flows.dvc import runner, stages


@pytest.fixture
def run(repository):
    """A function that brings one stage up to date; returns what DVC did, and the lines."""

    def run(name, force=False):
        lines = []
        stage = next(stage for stage in stages.read() if stage.name == name)
        outcome = runner.run(stage, force=force, more={}, tell=lines.append)
        return outcome, lines

    return run


def test_ran_restored_and_up_to_date_are_told_apart(repository, run):
    params = repository / "params/starter.yaml"

    assert run("draw")[0] == "Ran"
    assert run("draw")[0] == "UpToDate"
    assert run("draw", force=True)[0] == "Ran"
    params.write_text("colour: blue\n")
    assert run("draw")[0] == "Ran"
    params.write_text("colour: red\n")
    assert run("draw")[0] == "RunCached"


def test_only_the_stage_itself_is_run(repository, run):
    run("draw")
    outcome, lines = run("train")

    assert outcome == "Ran"
    assert "train: step 4/4 · loss 0.25 · 3 images/s · ETA 0:01" in lines
    assert not (repository / "out/look").exists()


def test_a_failure_says_what_the_stage_said_and_that_a_retry_is_in_vain(repository, run):
    run("draw")
    (repository / "break").touch()

    with pytest.raises(runner.StageFailedError, match="run `dvc repro draw`") as failure:
        run("train")

    assert failure.value.final


def test_stages_run_at_once_do_not_lose_each_others_results(repository, run):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(lambda _: run("draw")[0], range(3)))

    assert "Ran" in outcomes
    assert run("draw")[0] == "UpToDate"


def test_a_step_is_read_from_a_progress_line():
    line = "text embeddings: step 40/300 · loss 0.12 · ETA 1:10"

    assert runner.step(line) == runner.Step(
        "text embeddings", pytest.approx(13.333, abs=1e-3), "loss 0.12 · ETA 1:10"
    )
    assert runner.step("sft: step 3/3") == runner.Step("sft", 100.0, "")
    assert runner.step("one step 3/4") is None
