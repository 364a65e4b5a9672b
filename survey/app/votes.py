"""Votes and invitations in a SQL database: one row for each person and question.

A token is shown once, when it is made; the database keeps its SHA-256. A vote is one row
(invitation, question), written in one transaction and synced to disk before it is acknowledged.
"""

import hashlib
import hmac
import os
import secrets
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from atelier.errors import ArtifactError, ParamsError
from survey import files
from survey.files import Study

DATABASE = "ATELIER_SURVEY_DATABASE"  # its URL may hold a password, so no file names it
Choice = Literal["left", "same", "right"]
_BUSY_SECONDS = 15  # to wait for another writer
_CONNECTIONS = 40  # as many as the server has threads

_tables = sa.MetaData()
_about = sa.Table(
    "about",
    _tables,
    sa.Column("study", sa.String(64), primary_key=True),  # sha256 of study.json
)
_invitations = sa.Table(
    "invitations",
    _tables,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("token_sha256", sa.String(64), nullable=False, unique=True),
    sa.Column("group", sa.String(60), nullable=False),
    sa.Column("sheet", sa.Integer, nullable=False),
    sa.Column("made", sa.DateTime, nullable=False),
    sa.Column("agreed", sa.DateTime),  # to take part, having read the first page
    sa.Column("revoked", sa.DateTime),
    sqlite_autoincrement=True,  # the number of a deleted person is not given again
)
_votes = sa.Table(
    "votes",
    _tables,
    sa.Column(
        "invitation",
        sa.ForeignKey("invitations.number", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("question", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("choice", sa.String(5), nullable=False),
    sa.Column("voted", sa.DateTime, nullable=False),
    sa.Column("changes", sa.Integer, nullable=False),  # how often the answer was corrected
)


@dataclass(frozen=True)
class Rater:
    """An invited person."""

    number: int
    group: str
    sheet: int
    made: datetime
    agreed: datetime | None
    revoked: datetime | None


@dataclass(frozen=True)
class Vote:
    """One answer."""

    question: int
    choice: Choice
    voted: datetime
    changes: int


class OutOfTurnError(Exception):
    """A vote on a question that is neither the next one nor the last one answered."""


class Votes:
    """The votes of one study. Made by ``opened``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # SQLite has one writer; waiting in a queue for it is faster than polling.
        self._turn = threading.Lock() if engine.dialect.name == "sqlite" else nullcontext()

    def invite(self, study: Study, group: str, count: int) -> list[tuple[int, str]]:
        """Make ``count`` invitations; return each one's number and token, never seen again.

        Each takes the sheet that fewest others of its group have, revoked ones aside.

        Raises:
            ParamsError: The study has no such group.
        """
        if group not in study.sheets:
            raise ParamsError(
                f"{group!r} is not a group of study {study.name}; its groups are "
                f"{', '.join(study.sheets)}"
            )
        made = []
        with self._writing() as connection:
            taken = self._sheets_taken(connection, group)
            for _ in range(count):
                sheet = min(range(len(study.sheets[group])), key=lambda one: (taken[one], one))
                taken[sheet] += 1
                token = secrets.token_urlsafe(32)
                row = {
                    "token_sha256": _hash(token),
                    "group": group,
                    "sheet": sheet,
                    "made": _now(),
                }
                number = connection.execute(sa.insert(_invitations), row).inserted_primary_key
                assert number is not None
                made.append((int(number[0]), token))
        return made

    def whose(self, token: str) -> Rater | None:
        """Return the invited person of ``token``; None if it is unknown or revoked."""
        wanted = _hash(token)
        query = sa.select(_invitations).where(_invitations.c.token_sha256 == wanted)
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        if row is None or not hmac.compare_digest(str(row["token_sha256"]), wanted):
            return None
        return None if row["revoked"] is not None else _rater(row)

    def raters(self) -> list[Rater]:
        """Return all invited people, in order."""
        query = sa.select(_invitations).order_by(_invitations.c.number)
        with self._engine.connect() as connection:
            return [_rater(row) for row in connection.execute(query).mappings()]

    def agree(self, rater: int) -> None:
        """Record a person's consent on the first page; the first time counts."""
        change = (
            sa.update(_invitations)
            .where(_invitations.c.number == rater, _invitations.c.agreed.is_(None))
            .values(agreed=_now())
        )
        with self._writing() as connection:
            connection.execute(change)

    def answered(self, rater: int) -> int:
        """Return how many questions of the sheet have an answer; they are the first ones."""
        with self._engine.connect() as connection:
            return self._answered(connection, rater)

    def of(self, rater: int) -> list[Vote]:
        """Return a person's votes, in the order of the questions."""
        query = sa.select(_votes).where(_votes.c.invitation == rater).order_by("question")
        with self._engine.connect() as connection:
            return [_vote(row) for row in connection.execute(query).mappings()]

    def vote(self, rater: int, question: int, choice: Choice) -> None:
        """Store an answer; when this returns, it is on disk.

        The next question may be answered, and the last answer corrected. The same vote sent
        again changes nothing, however late it comes.

        Raises:
            OutOfTurnError: It is another question's turn.
        """
        try:
            self._put(rater, question, choice)
        except IntegrityError:
            self._put(rater, question, choice)  # the same vote came twice at once

    def _put(self, rater: int, question: int, choice: Choice) -> None:
        at = (_votes.c.invitation == rater) & (_votes.c.question == question)
        with self._writing() as connection:
            before = connection.execute(sa.select(_votes.c.choice).where(at)).scalar()
            if before == choice:
                return
            answered = self._answered(connection, rater)
            if question not in {answered - 1, answered}:
                raise OutOfTurnError
            if before is None:
                row = {"invitation": rater, "question": question, "changes": 0}
                connection.execute(sa.insert(_votes), row | {"choice": choice, "voted": _now()})
            else:
                values = {"choice": choice, "voted": _now(), "changes": _votes.c.changes + 1}
                connection.execute(sa.update(_votes).where(at).values(values))

    def revoke(self, numbers: Sequence[int]) -> None:
        """Revoke invitations; their votes stay.

        Raises:
            ParamsError: One of them was never made; none is revoked.
        """
        with self._writing() as connection:
            for number in numbers:
                change = sa.update(_invitations).where(_invitations.c.number == number)
                if connection.execute(change.values(revoked=_now())).rowcount == 0:
                    raise ParamsError(no_such(number))

    def delete(self, number: int) -> int:
        """Delete an invitation and all its votes for good; return how many votes there were.

        Raises:
            ParamsError: There is no such invitation.
        """
        with self._writing() as connection:
            gone = connection.execute(sa.delete(_votes).where(_votes.c.invitation == number))
            rows = sa.delete(_invitations).where(_invitations.c.number == number)
            if connection.execute(rows).rowcount == 0:
                raise ParamsError(no_such(number))
        if self._engine.dialect.name == "sqlite":
            with self._engine.connect() as connection:  # the write-ahead log has them, too
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return int(gone.rowcount)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """Open a transaction that writes; it is on disk when the block ends."""
        engine = self._engine.execution_options(writes=True)
        with self._turn, engine.begin() as connection:
            yield connection

    def _answered(self, connection: Connection, rater: int) -> int:
        query = sa.select(sa.func.count()).where(_votes.c.invitation == rater)
        return int(connection.execute(query).scalar_one())

    def _sheets_taken(self, connection: Connection, group: str) -> Counter[int]:
        query = sa.select(_invitations.c.sheet).where(
            _invitations.c.group == group, _invitations.c.revoked.is_(None)
        )
        return Counter(connection.execute(query).scalars())


def opened(name: str) -> Votes:
    """Open the votes of study ``name``, with tables made if need be.

    They are in ``votes.db`` beside the study, or where the environment variable
    ATELIER_SURVEY_DATABASE says, as an SQLAlchemy URL.

    Raises:
        ParamsError: That is no URL of a database that can be reached.
        ArtifactError: The database holds the votes of another study.
    """
    file = files.folder(name) / "votes.db"
    digest = files.digest(name)
    url = os.environ.get(DATABASE) or f"sqlite:///{file}"
    try:
        engine = _engine(url)
        _tables.create_all(engine)
        with engine.begin() as connection:
            known = connection.execute(sa.select(_about.c.study)).scalar()
            if known is None:
                connection.execute(sa.insert(_about), {"study": digest})
    except (SQLAlchemyError, ImportError, OSError) as error:
        # Neither the URL nor the driver's words are shown: both may hold the password.
        raise ParamsError(
            f"the votes' database cannot be opened ({type(error).__name__}); {DATABASE} "
            "should be an SQLAlchemy URL, as postgresql+psycopg://user:password@host/study, "
            f"with its driver installed; without it {file} is used"
        ) from None
    if known not in {None, digest}:
        raise ArtifactError(
            f"the votes' database ({DATABASE}, or {file}) contains votes on another study than "
            f"{file.with_name('study.json')} as it is now; a study must not change once people "
            "answer: restore its file, or name another database"
        )
    return Votes(engine)


def _engine(url: str) -> Engine:
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return sa.create_engine(parsed, pool_pre_ping=True, pool_size=_CONNECTIONS)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(
        parsed, pool_size=_CONNECTIONS, connect_args={"timeout": _BUSY_SECONDS}
    )
    event.listen(engine, "connect", _durable)
    event.listen(engine, "begin", _begin)
    return engine


def _durable(connection: Any, record: object) -> None:
    """Make SQLite sync each commit, check references, and overwrite what is deleted."""
    del record
    connection.isolation_level = None  # transactions begin as _begin says
    for setting in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "secure_delete=ON",
    ):
        connection.execute(f"PRAGMA {setting}")


def _begin(connection: Connection) -> None:
    """Take the write lock first where one is needed: a reader that turns writer cannot wait."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _rater(row: Any) -> Rater:
    return Rater(
        number=row["number"],
        group=row["group"],
        sheet=row["sheet"],
        made=row["made"],
        agreed=row["agreed"],
        revoked=row["revoked"],
    )


def _vote(row: Any) -> Vote:
    return Vote(row["question"], row["choice"], row["voted"], row["changes"])


def no_such(number: int) -> str:
    """Return what to say of an invitation that was never made, or was deleted."""
    return f"there is no invitation {number}; `atelier survey status` lists them"


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None, microsecond=0)
