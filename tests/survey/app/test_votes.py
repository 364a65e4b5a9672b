import hashlib
import sqlite3
import threading

import pytest
import sqlalchemy as sa

from atelier.errors import ArtifactError, ParamsError
from survey import files
from survey.app import votes
from survey.app.votes import OutOfTurnError


def database(study):
    return files.folder(study.name) / "votes.db"


def test_a_token_is_long_and_only_its_hash_is_stored(study, book):
    tokens = [token for _, token in book.invite(study, "experts", 50)]

    assert len(set(tokens)) == 50
    assert {len(token) for token in tokens} == {43}  # 256 bits in base 64
    book.close()
    for file in database(study).parent.glob("votes.db*"):
        assert not [token for token in tokens if token.encode() in file.read_bytes()]
    stored = sqlite3.connect(database(study)).execute("SELECT token_sha256 FROM invitations")
    assert {row[0] for row in stored} == {
        hashlib.sha256(token.encode()).hexdigest() for token in tokens
    }


def test_the_sheets_are_dealt_evenly_and_a_revoked_or_deleted_one_is_dealt_again(study, book):
    sheets = len(study.sheets["experts"])
    book.invite(study, "experts", sheets)
    book.invite(study, "laypeople", 1)
    book.revoke([2])
    book.delete(3)

    book.invite(study, "experts", 3)

    raters = book.raters()
    assert [rater.sheet for rater in raters if rater.number <= sheets] == [0, 1, 3]
    assert [rater.sheet for rater in raters if rater.number > sheets + 1] == [1, 2, 0]
    assert book.whose("nobody") is None


def test_an_unknown_group_is_refused_with_those_there_are(study, book):
    with pytest.raises(ParamsError, match="experts, laypeople"):
        book.invite(study, "critics", 1)


def test_numbers_are_not_given_again(study, book):
    book.invite(study, "experts", 2)
    book.delete(2)

    assert [number for number, _ in book.invite(study, "experts", 1)] == [3]


def test_who_does_not_exist_is_neither_revoked_nor_deleted(study, book):
    book.invite(study, "experts", 1)

    for act in (lambda: book.revoke([1, 7]), lambda: book.delete(7)):
        with pytest.raises(ParamsError, match="no invitation 7"):
            act()
    assert book.raters()[0].revoked is None


def test_deleting_leaves_no_trace_in_the_file(study, book):
    ((number, token),) = book.invite(study, "experts", 1)
    book.agree(number)
    book.vote(number, 0, "right")

    assert book.delete(number) == 1

    book.close()
    digest = hashlib.sha256(token.encode()).hexdigest().encode()
    assert not [
        one for one in database(study).parent.glob("votes.db*") if digest in one.read_bytes()
    ]


def test_one_vote_sent_by_many_at_once_is_one_row(study, book):
    book.invite(study, "experts", 1)
    errors = []

    def send():
        try:
            book.vote(1, 0, "left")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=send) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not errors
    assert [(one.question, one.choice, one.changes) for one in book.of(1)] == [(0, "left", 0)]


def test_questions_are_answered_in_turn(study, book):
    book.invite(study, "experts", 1)

    with pytest.raises(OutOfTurnError):
        book.vote(1, 1, "left")
    book.vote(1, 0, "left")
    book.vote(1, 1, "left")
    with pytest.raises(OutOfTurnError):
        book.vote(1, 0, "right")


def test_votes_are_synced_to_disk_before_they_are_acknowledged(study, book):
    book.invite(study, "experts", 1)
    with book._engine.connect() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        }

    assert settings == {
        "journal_mode": "wal",
        "synchronous": 2,  # FULL
        "foreign_keys": 1,
        "secure_delete": 1,
    }


def test_votes_on_another_study_are_refused(study, book):
    book.close()
    file = files.folder(study.name) / "study.json"
    file.write_text(file.read_text().replace('"raters": 2', '"raters": 3'))

    with pytest.raises(ArtifactError, match="another study"):
        votes.opened(study.name)


def test_any_database_that_sqlalchemy_knows(study, tmp_path, monkeypatch):
    monkeypatch.setenv(votes.DATABASE, f"sqlite:///{tmp_path}/elsewhere/votes.db")

    votes.opened(study.name).close()

    assert (tmp_path / "elsewhere/votes.db").is_file()
    assert not database(study).exists()


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "oracle9://x",
        "postgresql+psycopg://me:secret@127.0.0.1:1/x",
        "sqlite:////proc/x/y",
    ],
)
def test_a_database_that_cannot_be_opened_is_named_without_its_password(
    study, url, monkeypatch
):
    monkeypatch.setenv(votes.DATABASE, url)

    with pytest.raises(ParamsError, match=votes.DATABASE) as caught:
        votes.opened(study.name)

    assert "secret" not in str(caught.value)


def test_the_tables_fit_other_databases():
    from sqlalchemy.dialects import mysql, postgresql

    for dialect in (postgresql.dialect(), mysql.dialect()):
        for table in votes._tables.sorted_tables:
            assert str(sa.schema.CreateTable(table).compile(dialect=dialect))
