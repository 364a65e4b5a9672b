"""Kubernetes' files against its own schemas, and the Dockerfile against the repository."""

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from prefect.utilities.templating import apply_values

ROOT = Path(__file__).parents[2]
VERSIONS = ("1.31", "1.34")
needs_schemas = pytest.mark.skipif(
    importlib.util.find_spec("kubernetes_validate") is None,
    reason="kubernetes-validate is absent; it is in the extra `dev`",
)


def rendered(pool, **values):
    """The manifest that Prefect's worker would send, by Prefect's own templating."""
    template = json.loads((ROOT / f"kubernetes/{pool}.json").read_text())
    defaults = {
        name: one["default"]
        for name, one in template["variables"]["properties"].items()
        if "default" in one
    }
    manifest = template["job_configuration"]["job_manifest"]
    found = apply_values(manifest, defaults | {"image": "registry/atelier:1"} | values)
    container = found["spec"]["template"]["spec"]["containers"][0]
    # The worker splits the command, and lists the variables.
    container["args"] = container["args"].split()
    container["env"] = [{"name": k, "value": v} for k, v in container["env"].items()]
    return found


def check(manifest):
    import kubernetes_validate

    for version in VERSIONS:
        kubernetes_validate.validate(manifest, version, strict=True)


@needs_schemas
@pytest.mark.parametrize("pool", ["cpu", "gpu"])
def test_the_job_of_a_pool_is_one_that_kubernetes_takes(pool):
    job = rendered(pool, node_selector={"gpu": "a100"}, labels={"team": "art"})

    check(job)
    spec = job["spec"]["template"]["spec"]
    limits = spec["containers"][0]["resources"]["limits"]
    assert limits.get("nvidia.com/gpu") == (1 if pool == "gpu" else None)
    assert spec["nodeSelector"] == {"gpu": "a100"}
    claims = [one["persistentVolumeClaim"] for one in spec["volumes"] if "emptyDir" not in one]
    assert claims == [{"claimName": "atelier"}]


@needs_schemas
def test_a_mistake_in_a_manifest_is_found():
    import kubernetes_validate

    job = rendered("cpu")
    job["spec"]["template"]["spec"]["containers"][0]["resource"] = {}

    with pytest.raises(kubernetes_validate.ValidationError):
        check(job)


@needs_schemas
def test_the_workers_manifests_are_what_kubernetes_takes():
    manifests = list(yaml.safe_load_all((ROOT / "kubernetes/workers.yaml").read_text()))

    for manifest in manifests:
        check(manifest)
    kinds = [manifest["kind"] for manifest in manifests]
    assert kinds.count("Deployment") == 2
    names = {one["metadata"]["name"] for one in manifests if one["kind"] == "ServiceAccount"}
    pods = [one["spec"]["template"]["spec"] for one in manifests if one["kind"] == "Deployment"]
    assert {pod["serviceAccountName"] for pod in pods} == names
    pinned = re.search(r"prefect/prefect:\S+", (ROOT / "docker-compose.yaml").read_text())
    version = next(
        line.partition("==")[2]
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line.startswith("prefect==")
    )
    for pod in pods:
        assert pod["containers"][0]["image"].startswith(f"prefecthq/prefect:{version}-")
    assert pinned is None or version in pinned[0]


def test_volumes_are_mounted_where_the_image_has_folders_of_its_user():
    made = re.search(r"^RUN mkdir -p (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    job = rendered("gpu")
    pod = job["spec"]["template"]["spec"]

    mounts = {one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}

    assert {f"/atelier/{name}" for name in made[1].split()} == mounts - {"/dev/shm"}
    assert f"--uid {pod['securityContext']['runAsUser']} " in (ROOT / "Dockerfile").read_text()


def steps():
    """Instructions of the Dockerfile, with what they are given."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [line.split(None, 1) for line in lines]


def test_the_dockerfile_has_instructions_that_docker_knows_and_a_shell_reads():
    known = {"FROM", "RUN", "USER", "WORKDIR", "ENV", "COPY", "CMD"}

    assert {name for name, _ in steps()} <= known
    assert steps()[0] == ["FROM", "python:3.11-slim"]
    for name, given in steps():
        if name == "RUN":
            subprocess.run(["sh", "-n", "-c", given], check=True)
        if name == "CMD":
            assert json.loads(given)
    installs = [given for _, given in steps() if given.startswith("pip install")]
    assert installs == ["pip install --no-cache-dir -c constraints.txt -e '.[scale]'"]


def test_the_image_has_every_file_of_git_and_nothing_that_git_ignores():
    """A worker refuses a clone with changes, as a file that is left out would be."""
    import pathspec

    words = (ROOT / ".dockerignore").read_text().splitlines()
    # Docker's patterns begin at the root; git's do so with a slash.
    rooted = [f"!/{w[1:]}" if w.startswith("!") else f"/{w}" for w in words if w]
    ignored = pathspec.GitIgnoreSpec.from_lines([w for w in rooted if not w.startswith("/#")])
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert [
        name for name in listed.stdout.split("\n") if name and ignored.match_file(name)
    ] == []
    for name in (".venv/bin/python", "artifacts/sft/a", "data/1.png", "base/sdxl/unet/x"):
        assert ignored.match_file(name), name
