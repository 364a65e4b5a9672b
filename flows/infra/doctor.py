"""``atelier doctor``: checks of this machine for the pipeline, each with its cure."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.markup import escape
from rich.table import Table

from atelier.config.profile import read_in_force, read_switch
from atelier.errors import ArtifactError, AtelierError
from flows.infra import local_services
from tasks.run import git, paths, pins
from tasks.run.console import console
from tasks.tracking import connection, sync

_PACKAGES = ("torch", "diffusers", "transformers", "peft", "dvc", "prefect", "mlflow")
_FREE_GIB = 10.0  # of disk; a stage's outs lie there twice, in artifacts/ and in DVC's cache
_GIB = 2**30
_PATIENCE = 20.0  # seconds, where a run depends on the answer


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: The thing.
        state: ``missing`` stops a run; ``note`` does not.
        said: What was found, and what to do.
    """

    what: str
    state: Literal["good", "note", "missing"]
    said: str


def run() -> int:
    """Print what was found; return the exit code, 1 where something is missing."""
    findings = list(look())
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", "what", "found"):
        table.add_column(heading, overflow="fold")
    marks = {
        "good": "[green]✓[/green]",
        "note": "[yellow]·[/yellow]",
        "missing": "[red]✗[/red]",
    }
    for one in findings:
        table.add_row(marks[one.state], one.what, escape(one.said))
    console().print(table)
    return int(any(one.state == "missing" for one in findings))


def look() -> Iterator[Finding]:
    """Yield a finding for each thing that a run needs."""
    for check in (
        _versions,
        _profile,
        _devices,
        _data,
        _disk,
        _git,
        _remote,
        _prefect,
        _mlflow,
        _base,
        _weights,
    ):
        yield from _guarded(check)


def _guarded(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except AtelierError as error:
        yield Finding(check.__name__.strip("_"), "missing", str(error))


def _versions() -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    found = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
    yield Finding("versions", "good", ", ".join([f"Python {python}", *found]))


def _profile() -> Iterator[Finding]:
    name = read_switch(paths.SWITCH)
    read_in_force(paths.PARAMS)
    yield Finding("profile", "good", f"{paths.profile(name)} is in force and fits")


def _devices() -> Iterator[Finding]:
    from flows.infra import gpus

    for one in gpus.devices():
        text = f"{one.name}, {one.free:.0f} of {one.memory:.0f} GiB free"
        if one.index is None:
            text += "; no GPU was found: the starter profile needs none, FLUX and SDXL do"
        yield Finding("device", "note" if one.index is None else "good", text)


def _data() -> Iterator[Finding]:
    if any(paths.DATA.glob("*")):
        yield Finding("data", "good", f"{paths.DATA}/ has files")
    else:
        yield Finding(
            "data",
            "missing",
            f"{paths.DATA}/ is empty: `dvc pull` fetches it from a remote, `atelier data` "
            "draws the starter's paintings, or put your own images there",
        )


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free / _GIB
    if free < _FREE_GIB:
        yield Finding(
            "disk", "missing", f"{free:.1f} GiB free here, {_FREE_GIB:.0f} are needed"
        )
    else:
        yield Finding("disk", "good", f"{free:.0f} GiB free here")


def _git() -> Iterator[Finding]:
    changed = git.answer(*git.CHANGES)
    if changed is None:
        yield Finding(
            "git", "note", "this is not a git repository: runs will not record a commit"
        )
    elif changed:
        files = ", ".join(line.split()[-1] for line in changed.splitlines()[:3])
        more = ", …" if len(changed.splitlines()) > 3 else ""
        yield Finding(
            "git",
            "note",
            f"uncommitted changes ({files}{more}): runs are marked as not reproducible",
        )
    else:
        yield Finding("git", "good", "everything is committed, except perhaps dvc.lock")


def _remote() -> Iterator[Finding]:
    said = _said(sys.executable, "-m", "dvc", "remote", "list")
    rows = (said or "").splitlines()
    default = [row for row in rows if row.endswith("(default)")]
    if not rows:
        yield Finding(
            "DVC remote",
            "note",
            "none: results stay on this machine. `dvc remote add -d store <folder or s3://…>` "
            "shares them, and several machines need it",
        )
    elif not default:
        yield Finding("DVC remote", "note", "none is the default: `dvc remote default <name>`")
    else:
        # A remote's address may hold a password, but never before the first blank.
        yield Finding("DVC remote", "good", f"{default[0].split()[0]} is the default")


def expect_server() -> None:
    """Refuse to start a flow while Prefect's server cannot be reached.

    Raises:
        ArtifactError: An address is set, and no server answers there.
    """
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    why = local_services.failure(f"{url}/health", _PATIENCE) if url else None
    if why is not None:
        raise ArtifactError(
            f"Prefect's server at {connection.without_password(str(url))} (PREFECT_API_URL) "
            f"does not answer ({why}); `atelier up` starts one on this machine. Without "
            "PREFECT_API_URL each flow run starts one for itself, and `dvc repro` needs none"
        )


def _prefect() -> Iterator[Finding]:
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        yield Finding(
            "Prefect",
            "note",
            "no server is set, so each flow run starts one for itself: `atelier up`, or "
            "`prefect server start` and PREFECT_API_URL=http://127.0.0.1:4200/api",
        )
    elif (why := local_services.failure(f"{url}/health")) is None:
        from flows.infra import prefect_setup

        missing = prefect_setup.missing()
        text = f"{url} answers"
        if missing:
            text += f"; it lacks {', '.join(missing)}: `atelier deploy`"
        yield Finding("Prefect", "missing" if missing else "good", text)
    else:
        text = f"{url} does not answer ({why}); `atelier up` starts one"
        yield Finding("Prefect", "missing", text)


def _mlflow() -> Iterator[Finding]:
    uri = connection.tracking_uri()
    waiting = len(sync.waiting())
    late = f"; {waiting} stage run(s) wait to be delivered" if waiting else ""
    if not uri.startswith("http"):
        yield Finding("MLflow", "good", f"runs are kept in {paths.MLFLOW}/{late}")
    elif (why := local_services.failure(f"{uri}/health")) is None:
        yield Finding("MLflow", "good", f"{uri} answers{late}")
    else:
        yield Finding(
            "MLflow",
            "note",
            f"{uri} does not answer ({why}): MLflow calls are stored and delivered later{late}",
        )


def _base() -> Iterator[Finding]:
    name, model = read_switch(paths.SWITCH), read_in_force(paths.PARAMS).model
    folder = Path(model.source)
    pin = pins.of(folder)
    if pins.is_elsewhere(name, model.source) and (why := pins.absent_base(name, model.source)):
        yield Finding("base", "missing", why)
        return
    if (folder / "model_index.json").is_file():
        yield _tracked(folder)
    elif pin.is_file():
        yield Finding(
            "base", "missing", f"{pin} pins a base that is not here: `dvc pull {pin}`"
        )
    elif model.revision is None or folder.is_dir():
        yield Finding(
            "base",
            "missing",
            f"{folder} has no model_index.json, so it contains no model: `atelier base` trains "
            "a small one, or copy one in diffusers' layout there and run "
            f"`dvc add {folder}`",
        )
    else:
        yield Finding(
            "base",
            "note",
            f"{model.source} at {model.revision} is loaded from the hub or its cache when a "
            f"stage needs it (HF_HUB_OFFLINE={os.environ.get('HF_HUB_OFFLINE', 'unset')})",
        )


def _tracked(base: Path) -> Finding:
    """Whether a base that is here would be in other clones, too."""
    tracker = pins.tracker(base)
    if tracker == "nobody" and git.answer("rev-parse") is not None:
        why = pins.obstacle(base)
        return Finding(
            "base",
            "note",
            f"{base} holds a model that neither git nor DVC tracks, so colleagues, workers and "
            f"`dvc exp run --temp` will not have it: {f'{why}, then' if why else 'run'} "
            f"`dvc add {base}`",
        )
    pin = pins.of(base)
    if tracker == "dvc" and git.answer("ls-files", "--error-unmatch", str(pin)) is None:
        return Finding(
            "base", "note", f"{base} holds a model; commit {pin}, which pins it, to git"
        )
    return Finding("base", "good", f"{base} holds a model")


def _weights() -> Iterator[Finding]:
    """What metrics ask: by presence, size and recorded checksum, as checksums take minutes."""
    from atelier.metrics import suite, weights

    evaluate = read_in_force(paths.PARAMS).evaluate
    names = suite.needed(evaluate.metrics, features=evaluate.features)
    if not names:
        yield Finding("metrics", "good", "no metric of the profile needs third-party weights")
        return
    states: dict[str, list[str]] = {}
    for one in weights.glance(names, paths.weights()):
        states.setdefault(one.state, []).append(one.file.path)
    cures = {
        "absent": "metrics will be unavailable: `atelier weights --fetch`",
        "unchecked": "no checksum was taken yet: `atelier weights --check`",
        "damaged": "the checksum differs, so metrics will be unavailable: `atelier weights "
        "--fetch`",
    }
    whole = len(states.pop("whole", ()))
    if whole:
        yield Finding("metrics", "good", f"{whole} file(s) of weights in {paths.weights()}/")
    for state, files in states.items():
        of = ", ".join(dict.fromkeys(file.partition("/")[0] for file in files))
        yield Finding(
            "metrics",
            "note",  # a metric without its weights is unavailable, and no run ends by it
            f"{len(files)} file(s) of {of} in {paths.weights()}/: {state}; {cures[state]}",
        )


def _said(*words: str) -> str | None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
