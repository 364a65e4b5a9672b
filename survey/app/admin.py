"""Administration of a study: invite, revoke, status, export, delete."""

import json
import sys
from collections.abc import Sequence

from atelier.config.profile import Profile
from atelier.errors import ParamsError
from survey import files
from survey.app import server, votes
from survey.app.votes import Rater, Votes


def invite(profile: Profile, name: str, group: str, count: int) -> None:
    """Print the links of ``count`` new invitations.

    Raises:
        ParamsError: The study has no such group.
        ArtifactError: There is no such study.
    """
    made = votes.opened(name).invite(files.study(name), group, count)
    lines = [f"{number}\t{profile.survey.address}/i/{token}" for number, token in made]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stderr.write("Each link is for one person, and is shown here only, once.\n")


def revoke(name: str, numbers: Sequence[int]) -> None:
    """Revoke invitations.

    Raises:
        ParamsError: One was never made.
    """
    votes.opened(name).revoke(numbers)
    sys.stdout.write(f"revoked: {', '.join(map(str, numbers))}\n")


def status(name: str) -> None:
    """Print how many questions each person has answered, and what is still missing."""
    study, book = files.study(name), votes.opened(name)
    done: dict[str, set[int]] = {group: set() for group in study.sheets}
    for rater in book.raters():
        answered, questions = book.answered(rater.number), len(_sheet(study, rater))
        if answered == questions:
            done[rater.group].add(rater.sheet)
        sys.stdout.write(
            f"{rater.number:4} {rater.group}: {answered} of {questions}{_remark(rater)}\n"
        )
    for group, sheets in study.sheets.items():
        sys.stdout.write(f"{group}: {len(done[group])} of {len(sheets)} sheets are complete\n")


def export(name: str, number: int) -> None:
    """Print all data of one person.

    Raises:
        ParamsError: There is no such invitation.
    """
    study, book = files.study(name), votes.opened(name)
    data = server.own_data(study, book, _rater(book, number))
    sys.stdout.write(json.dumps(data, indent=2) + "\n")


def delete(name: str, number: int) -> None:
    """Delete one person's invitation and votes.

    Raises:
        ParamsError: There is no such invitation.
    """
    count = votes.opened(name).delete(number)
    sys.stdout.write(f"deleted: invitation {number} with {count} answers\n")


def _sheet(study: files.Study, rater: Rater) -> list[files.Asked]:
    return study.sheets[rater.group][rater.sheet]


def _remark(rater: Rater) -> str:
    if rater.revoked is not None:
        return ", revoked"
    return "" if rater.agreed is not None else ", not begun"


def _rater(book: Votes, number: int) -> Rater:
    for rater in book.raters():
        if rater.number == number:
            return rater
    raise ParamsError(votes.no_such(number))
