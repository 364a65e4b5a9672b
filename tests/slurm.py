"""A stand-in for SLURM's commands: it checks what they are given, and runs jobs here.

``install(folder)`` writes ``sbatch``, ``srun``, ``scancel``, ``scontrol`` that start this file.
A job gets the variables that SLURM sets; its nodes are this machine, or whatever the prefixes
lead to that STANDIN_NODES names, such as network namespaces.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "srun", "scancel", "scontrol")
_COUNT = r"[1-9]\d*"
_TIME = r"(\d+-)?\d{1,2}(:\d{2}){1,2}|\d+"
_SIZE = r"\d+[KMGT]?"
_NAME = r"[\w./%-]+"
# What sbatch calls its options, and what they may be; slurm.schedmd.com/sbatch.html.
OPTIONS = {
    "account": _NAME, "constraint": _NAME, "cpus-per-task": _COUNT, "error": _NAME,
    "gpus-per-node": r"(\w+:)?" + _COUNT, "gres": r"gpu(:\w+)?:" + _COUNT, "job-name": _NAME,
    "mem": _SIZE, "nodes": _COUNT, "ntasks": _COUNT, "ntasks-per-node": _COUNT,
    "open-mode": "append|truncate", "output": _NAME, "partition": _NAME, "requeue": "",
    "signal": r"([RB]+:)?(\d+|[A-Z0-9]+)(@\d+)?", "time": _TIME,
}  # fmt: skip
SHORT = {
    "A": "account", "c": "cpus-per-task", "e": "error", "J": "job-name", "n": "ntasks",
    "N": "nodes", "o": "output", "p": "partition", "t": "time",
}  # fmt: skip


class RefusedError(Exception):
    """What sbatch would print before it exits with 1."""


def install(folder):
    """Write the commands; return the folder, for PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in COMMANDS:
        file = folder / name
        file.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} "$@"\n')
        file.chmod(0o755)
    return folder


def directives(script):
    """The options of a script's ``#SBATCH`` lines, which end with its first command."""
    words = []
    lines = script.splitlines()
    if not lines or not lines[0].startswith("#!"):
        raise RefusedError("This does not look like a batch script: its first line is no #!")
    for line in lines:
        if line.strip() and not line.startswith("#"):
            break
        if line.startswith("#SBATCH "):
            words += line.removeprefix("#SBATCH ").split("#")[0].split()
    options, rest = parsed(words)
    if rest:
        raise RefusedError(f"directives have words that are no options: {rest}")
    return options


def parsed(words):
    """Options by their long names, and the words after them."""
    options, words = {}, list(words)
    while words and words[0].startswith("-"):
        word = words.pop(0)
        name, sign, value = word.lstrip("-").partition("=")
        if not word.startswith("--"):
            name, sign, value = word[1], word[2:], word[2:]
            name = SHORT.get(name, name)
        if name not in OPTIONS:
            raise RefusedError(f"unrecognized option '{word}'")
        if OPTIONS[name] and not sign:
            value = words.pop(0)
        if not re.fullmatch(OPTIONS[name], value):
            raise RefusedError(f"invalid {name} specification: {value!r}")
        options[name] = value
    return options, words


def sbatch(words):
    """Check a script, and start it as a job in the background."""
    told, rest = parsed(words)
    script, *arguments = rest
    options = directives(Path(script).read_text()) | told
    number = len(list(_jobs().glob("*"))) + 1
    folder = _jobs() / str(number)
    folder.mkdir()
    shutil.copy(script, folder / "script")  # the job runs a copy, as of now
    job = {"options": options, "arguments": arguments, "folder": str(Path.cwd())}
    (folder / "job.json").write_text(json.dumps(job))
    _begin(folder)
    print(f"Submitted batch job {number}")  # noqa: T201


def _begin(folder):
    job = json.loads((folder / "job.json").read_text())
    nodes = job["options"].get("nodes", "1")
    if int(nodes) > len(_nodes()):
        raise RefusedError("Requested node configuration is not available")
    output = job["options"].get("output", "slurm-%j.out")
    output = Path(job["folder"], output.replace("%j", folder.name).replace("%J", folder.name))
    output.parent.mkdir(parents=True, exist_ok=True)
    variables = {
        "SLURM_JOB_ID": folder.name, "SLURM_SUBMIT_DIR": job["folder"], "SLURM_NODEID": "0",
        "SLURM_JOB_NUM_NODES": nodes, "SLURM_PROCID": "0",
    }  # fmt: skip
    with output.open("ab") as out:
        process = subprocess.Popen(
            [*_nodes()[0], "bash", str(folder / "script"), *job["arguments"]],
            cwd=job["folder"],
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    (folder / "pid").write_text(str(process.pid))


def scancel(words):
    """End jobs, with all that they started."""
    for number in words:
        folder = _jobs() / number
        (folder / "cancelled").touch()
        try:
            os.killpg(int((folder / "pid").read_text()), signal.SIGTERM)
        except ProcessLookupError:
            print(f"job {number} has ended", file=sys.stderr)  # noqa: T201


def scontrol(words):
    """Queue a job again."""
    verb, number = words
    if verb != "requeue":
        raise RefusedError(f"invalid keyword: {verb}")
    (_jobs() / number / "requeued").touch()
    _begin(_jobs() / number)


def srun(words):
    """Run a command once on each node of the job; end all of them when one fails."""
    nodes, kill, words = 1, False, list(words)
    while words[0].startswith("-"):
        word = words.pop(0)
        name, _, value = word.lstrip("-").partition("=")
        if name == "kill-on-bad-exit":
            kill = value == "1"
            continue
        value = value or words.pop(0)
        if name not in {"nodes", "ntasks", "ntasks-per-node"}:
            raise RefusedError(f"unrecognized option '{word}'")
        nodes = int(value) if name == "nodes" else nodes
    every = []
    for number, prefix in enumerate(_nodes()[:nodes]):
        place = {"SLURM_NODEID": str(number), "SLURM_PROCID": str(number)}
        every.append(subprocess.Popen([*prefix, *words], env=os.environ | place))

    def forward(number, frame):
        for one in every:
            one.terminate()

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a real one asks to press Ctrl-C twice
    while any(one.poll() is None for one in every):
        if kill and any(one.poll() for one in every):
            forward(None, None)
        time.sleep(0.1)
    sys.exit(max(abs(one.returncode) for one in every))


def _jobs():
    folder = Path(os.environ["STANDIN_SLURM"])
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _nodes():
    return json.loads(os.environ.get("STANDIN_NODES", "[[]]"))


if __name__ == "__main__":
    try:
        globals()[sys.argv[1]](sys.argv[2:])
    except RefusedError as error:
        sys.exit(f"{sys.argv[1]}: error: {error}")
