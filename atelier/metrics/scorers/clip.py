"""CLIP embeddings of pictures and texts, shared by several metrics.

Shapes: ``B`` pictures, ``S`` side in pixels, ``L`` tokens, ``D`` the shared width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from atelier.errors import ArtifactError
from atelier.images import Pixels
from atelier.metrics.scorer import Compute

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of OpenAI's training pictures, RGB in [0, 1]
STD = (0.26862954, 0.26130258, 0.27577711)
HOW = (
    "shorter side to {side} pixels by Pillow's bicubic filter, middle square, [0, 1], OpenAI's "
    "mean and deviation; captions as they are, cut at {tokens} tokens"
)


def preprocess(images: Sequence[Pixels], side: int) -> Tensor:
    """Return pictures as CLIP was trained on, float32 ``[B, 3, S, S]``.

    The shorter side is resampled to ``side`` by Pillow's bicubic filter (which averages when it
    shrinks), the middle square is cut, and each channel is ``(x / 255 - mean) / deviation``.
    """
    return normalised(torch.stack([_square(image, side) for image in images]) / 255)


def normalised(pixels: Tensor) -> Tensor:
    """Return pixels in [0, 1], ``[B, 3, S, S]``, less CLIP's mean over its deviation."""
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def _square(image: Pixels, side: int) -> Tensor:
    picture = Image.fromarray(image)
    short = min(picture.size)
    width, height = (int(side * length / short) for length in picture.size)
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    cut = np.array(resized.crop((left, top, left + side, top + side)))
    return torch.from_numpy(cut).permute(2, 0, 1).float()


class Clip:
    """A CLIP of the transformers library, with its words."""

    def __init__(self, folder: Path, compute: Compute) -> None:
        """Load network and tokenizer from ``folder``.

        Raises:
            ArtifactError: The folder holds no CLIP, or a tokenizer that is not its own.
        """
        from transformers import AutoTokenizer, CLIPModel

        from atelier.models.denoiser import quiet

        try:
            with quiet():
                network = CLIPModel.from_pretrained(folder, local_files_only=True)
                self._words = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"{folder} holds no CLIP that can be read ({str(error)[:160]}); run `atelier "
                "weights --check`"
            ) from None
        # transformers makes up a tiny vocabulary where files are absent, without a word.
        if len(self._words) != network.config.text_config.vocab_size:
            raise ArtifactError(
                f"the tokenizer in {folder} knows {len(self._words)} tokens, the network "
                f"{network.config.text_config.vocab_size}; fetch it again"
            )
        self._compute = compute
        self.network: Any = compute.place(network)
        self.side = int(network.config.vision_config.image_size)
        self.tokens = int(network.config.text_config.max_position_embeddings)

    @torch.no_grad()
    def see(self, images: Sequence[Pixels]) -> Tensor:
        """Return the projected embedding of each picture, ``[B, D]``, not normalised."""
        pixels = preprocess(images, self.side).to(
            device=self._compute.device, dtype=self._compute.torch_dtype
        )
        return _projected(self.network.get_image_features(pixel_values=pixels))

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> Tensor:
        """Return the projected embedding of each caption, ``[B, D]``, not normalised."""
        tokens = self._words(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.tokens,
            return_tensors="pt",
        ).to(self._compute.device)
        return _projected(
            self.network.get_text_features(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            )
        )


def _projected(output: Any) -> Tensor:
    """Transformers 5 answers with an object whose pooled output is the projection."""
    found: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return found
