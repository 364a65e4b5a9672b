import pytest

from tasks.run import progress


@pytest.fixture
def clock(monkeypatch):
    """The seconds that have passed, settable; starts at 100."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


def test_a_line_every_five_seconds_with_rate_and_eta(clock, capsys):
    with progress.bar("sft", 300, "images") as report:
        for step in range(10, 41, 10):
            clock.now += 2.5
            report(step, {"loss": 1.2 / step, "drift": 0.123456})

    # From step 10 at 2.5 s to step 40 at 10 s: 30 in 7.5 s is 4 a second; 260 are left.
    assert capsys.readouterr().err.splitlines() == [
        "sft: step 20/300 · loss 0.06 · drift 0.1235 · 4 images/s · ETA 1:10",
        "sft: step 40/300 · loss 0.03 · drift 0.1235 · 4 images/s · ETA 1:05",
        "sft: step 300/300 · took 0:10",
    ]


def test_the_last_values_stay_and_only_the_first_few_are_shown(clock, capsys):
    with progress.bar("cpo", 300, "steps") as report:
        for values in ({"loss": 1.0, "a": 2.0, "b": 3.0, "c": 4.0}, {}):
            clock.now += 5
            report(1, values)

    shown = capsys.readouterr().err.splitlines()
    assert shown[:2] == ["cpo: step 1/300 · loss 1 · a 2 · b 3"] * 2


def test_work_that_stops_in_between_is_not_called_finished(clock, capsys):
    with pytest.raises(KeyboardInterrupt), progress.bar("cpo", 300, "steps"):
        raise KeyboardInterrupt

    assert capsys.readouterr().err == ""


def test_a_resumed_run_is_not_taken_for_a_fast_one(clock, capsys):
    with progress.bar("sft", 300, "steps") as report:
        for step in (201, 206):
            clock.now += 5
            report(step, {})

    # 5 steps in 5 s; 94 are left.
    assert "sft: step 206/300 · 1 steps/s · ETA 1:34" in capsys.readouterr().err


def test_hours_are_written_as_hours(clock, capsys):
    with progress.bar("sft", 10_000, "steps") as report:
        for step in (1, 2):
            clock.now += 5
            report(step, {})

    assert "ETA 13:53:10" in capsys.readouterr().err  # 9998 steps of 5 s


def test_on_a_terminal_it_is_a_bar(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")

    with progress.bar("sft", 4, "images") as report:
        for step in range(1, 5):
            report(step, {"loss": 0.5})

    said = capsys.readouterr().err
    assert "━" in said
    assert "step 4/4 · loss 0.5" in said


def test_work_that_reports_before_its_first_unit_says_at_once_that_it_has_begun(clock, capsys):
    with progress.bar("text embeddings", 900, "prompts") as report:
        report(0, {})
        clock.now += 400
        report(1, {})

    assert capsys.readouterr().err.splitlines()[:2] == [
        "text embeddings: step 0/900",
        "text embeddings: step 1/900",
    ]
