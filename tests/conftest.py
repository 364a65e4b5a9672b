"""What several tests stand on: a small complete profile and small pictures."""

import contextlib
import json
import logging
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")  # clones that tests make have no .dvc/config

PROFILE = """
model:
  family: flux
  source: base/starter
  revision: null
  dtype: float32
  quantise: null
  pixels: 32
  text_tokens: 64
  text_chunks: 1
  buckets: null
  true_sizes: false
base: null
annotate:
  criteria: starter.yaml
  annotator: measured
  recorded: null
  adjudication: {rule: unanimous}
  vlm: null
  captions: captions.csv
  smallest_side_pixels: 16
  largest_pixels: 1000000
split:
  {train: 0.8, validation: 0.1, test: 0.1, near_duplicate_bits: null, train_share: 1.0,
   salt: starter}
sft:
  lora: &lora {rank: 4, alpha: 4, rslora: false, dora: false, dropout: 0, targets: all-linear}
  init: base
  learning_rate: 0.001
  prompt_variants: 2
  attribute_dropout: 0.35
  caption_dropout: 0.1
  weighting: constant
  training: &training
    steps: 4
    batch_images: 2
    images_at_once: null
    warmup_steps: 0
    schedule: constant
    optimizer: adamw
    weight_decay: 0.01
    clip_norm: 1.0
    ema_decay: null
    precision: fp32
    gradient_checkpointing: false
    compile: false
    times: {uniform_share: 0.5, logit_mean: 0.8, logit_std: 1.0, shift: 1.0}
    offset_noise: 0
    seed: 0
    checkpoint_steps: 2
    checkpoints_kept: 2
    report_steps: 1
    grids: null
    explosion: null
    drift_stop: false
cpo:
  objectives:
    cpo-s:
      objective: cpo-s
      loser_target: mirror-winner
      winner: labelled
      teacher: sft
      confidence: ignored
      omega: 4.0
      weighting: constant
      learning_rate: 0.001
    cpo:
      objective: cpo
      winner: labelled
      teacher: sft
      confidence: ignored
      beta: 500
      weighting: constant
      learning_rate: 0.0001
  featured: cpo-s
  caption_dropout: 0.0
  attribute_draws: 2
  pairs: {source: annotations, caption_similarity: 0.5, neighbours: 1, ties: dropped}
  lora: *lora
  training: *training
generate:
  part: test
  prompts: 4
  steps: 2
  guidance: 1.0
  distilled_guidance: null
  batch_images: 2
  seed: 0
evaluate:
  features: starter
  second_judge: starter
  metrics: [fid, kid, vendi, memorisation]
  scoring: {batch_images: 16, device: auto, dtype: float32}
report:
  grid_prompts: 2
survey:
  painters: [base, cpo-s]
  groups: [experts, laypeople]
  pairs: 4
  raters: 2
  pairs_each: 2
  checks: 1
  checks_passed: 0.6
  repeats: 1
  address: http://127.0.0.1:8100
  contact: null
  seed: 0
"""


def small_profile() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(PROFILE)
    return values


@pytest.fixture(autouse=True)
def _dvc_logs_to_no_closed_stream(monkeypatch):
    """Take DVC's handlers away: they hold the output of whichever test imported it first."""
    for name in ("dvc", "dvc_objects", "dvc_data"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])


@pytest.fixture
def profile() -> dict[str, Any]:
    """A complete valid profile, like the starter's, small; change it and validate it."""
    return small_profile()


@pytest.fixture
def paint():
    """A function that saves a picture of coloured noise, different for each seed."""

    def paint(path: Path, seed: int = 0, size: tuple[int, int] = (32, 32)) -> Path:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST).save(path)
        return path

    return paint


class ModelServer:
    """A running ``tests/model_server.py``."""

    def __init__(self, port):
        self.address = f"http://127.0.0.1:{port}"
        self.url = f"{self.address}/v1"

    def follow(self, **script):
        """Do this from now on, and forget what was asked."""
        self._call("/script", json.dumps(script).encode())

    def asked(self):
        return self._call("/asked", None)

    def _call(self, path, data):
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address + path, data, headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            return json.load(answer)


@pytest.fixture(scope="session")
def running_model_server():
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("model_server.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # it complains of every client that was killed
        text=True,
    )
    try:
        yield ModelServer(server.stdout.readline().strip())
    finally:
        server.communicate(timeout=30)


@pytest.fixture
def model_server(running_model_server):
    """A server of a model that answers at random, but fitly, until it is told otherwise."""
    running_model_server.follow()
    return running_model_server


@pytest.fixture
def vlm(model_server):
    """The section ``annotate.vlm`` that asks ``model_server``."""
    return {
        "base_url": model_server.url,
        "model": "toy-vl",
        "key_variable": None,
        "answers": "json_schema",
        "activation": "at_once",
        "concurrency": 8,
        "timeout_seconds": 10.0,
        "tries": 8,
        "longest_wait_seconds": 0.05,
        "pixels": 32,
        "criteria_per_call": 30,
        "votes": 1,
        "temperature": 0.0,
        "max_tokens": 4096,
        "max_tokens_name": "max_tokens",
        "write_captions": True,
        "image_tokens": 100,
        "prompt_price": 1.0,
        "completion_price": 10.0,
        "cost_cap": None,
    }


GALLERY_CRITERIA = """
domain: toy
version: "1"
literature: {}
criteria:
  edges: {positive: calm edges, negative: harsh edges, positive_means: "Soft.",
          negative_means: "Hard.", applies: any, sources: []}
  light: {positive: clear light, negative: dull light, positive_means: "Bright.",
          negative_means: "Grey.", applies: any, sources: [],
          measure: {name: value_range, positive_at: 70, negative_at: 68.5}}
"""
TOY_CRITERIA = """
domain: toy
version: "1"
literature: {}
criteria:
  edges: {positive: calm edges, negative: harsh edges, positive_means: "Soft.",
          negative_means: "Hard.", applies: any, sources: []}
  light: {positive: clear light, negative: dull light, positive_means: "Bright.",
          negative_means: "Grey.", applies: any, sources: []}
"""
TOY_BASE = """
corpus: data
images: 100
codec: {kind: pca, patch_pixels: 4, channels: 4}
caption_dropout: 0.1
grid_guidance: 2.0
learning_rate: 0.01
"""
TOY_NETWORKS = {
    "flux": """
{kind: flux, double_blocks: 1, single_blocks: 1, heads: 2, head_width: 16, text_width: 16,
 pooled_width: 16}
""",
    "chroma": """
{kind: chroma, double_blocks: 1, single_blocks: 1, heads: 2, head_width: 16, text_width: 16,
 modulation_width: 16}
""",
    "z_image": """
{kind: z_image, blocks: 1, refiner_blocks: 1, heads: 2, head_width: 16, text_width: 16}
""",
    "flux2_klein": """
{kind: flux2_klein, double_blocks: 1, single_blocks: 1, heads: 2, head_width: 16,
 text_width: 16}
""",
    "qwen_image": """
{kind: qwen_image, blocks: 1, heads: 2, head_width: 16, text_width: 16}
""",
    "sd3": """
{kind: sd3, blocks: 2, heads: 2, head_width: 16, text_width: 32, clip_widths: [8, 16],
 pooled_width: 16}
""",
    "sdxl": """
{kind: sdxl, predicts: v, widths: [16, 32], attention: [false, true], layers: 1, head_width: 16,
 groups: 8, text_widths: [8, 16], pooled_width: 16}
""",
}
TOY_PAINTINGS = 12


class Notebook:
    """Stands where a tracked run would: keeps what a stage says of itself."""

    def __init__(self):
        self.results, self.curves, self.pictures, self.files = {}, {}, [], []
        self.said, self.parts, self.settings = {}, {}, {}

    def begin(self, *, beside=False):
        pass

    @contextlib.contextmanager
    def part(self, name, settings, weights):
        self.settings[name] = settings
        own = self.parts[name] = Notebook()
        yield own
        self.pictures += own.pictures
        assert weights.is_dir()

    def metrics(self, values, step=None):
        if step is None:
            self.results |= values
        else:
            self.curves.setdefault(step, {}).update(values)

    def picture(self, name, picture, step=None):
        self.pictures.append(name)

    def tags(self, values):
        self.said |= values

    def file(self, path):
        assert path.exists()
        self.files.append(path.as_posix())


@pytest.fixture
def notebook():
    return Notebook()


@pytest.fixture
def family():
    """Which family the studio's base is of; a test may parametrize it."""
    return "flux"


@pytest.fixture
def studio(tmp_path, monkeypatch, profile, paint, family):
    """A repository in which sft can start: pictures, split, criteria, params and a base."""
    from atelier.config.profile import Profile
    from tasks.commands import base
    from tasks.run import paths

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # absent again afterwards: MLflow sets it
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    rows = ["file,caption"]
    for number in range(TOY_PAINTINGS):
        paint(paths.DATA / f"{number}.png", number)
        rows.append(f"{number}.png,a sea number {number % 3}")
    (paths.DATA / "captions.csv").write_text("\n".join(rows) + "\n")
    paths.CRITERIA.mkdir(parents=True)
    paths.ANNOTATE.mkdir(parents=True)
    for file in (paths.CRITERIA / "toy.yaml", paths.JUDGED_BY):
        file.write_text(TOY_CRITERIA)
    profile["annotate"]["criteria"] = "toy.yaml"
    profile["model"] |= {"family": family, "text_tokens": 16}
    training = {**profile["sft"]["training"], "steps": 3}
    network = yaml.safe_load(TOY_NETWORKS[family])
    profile["base"] = {**yaml.safe_load(TOY_BASE), "network": network, "training": training}
    (paths.PARAMS / "profile.yaml").write_text("profile: toy\n")
    (paths.PARAMS / "toy.yaml").write_text(yaml.safe_dump(profile))
    _write_toy_split()
    checked = Profile.model_validate(profile)
    base.run(checked, Notebook())
    return checked


@pytest.fixture
def gallery(studio):
    """A studio after cpo: adapters with weights, a split, and the starter's features."""
    from atelier.criteria import annotations
    from atelier.starter import feature_network
    from atelier.starter.feature_network import Network, Vocabulary
    from tasks.run import paths

    paths.JUDGED_BY.write_text(GALLERY_CRITERIA)
    records = annotations.read(paths.SPLIT / "train.jsonl", annotations.Record)
    hostile = records[0].model_copy(update={"caption": "<script>alert('x')</script>"})
    (paths.SPLIT / "test.jsonl").write_text(annotations.lines([hostile, *records[1:5]]))
    (paths.SPLIT / "validation.jsonl").write_text(annotations.lines(records[:1]))
    (paths.ANNOTATE / "quarantine.jsonl").write_text('{"file": "<b>.png", "reason": "empty"}\n')
    _save_toy_adapters(studio)
    vocabulary = Vocabulary(("sea",), ("blue",), ("edges", "unknown/criterion"))
    feature_network.write(Network(vocabulary), paths.BASE / "starter" / "features", about={})
    return studio


def _save_toy_adapters(studio):
    from atelier.models import adapters, loading
    from tasks.run import paths

    painter = loading.load(studio.model)
    for number, folder in enumerate((paths.SFT, paths.CPO / "cpo-s", paths.CPO / "cpo")):
        name = folder.name
        adapters.add(painter.network, name, studio.sft.lora, seed=number)
        for key, parameter in adapters.weights(painter.network, name).items():
            if ".lora_B." in key:
                parameter.data.fill_(0.01 * (number + 1))
        adapters.save(painter, name, folder)
        drift = "" if folder == paths.SFT else "\t0.25"
        heading = "step\tloss" + ("\tdrift" if drift else "")
        (folder / "curve.tsv").write_text(f"{heading}\n1\t0.5{drift}\n2\t0.4{drift}\n")


def _write_toy_split():
    from atelier import images
    from atelier.criteria import annotations
    from tasks.run import paths

    records = [
        annotations.Record(
            image=images.sha256(paths.DATA / f"{number}.png"),
            file=f"{number}.png",
            caption=f"a sea number {number % 3}",
            positive=["edges"] if number % 2 else ["light"],
            negative=["light"] if number % 2 else [],
        )
        for number in range(TOY_PAINTINGS)
    ]
    paths.SPLIT.mkdir(parents=True)
    (paths.SPLIT / "train.jsonl").write_text(annotations.lines(records))


@pytest.fixture
def stage():
    """A function that starts a stage as dvc does, in a process of its own."""

    def start(name):
        return subprocess.Popen(
            [sys.executable, "-m", "tasks", name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def mlflow_tables(tmp_path_factory):
    """An MLflow database without a run, made once: its migrations take seconds."""
    import mlflow

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file
