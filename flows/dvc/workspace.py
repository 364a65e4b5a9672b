"""Workspace: a temporary copy of the repository, in which a changed run works.

It lies in ``.dvc/tmp``, as those of ``dvc exp run --temp`` do. Code and settings are those of
the working copy at this moment, with what is not committed. DVC's cache is shared, and the
folders of ``tasks.tracking.main_repository``. ``data/`` and ``base/`` are the same files by
hard links. The user's files are not written, and may be edited meanwhile.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from atelier import atomic
from tasks.run import git, paths
from tasks.tracking import main_repository

PLACE = Path(".dvc/tmp/atelier/workspace")
_LINKED = (paths.DATA, paths.BASE)
_OTHER_WAYS = {*map(str, _LINKED), "artifacts", "weights"}  # brought by links, or by DVC
_IDENTITY = ("user.name", "user.email")


@contextlib.contextmanager
def entered() -> Iterator[Path]:
    """Work in a copy of the working copy as it is now; yield the root of the original.

    The working directory of this process and of those that it starts is the copy's root.
    """
    main = Path.cwd()
    place = main / PLACE
    _bring_files(main, place)
    _configure(main, place)
    variables = {"PWD": str(place), "PYTHONPATH": _first(place)}
    before = {name: os.environ.get(name) for name in variables}
    os.chdir(place)
    os.environ |= variables
    try:
        main_repository.share()
        _bring_outs()
        for folder in _LINKED:
            mirror(main / folder, place / folder)
        yield main
    finally:
        os.chdir(main)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def save_experiment(name: str, stages: Sequence[str]) -> str | None:
    """Keep what a copy's stages made as an experiment of the main repository.

    Args:
        name: Of the experiment; one of this name is replaced.
        stages: Those that are up to date. DVC would commit the others as they lie.

    Returns:
        Why it was not kept; None if it was.
    """
    words = [sys.executable, "-m", "dvc", "exp", "save", "--quiet", "--force", "--name", name]
    done = subprocess.run([*words, *stages], capture_output=True, text=True, check=False)
    if done.returncode:
        return done.stderr.strip()
    refs = git.run("for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}").split()
    main = main_repository.found()
    assert main is not None, "a copy lies in its main repository"
    for ref in refs:
        git.run("-C", str(main), "fetch", "--quiet", "--force", str(Path.cwd()), f"{ref}:{ref}")
    return None if refs else "git has no such experiment"


def mirror(source: Path, target: Path) -> None:
    """Make a folder have the files of another one, by links, and no others."""
    files = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    for path in list(target.rglob("*")):
        if path.is_file() and path.relative_to(target) not in files:
            path.unlink()
    for name in files:
        _link(source / name, target / name)


def _link(source: Path, target: Path) -> None:
    if target.exists() and target.samefile(source):
        return
    target.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    real = source.resolve()
    try:
        os.link(real, target)
    except OSError:  # on another disk
        target.symlink_to(real)


def _first(place: Path) -> str:
    """Return a PYTHONPATH on which the copy's code comes first."""
    return os.pathsep.join(filter(None, [str(place), os.environ.get("PYTHONPATH")]))


def _bring_files(main: Path, place: Path) -> None:
    """Bring code, settings and dvc.lock as they are in the working copy."""
    if git.answer("rev-parse", "--show-prefix") == "" and git.answer("rev-parse", "HEAD"):
        _clone(main, place)
    else:
        _copy(main, place)


def _clone(main: Path, place: Path) -> None:
    """Clone HEAD and lay what is not committed over it; git's objects are shared."""
    head = git.run("rev-parse", "HEAD")
    if not (place / ".git").is_dir():
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        git.run("clone", "--quiet", "--shared", "--no-checkout", str(main), str(place))
    for name in _IDENTITY:
        if value := git.answer("config", name):
            git.run("-C", str(place), "config", name, value)
    git.run("-C", str(place), "checkout", "--quiet", "--force", "--detach", head)
    git.run("-C", str(place), "clean", "--quiet", "--force", "-d")
    changed = git.run("diff", "--name-only", "--no-renames", "-z", "HEAD")
    new = git.run("ls-files", "--others", "--exclude-standard", "-z")
    for name in filter(None, [*changed.split("\0"), *new.split("\0")]):
        _replace(main / name, place / name)


def _copy(main: Path, place: Path) -> None:
    """Copy what is no output and no input: where there is no git, or another root of it."""
    shutil.rmtree(place, ignore_errors=True)
    (place / ".dvc").mkdir(parents=True)
    _replace(main / ".dvc/config", place / ".dvc/config")
    for path in main.iterdir():
        if path.name in _OTHER_WAYS or (path.name.startswith(".") and path.is_dir()):
            continue
        if path.is_dir():
            shutil.copytree(path, place / path.name, symlinks=True)
        else:
            _replace(path, place / path.name)


def _replace(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    if source.is_file() or source.is_symlink():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)


def _configure(main: Path, place: Path) -> None:
    """Let the copy's DVC use our cache and remotes; relative paths are made absolute."""
    from dvc.config import Config
    from dvc.repo import Repo

    with Repo(str(main)) as repo:
        cache = repo.cache.local_cache_dir
        ours = repo.config.load_config_to_level()
    atomic.write(place / ".dvc/config.local", "")
    with Config(str(place / ".dvc")).edit("local") as theirs:
        # Hard links: outs that are restored take no second place on the disk.
        theirs["cache"] |= {"dir": str(cache), "type": ["reflink", "hardlink", "copy"]}
        theirs["core"] |= {k: v for k, v in ours.get("core", {}).items() if k != "no_scm"}
        for name, remote in ours.get("remote", {}).items():
            theirs["remote"][name] = remote | {"url": str(remote["url"])}


def _bring_outs() -> None:
    """Let DVC bring the outs of dvc.lock, as far as its cache has them.

    An out that dvc.lock does not have, as of a stage that never ran, is not asked for: DVC
    would warn of it.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    with Repo(os.curdir) as repo, contextlib.suppress(DvcException):
        stages = (stage for stage in repo.index.stages if not stage.is_data_source)
        known = [str(out) for stage in stages for out in stage.outs if out.hash_info]
        if known:
            repo.checkout(targets=known, force=True, allow_missing=True)
