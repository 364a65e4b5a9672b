"""Paths of all files, relative to the repository root."""

import os
from pathlib import Path

DATA = Path("data")
DATA_PIN = Path("data.dvc")
DVC_LOCK = Path("dvc.lock")
PARAMS = Path("params")
SWITCH = PARAMS / "profile.yaml"
CRITERIA = PARAMS / "criteria"  # `annotate.criteria` names a file in it
LABELS = Path("labels")  # what people and other judges said; `annotate.recorded` names files
CERTIFICATES = Path("certificates")  # of judges; `report` shows and corrects by them
LORAS = Path("loras")  # of other trainers; `init` of sft and of objectives names one
FEATURE_NETWORK = Path("base/starter/features")  # whose features FID compares by default
BASE = Path("base")  # base/<profile>: the model that is taught, in diffusers' layout
ARTIFACTS = Path("artifacts")
CODE = ARTIFACTS / "code"  # what each stage's code does, as hashes
ANNOTATE = ARTIFACTS / "annotate"
JUDGED_BY = ANNOTATE / "criteria.yaml"  # the copy that all later stages read
SPLIT = ARTIFACTS / "split"
SFT = ARTIFACTS / "sft"
CPO = ARTIFACTS / "cpo"
DIALS = ARTIFACTS / "dials"  # DIALS/<root>: a small LoRA that moves one root; no stage's
DIALS_MEASURED = ARTIFACTS / "dials-measured"  # the matrix, its page and its pictures
GENERATE = ARTIFACTS / "generate"  # GENERATE/<candidate>/000.png and so on
EVALUATE = ARTIFACTS / "evaluate"
REPORT = ARTIFACTS / "report"
SUITES = REPORT / "metrics.json"  # what was measured of each candidate
PLOTS = REPORT / "plots"
PAGE = REPORT / "report.html"
COMPARISON = ARTIFACTS / "compare" / "comparison.json"  # of two registered models; no stage's
SUITE = REPORT / "suite.json"  # what was asked for, measured or not, and by what
CERTIFIED = REPORT / "certificate.json"  # which certificate the annotator has, if any
CARDS = REPORT / "cards"  # CARDS/<candidate>/README.md
CACHE = ARTIFACTS / "cache"  # latents and text embeddings, keyed by content; no stage's output
CHECKSUMS = CACHE / "checksums.json"  # of large files, by size and time of change
ANSWERS = CACHE / "answers"  # what models were paid for: keep it, or pay again
SURVEY = ARTIFACTS / "survey"  # studies with people's votes; no run deletes them
LIVE = ARTIFACTS / "live"  # where runs are, for their live pages; no stage's output
GPU_STEP = ARTIFACTS / "gpu-step.json"  # what `benchmarks.gpu_step` measured; no stage's
MLFLOW = ARTIFACTS / "mlflow"  # runs and models, unless MLFLOW_TRACKING_URI says otherwise
RECEIPT = "ATELIER_RECEIPT"  # variable: the file that a stage makes once it has finished
RESUME = ARTIFACTS / "resume"  # what an interrupted stage goes on from; no stage's output


def profile(name: str) -> Path:
    """Return the file of the profile called ``name``."""
    return PARAMS / f"{name}.yaml"


def milestone(folder: Path, steps: int) -> Path:
    """Return where the weights lie that a training kept after some of its steps."""
    return folder / f"step-{steps}"


def weights() -> Path:
    """Return where the metrics' weights lie: ``weights/``, or what ATELIER_WEIGHTS names."""
    return Path(os.environ.get("ATELIER_WEIGHTS") or "weights")
