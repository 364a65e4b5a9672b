"""Training curve of a base, base/NAME/curve.tsv → docs/pictures/curve-NAME.webp.

Run ``python docs/assets/base_curve.py base/starter`` after ``atelier base``.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

PICTURES = Path(__file__).parents[1] / "pictures"
WINDOW = 9  # reported steps of the running median
INK, ACCENT = "#1f3a4d", "#b5532a"  # as docs/assets/style.css has them


def main() -> None:
    """Draw the curve of each base that is named."""
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("base", nargs="+", type=Path, help="a folder with curve.tsv")
    asked.add_argument("--out", type=Path, default=PICTURES, help="folder for the pictures")
    args = asked.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for base in args.base:
        file = args.out / f"curve-{base.name}.webp"
        drawn(base).savefig(file, dpi=130, pil_kwargs={"quality": 90, "method": 6})
        print(file)  # noqa: T201


def drawn(base: Path) -> Figure:
    """Return the figure: loss with its running median, and the learning rate below."""
    rows = np.genfromtxt(base / "curve.tsv", delimiter="\t", names=True)
    training = json.loads((base / "base.json").read_text(encoding="utf-8"))["base"]["training"]
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    loss.plot(rows["step"], rows["loss"], color=INK, lw=0.7, alpha=0.5, label="one batch")
    median = running_median(rows["loss"], WINDOW)
    loss.plot(rows["step"], median, color=ACCENT, lw=1.8, label=f"median of {WINDOW} reports")
    loss.set_ylabel("loss: mean squared error\nof the prediction [latent units²]")
    loss.set_ylim(bottom=0)
    loss.legend(frameon=False)
    rate.plot(rows["step"], rows["rate"], color=INK, lw=1.2)
    rate.set_ylabel("learning rate")
    rate.set_ylim(bottom=0)
    rate.ticklabel_format(axis="y", scilimits=(-3, -3))
    rate.set_xlabel(f"optimizer step, of {training['batch_images']} images each")
    for axes in (loss, rate):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(0, rows["step"][-1])
    figure.suptitle(f"Training of base/{base.name}")
    return figure


def running_median(values: np.ndarray, window: int) -> np.ndarray:
    """Return the median of a window around each value, cut short at both ends."""
    half = window // 2
    places = range(len(values))
    return np.array([np.median(values[max(n - half, 0) : n + half + 1]) for n in places])


if __name__ == "__main__":
    main()
