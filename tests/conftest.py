"""What several tests stand on: a small complete profile and small pictures."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

os.environ.setdefault("HF_HUB_OFFLINE", "1")

PROFILE = """
model:
  family: flux
  source: base/starter
  revision: null
  dtype: float32
  pixels: 32
  text_tokens: 64
base: null
annotate:
  criteria: starter.yaml
  annotator: measured
  recorded: null
  captions: captions.csv
  smallest_side_pixels: 16
  largest_pixels: 1000000
split: {train: 0.8, validation: 0.1, test: 0.1, near_duplicate_bits: null, salt: starter}
sft:
  lora: &lora {rank: 4, alpha: 4, targets: all-linear}
  learning_rate: 0.001
  prompt_variants: 2
  attribute_dropout: 0.35
  caption_dropout: 0.1
  training: &training
    steps: 4
    batch_images: 2
    warmup_steps: 0
    schedule: constant
    weight_decay: 0.01
    clip_norm: 1.0
    ema_decay: null
    times: {uniform_share: 0.5, logit_mean: 0.8, logit_std: 1.0}
    seed: 0
    checkpoint_steps: 2
    report_steps: 1
cpo:
  objectives:
    cpo-s:
      objective: cpo-s
      loser_target: mirror-winner
      winner: labelled
      omega: 4.0
      weighting: constant
      learning_rate: 0.001
    cpo:
      objective: cpo
      winner: labelled
      beta: 500
      weighting: constant
      learning_rate: 0.0001
  champion: cpo-s
  lora: *lora
  training: *training
evaluate:
  prompts: 4
  steps: 2
  guidance: 1.0
  batch_images: 2
  features: starter
  bootstrap: 100
  grid_prompts: 2
  seed: 0
"""


@pytest.fixture
def profile() -> dict[str, Any]:
    """A complete valid profile, like the starter's, small; change it and validate it."""
    values: dict[str, Any] = yaml.safe_load(PROFILE)
    return values


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
