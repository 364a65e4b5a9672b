import random
import sqlite3
import threading
import time

import pytest
from typer.testing import CliRunner

from cli.app import app
from survey import files

CHOICES = ("left", "same", "right")


def any_choice(seen):
    return random.choice(CHOICES)


def stored(study):
    """Every row, read by another program than ours: rater, question, answer."""
    file = files.folder(study.name) / "votes.db"
    with sqlite3.connect(file) as connection:
        rows = connection.execute("SELECT invitation, question, choice FROM votes")
        return sorted(rows.fetchall())


def killed_while_answering(study, book, server, crowd, person, *, count, kills, pause):
    """Let ``count`` people answer while the server is killed; return them by number."""
    invited = book.invite(study, "experts", count)
    book.close()
    server.start()
    people = {number: person(server.address, token, any_choice) for number, token in invited}
    answering = threading.Thread(target=crowd, args=(list(people.values()),))
    answering.start()
    done = 0
    while answering.is_alive() and done < kills:
        time.sleep(random.uniform(*pause))
        server.kill()
        done += 1
        server.start()
    answering.join()
    server.stop()
    return people, done


def check_nothing_is_lost(study, book, people):
    sheets = {rater.number: study.sheets[rater.group][rater.sheet] for rater in book.raters()}
    rows = stored(study)
    assert len(rows) == len({row[:2] for row in rows}) == sum(map(len, sheets.values()))
    there = {(number, question + 1): choice for number, question, choice in rows}
    for number, one in people.items():
        # A vote whose acknowledgement the kill swallowed is stored, and asked no more.
        assert len(one.acknowledged) <= len(sheets[number])
        for question, choice in one.acknowledged.items():
            assert there[number, question] == choice
    return sum(len(one.acknowledged) for one in people.values())


def test_what_was_acknowledged_is_there_once_though_the_server_was_killed(
    study, book, server, crowd, person
):
    people, kills = killed_while_answering(
        study, book, server, crowd, person, count=12, kills=2, pause=(0.1, 0.3)
    )

    assert check_nothing_is_lost(study, book, people) > 0
    assert kills >= 1


@pytest.fixture
def long_sheets(wanted):
    wanted |= {"pairs": 6, "pairs_each": 6, "checks": 2, "repeats": 2}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("long_sheets")
def test_two_hundred_people_and_ten_kills(study, book, server, crowd, person):
    people, kills = killed_while_answering(
        study, book, server, crowd, person, count=200, kills=10, pause=(0.5, 2.0)
    )

    acknowledged = check_nothing_is_lost(study, book, people)
    assert len(people) == 200
    assert kills == 10
    assert acknowledged > 0.9 * 200 * 16


def say(*words):
    return CliRunner().invoke(app, ["survey", *words])


def test_it_listens_to_this_machine_alone_unless_told_otherwise(study, monkeypatch):
    import uvicorn

    told = {}
    monkeypatch.setattr(uvicorn, "run", lambda app, **settings: told.update(settings))

    said = say("serve", study.name, "--port", "0")
    assert said.exit_code == 2  # no port

    said = say("serve", study.name, "--port", "18123")

    assert said.exit_code == 0
    assert told["host"] == "127.0.0.1"
    assert told["access_log"] is False


def test_a_server_for_others_needs_an_address_that_they_reach(study):
    said = say("serve", study.name, "--host", "0.0.0.0")

    assert said.exit_code == 2
    assert "survey.address is http://127.0.0.1:8100" in said.stderr


def test_a_missing_picture_a_taken_port_or_no_study_is_said_at_once(study, server):
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = say("serve", study.name, "--port", str(other.getsockname()[1]))
    (files.folder(study.name) / "pictures" / study.pictures[0]).unlink()
    lacking = say("serve", study.name)
    absent = say("serve", "winter")
    odd = say("serve", "../trial")

    assert "cannot be opened" in taken.stderr
    assert f"lacks 1 of {len(study.pictures)} pictures" in lacking.stderr
    assert "artifacts/survey/winter/study.json is absent" in absent.stderr
    assert "there is: trial" in absent.stderr
    assert "is not a valid name of a study" in odd.stderr
    assert {one.exit_code for one in (taken, lacking, absent, odd)} == {2}


def test_the_desk_invites_watches_exports_revokes_and_deletes(study, book):
    invited = say("invite", study.name, "--group", "experts", "--count", "2")
    links = [line.split("\t") for line in invited.stdout.splitlines()]
    token = links[0][1].removeprefix("http://127.0.0.1:8100/i/")
    rater = book.whose(token)
    book.agree(rater.number)
    book.vote(rater.number, 0, "right")

    status = say("status", study.name).stdout
    export = say("export", study.name, "1").stdout
    revoked = say("revoke", study.name, "2").stdout
    deleted = say("delete", study.name, "1").stdout

    questions = len(study.sheets["experts"][0])
    assert [number for number, _ in links] == ["1", "2"]
    assert f"1 experts: 1 of {questions}\n" in status
    assert "2 experts: 0 of" in status
    assert "not begun" in status
    assert f"experts: 0 of {len(study.sheets['experts'])} sheets are complete" in status
    assert "right" not in status
    assert '"choice": "right"' in export
    assert revoked == "revoked: 2\n"
    assert deleted == "deleted: invitation 1 with 1 answers\n"
    assert book.whose(token) is None
    assert "no invitation 1" in say("export", study.name, "1").stderr
