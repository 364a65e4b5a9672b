"""The annotator protocol: pictures in, one answer for each of them out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from atelier.annotators.inspection import Inspected, Inspector, Unopened
from atelier.criteria.annotations import Judgement, Rationale
from atelier.criteria.tree import Pole
from atelier.reporting import Report


@dataclass(frozen=True)
class Wording:
    """How a question is put, where it is not put as usual: the controls of a certificate.

    A judge that looks answers alike however it is asked. Annotators that are asked nothing in
    words have ``asks`` False, and pass over it.

    Attributes:
        swapped: The poles have changed names in the question; the answer is turned back.
        backwards: Criteria, and the poles of each, stand in the reverse order.
        told: What somebody else is said to have found, by criterion.
        caption: What the picture is said to show.
        repeat: How often the same was asked before; a new answer is requested each time.
    """

    swapped: bool = False
    backwards: bool = False
    told: Mapping[str, Pole] = field(default_factory=dict)
    caption: str | None = None
    repeat: int = 0


PLAIN = Wording()


@dataclass(frozen=True)
class Picture:
    """A picture to judge.

    Attributes:
        file: Its path.
        caption: Rules out criteria that do not apply; None if there is no caption.
        title: The words of the file's name, if a caption should be written; None otherwise.
        wording: How the question is put.
    """

    file: Path
    caption: str | None = None
    title: str | None = None
    wording: Wording = PLAIN


@dataclass(frozen=True)
class Answer:
    """The judgements of one picture, or the reason why there are none.

    Attributes:
        image: sha256 of the file's bytes; None if the file cannot be opened.
        width: Pixels, upright; 0 if the picture cannot be used.
        height: As ``width``.
        unanswered: Why the picture was not judged; None if it was.
        judgements: In the order of the tree; an abstention has no entry.
        rationales: What the annotator saw, one for each judgement, if it says so.
        caption: The caption that was written, if ``Picture.title`` asked for one.
    """

    image: str | None
    width: int
    height: int
    unanswered: str | None
    judgements: list[Judgement]
    rationales: list[Rationale] = field(default_factory=list)
    caption: str | None = None


def answer(inspected: Inspected | Unopened) -> Answer:
    """Return the answer that an inspection alone gives."""
    if isinstance(inspected, Unopened):
        return Answer(None, 0, 0, inspected.reason, [])
    return Answer(
        inspected.image,
        inspected.width,
        inspected.height,
        inspected.reason,
        inspected.judgements,
    )


@dataclass(frozen=True)
class Answers:
    """The answers to a call of ``judge_many``.

    Attributes:
        each: One answer for each picture, in the order of the pictures; it may be made each
            time it is asked for, of what a journal holds.
        spent: Tokens and cost behind the answers, former runs included; empty if they are free.
        answered_by: Number of responses by the model that a server named; empty if no server
            was asked.
        warnings: Sentences for people.
        a_picture: What a picture costs on average, a former answer or a new one: calls, tokens
            and cost, estimated from the prompts; empty if it costs nothing.
    """

    each: Sequence[Answer]
    spent: Mapping[str, float] = field(default_factory=dict)
    answered_by: Mapping[str, int] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    a_picture: Mapping[str, float] = field(default_factory=dict)


class Annotator(Protocol):
    """A judge of pictures."""

    @property
    def name(self) -> str:
        """Name and version; it signs the judgements, except for those that it replays."""

    @property
    def asks(self) -> bool:
        """Whether it is asked in words, whose order or claims could move it."""

    @property
    def inspector(self) -> Inspector:
        """What is done to each picture by itself, in any process; its fingerprint names it."""

    def judge_many(
        self, pictures: Sequence[Picture], report: Report, journal: Path | None = None
    ) -> Answers:
        """Judge pictures; none is lost, and a killed run loses what was in flight at most.

        Args:
            pictures: The pictures; two may have the same bytes.
            report: Called with the number of pictures done.
            journal: File of a run that can be interrupted, which goes on from it; it belongs to
                ``inspector.fingerprint()``. Its folder exists, the file need not. None: the
                pictures are few.

        Raises:
            AtelierError: No picture can be judged, or the journal cannot be written.
        """
