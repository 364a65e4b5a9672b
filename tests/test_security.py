"""What the code must not do, read from its syntax and its pages; SECURITY.md says why."""

import ast
import base64
import hashlib
import re
from pathlib import Path

import pytest
import yaml

from atelier.criteria import tree
from atelier.reports import criteria_page

ROOT = Path(__file__).parents[1]
OURS = ("atelier", "benchmarks", "cli", "flows", "survey", "tasks")
CODE = sorted(file for name in OURS for file in (ROOT / name).rglob("*.py"))
PAGES = sorted(
    file
    for name in OURS
    for suffix in ("html.j2", "css", "js", "svg")
    for file in (ROOT / name).rglob(f"*.{suffix}")
)
# Modules that run what they read, or that keep the network's doors open.
MODULES = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal",
    "telnetlib", "ftplib", "xmlrpc", "requests",
}  # fmt: skip
CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.spawnl",
    "tempfile.mktemp", "pandas.read_pickle", "pd.read_pickle", "yaml.unsafe_load",
    "yaml.full_load", "yaml.unsafe_load_all", "yaml.full_load_all", "yaml.load_all",
    "torch.save", "shutil.unpack_archive", "subprocess.getoutput",
    "subprocess.getstatusoutput", "ssl._create_unverified_context",
}  # fmt: skip
METHODS = {"extractall", "extract", "to_pickle"}
# Where a rule is broken on purpose: the file, the rule, and what makes it harmless.
ALLOWED = {
    ("atelier/reading.py", "yaml.load"): "its loader is a SafeLoader with bounds",
}


def dotted(node):
    """``os.system`` of the syntax of ``os.system``."""
    if isinstance(node, ast.Attribute):
        above = dotted(node.value)
        return f"{above}.{node.attr}" if above else None
    return node.id if isinstance(node, ast.Name) else None


def value(call, name):
    """The constant that a call gives its keyword, or a mark for any other value."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value.value if isinstance(keyword.value, ast.Constant) else ...
    return None


def broken(text):
    """Every rule that a file of Python breaks."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in MODULES:
                yield node.module
        elif isinstance(node, ast.Call):
            name = dotted(node.func) or ""
            if name in CALLS or name in {"yaml.load", "torch.jit.load"}:
                yield name
            elif isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
                yield node.func.attr
            elif name == "torch.load" and value(node, "weights_only") is not True:
                yield "torch.load without weights_only"
            elif name in {"np.load", "numpy.load"} and value(node, "allow_pickle") is not False:
                yield "np.load that may read pickles"
            if value(node, "shell"):
                yield "shell=True"
            if value(node, "verify") is False:
                yield "verify=False"
            if value(node, "host") in {"0.0.0.0", "::", ""}:
                yield "a host that is everybody"


def test_the_rules_are_seen():
    text = """
import pickle, os.path
from dill import loads
eval("1"); os.system("ls"); torch.load(f); torch.load(f, weights_only=False)
torch.load(f, weights_only=True); np.load(f); np.load(f, allow_pickle=False)
subprocess.run("ls", shell=True); yaml.load(f, Loader=L); archive.extractall(); model.eval()
uvicorn.run(app, host="0.0.0.0"); client(verify=False)
"""
    assert sorted(broken(text)) == sorted(
        ["pickle", "dill", "eval", "os.system", *["torch.load without weights_only"] * 2,
         "np.load that may read pickles", "shell=True", "yaml.load", "extractall",
         "a host that is everybody", "verify=False"]
    )  # fmt: skip


@pytest.mark.parametrize("name", OURS)
def test_no_code_of_ours_runs_what_it_reads(name):
    found = {
        (file.relative_to(ROOT).as_posix(), rule)
        for file in CODE
        if file.is_relative_to(ROOT / name)
        for rule in broken(file.read_text(encoding="utf-8"))
    }
    assert found == {key for key in ALLOWED if key[0].startswith(f"{name}/")}


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_no_page_asks_another_server_for_anything(file):
    text = file.read_text(encoding="utf-8")
    addresses = re.findall(
        r"""(?:src|href|action|url\(|@import|fetch\()\s*=?\s*["'(]?\s*(?:https?:)?//[^\s"')]*""",
        text,
    )
    assert addresses == []
    assert not re.search(r"""\son\w+\s*=\s*["']""", text), "a script in an attribute"
    assert "|safe" not in text.replace('|join("/<wbr>"|safe)', "")


@pytest.mark.parametrize(
    "file", [file for file in PAGES if "<html" in file.read_text()], ids=lambda file: file.name
)
def test_every_page_forbids_what_it_does_not_need(file):
    text = file.read_text(encoding="utf-8")
    said = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    served = (ROOT / "survey", ROOT / "flows" / "live")  # both apps send it in a header
    if any(map(file.is_relative_to, served)):
        from survey.app import middleware

        policy = middleware._HEADERS["Content-Security-Policy"]
        assert "unsafe" not in policy
    else:
        assert said is not None
        policy = said[1]
        # Styles stand in the file, for it is one file; scripts run by their hash or not at all.
        assert "unsafe" not in policy.replace("style-src 'unsafe-inline'", "")
    for rule in ("default-src 'none'", "base-uri 'none'", "form-action"):
        assert rule in policy


def test_the_page_of_criteria_runs_its_own_script_alone():
    html = criteria_page.html(tree.parse(ROOT / "params/criteria/starter.yaml"))

    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()

    assert f"script-src 'sha256-{digest}'" in html


def test_containers_are_reached_from_this_machine_alone():
    services = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]

    ports = [port for one in services.values() for port in one.get("ports", [])]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_what_security_md_calls_a_proof_is_there():
    named = re.findall(r"`(tests/[\w/]+\.py)`", (ROOT / "SECURITY.md").read_text("utf-8"))

    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []
