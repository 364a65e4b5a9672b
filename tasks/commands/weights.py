"""``atelier weights``: lists, downloads and verifies the weights of metrics."""

from collections.abc import Sequence
from pathlib import Path

from atelier.config.profile import Profile
from atelier.errors import ArtifactError, ParamsError
from atelier.metrics import suite, weights
from atelier.metrics.weights import Status
from tasks.run import paths, progress
from tasks.run.console import say

_SIGNS = {"whole": "✓", "absent": "–", "unchecked": "?", "damaged": "✗"}


def run(
    profile: Profile, names: Sequence[str], *, fetch: bool, check: bool, source: Path | None
) -> None:
    """List, fetch or check weights, and print the list.

    Args:
        profile: Whose metrics are meant if ``names`` is empty.
        names: Metrics, or weights of the manifest.
        fetch: Bring what is absent, from the network unless ``source`` is given.
        check: Take checksums of all that is there.
        source: A folder to copy from, for machines without network.

    Raises:
        ParamsError: A name is unknown.
        ArtifactError: A file could not be brought, is damaged, or is absent when checked.
    """
    wanted, folder = _wanted(profile, names), paths.weights()
    files = len(weights.glance(wanted, folder))
    if source is not None:
        with progress.bar("weights", files, "files") as report:
            weights.bring(wanted, folder, source, report)
    elif fetch:
        total = round(sum(weights.MANIFEST[name].megabytes for name in wanted))
        with progress.bar("weights", max(1, total), "MB") as report:
            weights.fetch(wanted, folder, report)
    if check:
        with progress.bar("checksums", files, "files") as report:
            found = weights.check(wanted, folder, report)
    else:
        found = weights.glance(wanted, folder)
    _show(wanted, found, folder)
    if check or fetch or source is not None:
        _refuse_what_is_wrong(found, folder)


def _wanted(profile: Profile, names: Sequence[str]) -> list[str]:
    """Return the weights that are meant: of the metrics named, or of the profile's."""
    if not names:
        evaluate = profile.evaluate
        return suite.needed(evaluate.metrics, features=evaluate.features)
    unknown = [one for one in names if one not in weights.MANIFEST and one not in suite.ALL]
    if unknown:
        known = sorted(weights.MANIFEST.keys() | suite.ALL.keys())
        raise ParamsError(
            f"{unknown[0]!r} is no metric and no weights; there are: {', '.join(known)}"
        )
    found: list[str] = []
    for name in names:
        own = [name] if name in weights.MANIFEST else []
        metric = suite.needed([name], features="inception") if name in suite.ALL else []
        found += [*metric, *own]
    return list(dict.fromkeys(found))


def _show(wanted: Sequence[str], found: Sequence[Status], folder: Path) -> None:
    of = {status.file.path: status for status in found}
    own = {name: [file.path for file in weights.MANIFEST[name].files] for name in wanted}
    known = {path for paths_ in own.values() for path in paths_}
    say(f"Weights in {folder}/; ATELIER_WEIGHTS names another folder")
    for name in wanted:
        one = weights.MANIFEST[name]
        say(f"\n{name}  {one.about} · {one.megabytes:,.1f} MB\n  license  {one.license}")
        for source in dict.fromkeys(file.source.rpartition("/")[0] for file in one.files):
            say(f"  from     {source}")
        for path in own[name]:
            say(_line(of[path]))
        folders = {path.rpartition("/")[0] for path in own[name]}
        for path in of.keys() - known:  # named by an index
            if path.rpartition("/")[0] in folders:
                say(_line(of[path]))
    say("\n✓ whole   – absent   ? there, checksum not taken yet   ✗ damaged")


def _line(status: Status) -> str:
    file = status.file
    known = file.sha256 or status.sha256
    trust = "" if file.sha256 else ", first sight"
    said = f"sha256 {known[:16]}…{trust}" if known else "sha256 is taken on first sight"
    return f"  {_SIGNS[status.state]} {file.path:<46} {file.megabytes:>8,.1f} MB  {said}"


def _refuse_what_is_wrong(found: Sequence[Status], folder: Path) -> None:
    damaged = [status for status in found if status.state == "damaged"]
    if damaged:
        lines = "\n".join(f"  {folder / one.file.path}: {one.reason}" for one in damaged)
        raise ArtifactError(
            f"{len(damaged)} of {len(found)} files are not what they should be:\n{lines}\n"
            "`--fetch` replaces them"
        )
    absent = [status.file.path for status in found if status.state == "absent"]
    if absent:
        raise ArtifactError(
            f"{len(absent)} of {len(found)} files are absent from {folder}/: "
            f"{', '.join(absent)}; `atelier weights --fetch` downloads them, `--fetch "
            "--from FOLDER` takes them from a folder laid out like this one"
        )
