from tests.faults import figures


def test_a_measured_section_is_written_anew_and_the_others_stay():
    kill = {"section": "Kill", "did": "killed", "times": 1000, "came": "the same bytes"}
    disk = {"section": "Disk", "did": "full", "times": 2, "came": "a clear message"}

    first = figures.page([kill | {"times": 400}, disk, kill | {"times": 600}], "")
    second = figures.page([disk | {"times": 3}], first)

    assert "| killed | 1,000 | the same bytes |" in first
    assert "| killed | 1,000 | the same bytes |" in second
    assert "| full | 3 | a clear message |" in second
    assert "| full | 2 |" not in second
    assert [line for line in second.splitlines() if line.startswith("## ")] == [
        f"## {name}" for name in figures.SECTIONS
    ]
    assert figures.page([], second) == second


def test_a_test_that_runs_again_replaces_its_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "FOLDER", tmp_path / "faults")
    for times in (1, 2):
        figures.forget("test_a.py::test[x/y]")
        figures.write_down("test_a.py::test[x/y]", "Kill", "did", times, "came")
    figures.write_down("test_b.py::test", "Disk", "did", 5, "came")

    assert [line["times"] for line in figures._measured()] == [2, 5]


def test_the_page_says_how_long_all_of_it_took_until_all_of_it_runs_again():
    whole = {
        "outcomes": {"passed": 88, "failed": 0},
        "seconds": 1500,
        "workers": 4,
        "load": 5.0,
    }
    disk = {"section": "Disk", "did": "full", "times": 2, "came": "a clear message"}

    first = figures.page([disk], "", whole)

    assert "took 25 minutes with 4 processes" in first
    assert ": 88 passed.\n" in first
    assert figures.page([disk], first) == first
    assert "took 30 minutes" in figures.page([], first, whole | {"seconds": 1800})
    assert figures.page([], first, whole).count("**The whole of it**") == 1
