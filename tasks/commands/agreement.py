"""``atelier agreement``: how often the annotator reads the poles that were drawn.

The poles that were drawn are not stored in a file; they are drawn again here, for this table
alone.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from atelier.annotators import measured
from atelier.config.profile import read_profile
from atelier.criteria import tree
from atelier.criteria.agreement import Agreement, Verdicts, compare
from atelier.starter import drawings as starter
from atelier.starter.drawings import Drawing
from tasks.run import paths, progress
from tasks.run.console import console

PROFILE = "starter"
DRAWINGS = 600
SEED = 11  # neither the paintings' nor the sketchbook's
_CODEC_DRAWINGS = 600

Pictures = Sequence[NDArray[np.uint8]]


def run() -> None:
    """Print the agreement per criterion, on drawings as they are and after the codec.

    *Abstains* is the share of painted poles about which the annotator says nothing, *unasked*
    the number of drawings on which it judges although the criterion does not apply.
    """
    drawings = list(starter.paintings(DRAWINGS, SEED))
    pixels = [drawing.pixels for drawing in drawings]
    coded, psnr = through_codec(pixels)
    for title, pictures in (
        ("as drawn", pixels),
        (f"after the starter's codec, {psnr:.1f} dB", coded),
    ):
        console().print(_table(title, measure(drawings, pictures)))


def measure(drawings: Sequence[Drawing], pictures: Pictures) -> dict[str, Agreement]:
    """Compare what was painted with what is measured on ``pictures`` of the drawings."""
    criteria = tree.parse(paths.CRITERIA / f"{PROFILE}.yaml")
    painted: Verdicts = {
        (str(number), criterion): pole
        for number, drawing in enumerate(drawings)
        for criterion, pole in drawing.poles.items()
    }
    seen: dict[tuple[str, str], starter.Pole] = {}
    with progress.bar("agreement", total=len(pictures), unit="images") as report:
        for number, picture in enumerate(pictures):
            for criterion, pole, _ in measured.judge(picture, criteria):
                seen[str(number), criterion] = pole
            report(number + 1, {})
    return compare(painted, seen)


def through_codec(pixels: Pictures) -> tuple[Pictures, float]:
    """Encode and decode pictures with the codec that a base of the starter profile fits.

    Returns:
        The pictures, and the peak signal-to-noise ratio over all of them, in dB.
    """
    import torch

    from atelier.models import codec
    from atelier.models.sampling import to_pixels

    base = read_profile(paths.profile(PROFILE)).base
    if base is None or base.codec.kind != "pca":
        raise ValueError(f"the {PROFILE} profile has no codec of its own")
    sketches = [drawing.pixels for drawing in starter.sketchbook(_CODEC_DRAWINGS, SEED)]
    fitted = codec.fit(
        to_pixels(np.stack(sketches)), base.codec.patch_pixels, base.codec.channels
    )
    with torch.inference_mode():
        latents = fitted.encode(to_pixels(np.stack(pixels))).latents
        decoded = fitted.decode(latents, return_dict=False)[0].clamp(-1, 1)
    coded = ((decoded + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    error = np.mean((coded.astype(float) - np.stack(pixels)) ** 2)
    return list(coded), float(10 * np.log10(255**2 / error))


def _table(title: str, agreements: dict[str, Agreement]) -> Table:
    table = Table(title=f"measured against painted, {title} ({DRAWINGS} drawings)")
    table.add_column("criterion", no_wrap=True)
    for column in ("agrees", "95% interval", "kappa", "abstains", "unasked"):
        table.add_column(column, justify="right")
    for criterion, one in agreements.items():
        low, high = one.interval
        table.add_row(
            criterion,
            f"{one.share:.3f}",
            f"{low:.3f}–{high:.3f}",
            f"{one.kappa:.2f}",
            f"{one.abstention:.1%}",
            str(one.second_alone),
        )
    return table
