"""Feature network of the starter: features for FID, and the independent judge.

Shapes: ``B`` images, ``H W`` their sides, 64 features. It is trained on its own sketchbook to
classify subject, main hue and the pole of each criterion from slightly degraded pixels. FID
compares its penultimate layer if Inception's weights are not available. Its heads judge poles
without the thresholds of the measured annotator, which gives the training signal: if #A_neg
falls for both, the models did not only learn to please one of them.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load, save
from torch import Tensor, nn

from atelier import atomic
from atelier.criteria.tree import Pole
from atelier.errors import ArtifactError
from atelier.images import Pixels
from atelier.metrics.fid import Features
from atelier.reporting import Report
from atelier.starter.drawings import Drawing

NAME = "starter-features-1"
FEATURES = 64
_PIXELS = 128  # side of what the network sees; other sizes are resampled
_ANSWERS: tuple[Pole | None, ...] = ("positive", "negative", None)  # None: does not apply
_CERTAIN = 0.75  # lowest probability at which it judges
_BATCH = 64
_LEARNING_RATE = 3e-3
_WEIGHTS, _CONFIG = "network.safetensors", "config.json"


@dataclass(frozen=True)
class Vocabulary:
    """What the heads tell apart, in the order of their outputs."""

    subjects: tuple[str, ...]
    hues: tuple[str, ...]
    criteria: tuple[str, ...]


class Network(nn.Module):
    """Five convolutions; means over a grid and textures' strength; 64 features; linear heads.

    About 280,000 weights.
    """

    name = f"{NAME} ({FEATURES} features)"

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.fine = nn.Sequential(
            _block(3, 24, side=5, stride=2), _block(24, 32, side=3, stride=2)
        )
        self.middle = nn.Sequential(
            _block(32, 64, side=3, stride=2), _block(64, 96, side=3, stride=1)
        )
        self.coarse = _block(96, 96, side=3, stride=2)
        self.squeeze = nn.Linear(32 + 96 + 96 + 96 * 4 * 4, FEATURES)
        self.subject = nn.Linear(FEATURES, len(vocabulary.subjects))
        self.hue = nn.Linear(FEATURES, len(vocabulary.hues))
        self.poles = nn.Linear(FEATURES, len(vocabulary.criteria) * len(_ANSWERS))
        # Mean and standard deviation of each feature over the drawings of the training.
        self.centre = nn.Parameter(torch.zeros(FEATURES), requires_grad=False)
        self.spread = nn.Parameter(torch.ones(FEATURES), requires_grad=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the features ``[B, 64]`` of pixels in [-1, 1], ``[B, 3, 128, 128]``."""
        fine = self.fine(pixels)
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        textures = [maps.std(dim=(2, 3)) for maps in (fine, middle, coarse)]
        grid = F.adaptive_avg_pool2d(coarse, 4).flatten(1)
        squeezed: Tensor = self.squeeze(torch.cat([*textures, grid], dim=1))
        return F.silu(squeezed)

    def answers(self, features: Tensor) -> Tensor:
        """Return the logits of each criterion's poles, ``[B, criteria, 3]``."""
        logits: Tensor = self.poles(features)
        return logits.reshape(len(features), -1, len(_ANSWERS))

    @property
    def identity(self) -> str:
        """Return a name that changes with any weight; keys the cache of features."""
        content = b"".join(tensor.numpy().tobytes() for tensor in self.state_dict().values())
        return f"{NAME}-{hashlib.sha256(content).hexdigest()}"

    def features(self, images: Sequence[Pixels]) -> Features:
        """Return the features of uint8 RGB images ``[H, W, 3]``, float64 ``[N, 64]``.

        Standardised: each has mean 0 and variance 1 over the sketchbook, so that FID weighs
        them alike and a distance of 1 is one sketchbook's deviation in one feature.
        """
        standardised = (self._features(images) - self.centre) / self.spread
        features: Features = standardised.double().numpy()
        return features

    def judge(self, images: Sequence[Pixels]) -> list[list[tuple[str, Pole, float]]]:
        """Return (criterion, pole, probability) of each image, where the network is certain.

        It abstains below a probability of 0.75, and where it sees that a criterion does not
        apply.
        """
        with torch.no_grad():
            chances = self.answers(self._features(images)).softmax(-1).numpy()
        return [
            [
                (path, pole, float(chance))
                for path, row in zip(self.vocabulary.criteria, rows, strict=True)
                for pole, chance in zip(_ANSWERS, row, strict=True)
                if pole is not None and chance >= _CERTAIN
            ]
            for rows in chances
        ]

    @torch.no_grad()
    def _features(self, images: Sequence[Pixels]) -> Tensor:
        self.eval()
        return torch.cat([self(_stack(some)) for some in _parts(images, _BATCH)])


def train(drawings: Sequence[Drawing], *, seed: int, steps: int, report: Report) -> Network:
    """Train the network on drawings whose poles are known.

    Args:
        drawings: A sketchbook, a few thousand; not those of ``data/``.
        seed: Of weights, batches and damage; step i draws from (seed, i) alone.
        steps: Optimizer steps of 64 drawings.
        report: Called after each step with ``loss``.
    """
    vocabulary = _vocabulary(drawings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(vocabulary).train()
    pixels = torch.stack([torch.from_numpy(drawing.pixels) for drawing in drawings])
    targets = _targets(drawings, vocabulary)
    components = _patch_components(pixels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=_LEARNING_RATE, total_steps=steps, pct_start=0.1
    )
    for step in range(steps):
        generator = np.random.default_rng([seed, step])
        chosen = torch.from_numpy(generator.integers(len(drawings), size=_BATCH))
        seen = _damage(_scaled(pixels[chosen]), components, generator)
        loss = _loss(network, network(seen), targets[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        report(step + 1, {"loss": loss.item()})
    plain = network._features([drawing.pixels for drawing in drawings])
    network.centre.copy_(plain.mean(0))
    network.spread.copy_(plain.std(0))
    return network


def accuracy(network: Network, drawings: Sequence[Drawing]) -> dict[str, float]:
    """Return the share of right answers of each head: subject, hue, and each criterion.

    A criterion is right if the likeliest of good pole, bad pole and "does not apply" is the
    painted one.
    """
    targets = _targets(drawings, network.vocabulary)
    with torch.no_grad():
        features = network._features([drawing.pixels for drawing in drawings])
        said = torch.cat(
            [
                network.subject(features).argmax(1, keepdim=True),
                network.hue(features).argmax(1, keepdim=True),
                network.answers(features).argmax(2),
            ],
            dim=1,
        )
    right = (said == targets).double().mean(0).tolist()
    return dict(zip(("subject", "hue", *network.vocabulary.criteria), right, strict=True))


def write(network: Network, folder: Path, *, about: dict[str, object]) -> None:
    """Write weights (float16 safetensors) and ``config.json`` into ``folder``.

    Args:
        network: To be kept.
        folder: Made if need be.
        about: How it was trained and how well; stands in the config for people.
    """
    weights = {
        name: tensor.detach().half().contiguous()
        for name, tensor in network.state_dict().items()
    }
    config = {"name": NAME, **asdict(network.vocabulary), "about": about}
    atomic.write(folder / _WEIGHTS, save(weights))
    atomic.write(folder / _CONFIG, json.dumps(config, indent=2) + "\n")


def read(folder: Path) -> Network:
    """Read what ``write`` wrote.

    Raises:
        ArtifactError: The folder does not hold such a network.
    """
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        weights = load((folder / _WEIGHTS).read_bytes())
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{error.filename} is absent; `atelier features` trains it, in "
            "minutes; or set evaluate.features to 'inception'"
        ) from None
    if config["name"] != NAME:
        raise ArtifactError(
            f"{folder} holds {config['name']!r}, this version reads {NAME!r}; "
            "run `atelier features`"
        )
    heads = (tuple(config[key]) for key in ("subjects", "hues", "criteria"))
    network = Network(Vocabulary(*heads))
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return network.eval()


def _block(inputs: int, outputs: int, *, side: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, bias=False),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
    )


def _vocabulary(drawings: Iterable[Drawing]) -> Vocabulary:
    return Vocabulary(
        subjects=tuple(sorted({drawing.subject for drawing in drawings})),
        hues=tuple(sorted({_hue(drawing) for drawing in drawings})),
        criteria=tuple(sorted({path for drawing in drawings for path in drawing.poles})),
    )


def _hue(drawing: Drawing) -> str:
    """The last word of the caption: "a landscape in blue"."""
    return drawing.caption.rsplit(" ", 1)[-1]


def _targets(drawings: Sequence[Drawing], vocabulary: Vocabulary) -> Tensor:
    """Index of the right answer of subject, hue and each criterion, ``[B, 2 + criteria]``."""
    return torch.tensor(
        [
            [
                vocabulary.subjects.index(drawing.subject),
                vocabulary.hues.index(_hue(drawing)),
                *(_ANSWERS.index(drawing.poles.get(path)) for path in vocabulary.criteria),
            ]
            for drawing in drawings
        ]
    )


def _loss(network: Network, features: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy over all heads, each counting alike."""
    heads = [network.subject(features), network.hue(features)]
    heads += network.answers(features).unbind(1)
    losses = [F.cross_entropy(head, targets[:, place]) for place, head in enumerate(heads)]
    return torch.stack(losses).mean()


def _stack(images: Sequence[Pixels]) -> Tensor:
    """Images as the network reads them, ``[B, 3, 128, 128]`` in [-1, 1]."""
    return _scaled(torch.stack([torch.from_numpy(_sized(image)) for image in images]))


def _sized(image: Pixels) -> NDArray[np.uint8]:
    if image.shape[:2] == (_PIXELS, _PIXELS):
        return np.ascontiguousarray(image)
    resized = Image.fromarray(image).resize((_PIXELS, _PIXELS), Image.Resampling.LANCZOS)
    return np.array(resized)


def _scaled(pixels: Tensor) -> Tensor:
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def _parts(images: Sequence[Pixels], size: int) -> Iterable[Sequence[Pixels]]:
    return (images[start : start + size] for start in range(0, len(images), size))


# Damage: what a painter's codec and network do to pixels, so that no head hangs on a detail
# that a good picture may lack.

_PATCH = 8
_FEWEST_COMPONENTS, _MOST_COMPONENTS = 10, 40


def _patch_components(pixels: Tensor) -> Tensor:
    """First principal components of 8 × 8 patches, ``[40, 192]``."""
    some = _scaled(pixels[:256])
    patches = F.unfold(some, _PATCH, stride=_PATCH).transpose(1, 2).flatten(0, 1).double()
    centred = patches - patches.mean(0)
    vectors: Tensor = torch.linalg.eigh(centred.T @ centred)[1]
    return vectors.flip(1)[:, :_MOST_COMPONENTS].T.float()


def _damage(pixels: Tensor, components: Tensor, generator: np.random.Generator) -> Tensor:
    """Mirror, shift, and damage half of a batch by each of codec, blur, noise and tone."""
    pixels = _half(pixels, generator, lambda some: some.flip(3))
    pixels = _shifted(pixels, generator.integers(0, 9, size=2))
    kept = components[: generator.integers(_FEWEST_COMPONENTS, _MOST_COMPONENTS + 1)]
    pixels = _half(pixels, generator, lambda some: _coded(some, kept))
    width = generator.uniform(0.3, 1.1)
    pixels = _half(pixels, generator, lambda some: _blurred(some, width))
    noise = torch.from_numpy(generator.standard_normal(pixels.shape, dtype=np.float32))
    pixels = pixels + generator.uniform(0, 0.05) * noise
    gain, lift = generator.uniform(0.95, 1.05), generator.uniform(-0.04, 0.04)
    return pixels * gain + lift


def _half(
    pixels: Tensor, generator: np.random.Generator, change: Callable[[Tensor], Tensor]
) -> Tensor:
    """Change a random half of the batch."""
    chosen = torch.from_numpy(generator.permutation(len(pixels)) < len(pixels) // 2)
    changed = pixels.clone()
    changed[chosen] = change(pixels[chosen])
    return changed


def _shifted(pixels: Tensor, by: NDArray[np.int64]) -> Tensor:
    down, right = (int(pixel) for pixel in by)
    padded = F.pad(pixels, (4, 4, 4, 4), mode="replicate")
    return padded[:, :, down : down + _PIXELS, right : right + _PIXELS]


def _coded(pixels: Tensor, components: Tensor) -> Tensor:
    """Keep of each patch its mean over the batch and its first components."""
    patches = F.unfold(pixels, _PATCH, stride=_PATCH).transpose(1, 2)
    mean = patches.mean((0, 1))
    rebuilt = (patches - mean) @ components.T @ components + mean
    size = (int(pixels.shape[2]), int(pixels.shape[3]))
    return F.fold(rebuilt.transpose(1, 2), size, _PATCH, stride=_PATCH)


def _blurred(pixels: Tensor, width: float) -> Tensor:
    """Gaussian blur of standard deviation ``width`` pixels."""
    bell = torch.exp(-0.5 * (torch.arange(-3, 4) / width).square())
    bell = (bell / bell.sum()).expand(3, 1, 1, 7)
    padded = F.pad(pixels, (3, 3, 3, 3), mode="replicate")
    across = F.conv2d(padded, bell, groups=3)
    return F.conv2d(across, bell.transpose(2, 3), groups=3)
