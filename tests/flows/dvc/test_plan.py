import shutil

from flows.dvc import plan, runner, stages


def bring_up(*names):
    """As `dvc repro -s`, in this process."""
    from dvc.repo import Repo

    with Repo(".") as repo:
        for name in names:
            repo.reproduce(name, single_item=True)


def verdicts():
    return {name: one.verdict for name, one in plan.look(stages.read()).items()}


def reasons(name):
    return plan.look(stages.read())[name].reasons


def colour(repository, name):
    (repository / "params/starter.yaml").write_text(f"colour: {name}\n")


def test_before_the_first_run_everything_would_run(repository):
    assert verdicts() == {"draw": "run", "train": "run", "look": "run"}
    assert reasons("draw") == ("it never ran",)


def test_what_changed_is_said_with_both_values(repository):
    bring_up("draw", "train", "look")
    assert set(verdicts().values()) == {"up to date"}

    colour(repository, "blue")

    assert verdicts() == {"draw": "run", "train": "depends", "look": "depends"}
    assert reasons("draw") == ("colour: red → blue",)
    assert reasons("look") == ("what draw, train will make",)


def test_a_former_run_is_restored_and_the_look_goes_on_behind_it(repository):
    bring_up("draw", "train", "look")
    colour(repository, "blue")
    bring_up("draw", "train")

    colour(repository, "red")

    assert verdicts() == {"draw": "restore", "train": "restore", "look": "up to date"}
    assert reasons("train") == ("out/draw will be another one",)


def test_a_lost_out_is_restored_from_the_cache_and_run_without_one(repository):
    bring_up("draw")
    (repository / "out/draw").unlink()
    assert verdicts()["draw"] == "restore"
    assert reasons("draw") == ("out/draw is deleted",)

    shutil.rmtree(repository / ".dvc/cache/files")

    assert verdicts()["draw"] == "run"


def test_a_changed_command_and_a_changed_file_are_told_apart(repository):
    bring_up("draw", "train")
    work = repository / "work.py"
    dvc_yaml = repository / "dvc.yaml"
    dvc_yaml.write_text(dvc_yaml.read_text().replace("python work.py", "python  work.py"))
    assert reasons("train") == ("its command changed",)
    dvc_yaml.write_text(
        dvc_yaml.read_text().replace(
            "python  work.py\n    deps:", "python work.py\n    deps:\n    - work.py"
        )
    )
    bring_up("train")

    work.write_text(work.read_text() + "# more\n")

    assert reasons("train") == ("work.py is modified",)


def test_what_the_plan_says_is_what_dvc_does(repository):
    bring_up("draw", "train", "look")
    colour(repository, "blue")
    bring_up("draw", "train")
    colour(repository, "red")
    said, did = verdicts(), {}
    words = {"up to date": "UpToDate", "restore": "RunCached", "run": "Ran"}

    for stage in stages.read():
        did[stage.name] = runner.run(stage, force=False, more={}, tell=lambda line: None)

    assert did == {name: words[verdict] for name, verdict in said.items()}
