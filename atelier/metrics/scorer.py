"""The scorer type, and how networks that score single pictures are placed and filled.

Shapes: ``B`` pictures in a batch.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atelier.errors import ArtifactError
from atelier.images import Pixels

# The score of each picture, float64 ``[B]``, given what it was asked to show.
Scorer = Callable[[Sequence[Pixels], Sequence[str]], NDArray[np.float64]]


@dataclass(frozen=True)
class Compute:
    """Where and in which precision a network runs."""

    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16", "float16"]

    @property
    def torch_dtype(self) -> torch.dtype:
        """Return the precision as torch names it."""
        return {
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
        }[self.dtype]

    def place(self, network: Any) -> Any:
        """Return the network there, in that precision, ready to be asked."""
        return network.to(device=self.device, dtype=self.torch_dtype).eval()


def unit(embeddings: Tensor) -> Tensor:
    """Return rows of length 1, float32, whatever precision they came in."""
    return torch.nn.functional.normalize(embeddings.float(), dim=-1)


def numbers(scores: Tensor) -> NDArray[np.float64]:
    """Return scores as the caches and statistics keep them."""
    found: NDArray[np.float64] = scores.detach().double().cpu().numpy()
    return found


def read_pickle(path: Path) -> dict[str, Any]:
    """Return the tensors of a ``.pt`` or ``.pth`` file; code in it is refused, never run.

    Raises:
        ArtifactError: It is damaged, or holds more than tensors.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises nearly anything
        reason = " ".join(str(error).split())[:160]
        raise ArtifactError(
            f"{path} cannot be read as weights alone ({type(error).__name__}: {reason}); run "
            "`atelier weights --check`, and fetch it again if it is damaged"
        ) from None
    return content


def fill(network: Any, tensors: dict[str, Any], path: Path, spare: frozenset[str]) -> None:
    """Put weights into a network: none may be missing, and no others be there than ``spare``.

    Raises:
        ArtifactError: The file does not belong to this network.
    """
    try:
        result = network.load_state_dict(tensors, strict=False)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise ArtifactError(f"{path} does not fit its network: {str(error)[:200]}") from None
    strangers = set(result.unexpected_keys) - spare
    missing = set(result.missing_keys) - spare
    if strangers or missing:
        raise ArtifactError(
            f"{path} does not fit its network: {len(missing)} weights are missing, such as "
            f"{sorted(missing)[:1]}, and {len(strangers)} are unknown, such as "
            f"{sorted(strangers)[:1]}"
        )
