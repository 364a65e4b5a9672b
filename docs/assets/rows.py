"""Three rows of the demo's grid, docs/demo.png → docs/pictures/rows.webp: base, θ1, aligned.

Run ``python docs/assets/rows.py`` after the demo's grid in docs/ was replaced.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from atelier.reports import image_grids

DOCS = Path(__file__).parents[1]
SIDE, GAP = 128, 6  # of a picture in the grid
ROWS = {0: "base", 1: "θ1: fine-tuned on attributes", 3: "aligned: CPO-S, one pass a step"}
COLUMNS = {
    0: "a portrait in blue",
    1: "a still life in yellow",
    2: "an abstract in yellow",
    3: "a landscape in red",
    5: "a seascape in yellow",
    7: "a portrait in violet",
}
GRID = (6, 8)  # rows and columns of the demo


def main() -> None:
    """Cut the pictures out of the grid, and put the chosen ones together again."""
    grid = np.asarray(Image.open(DOCS / "demo.png").convert("RGB"))
    height, width = grid.shape[:2]
    left, above = width - GRID[1] * (SIDE + GAP), height - GRID[0] * (SIDE + GAP)

    def picture(row: int, column: int) -> np.ndarray:
        top, start = above + row * (SIDE + GAP), left + column * (SIDE + GAP)
        return grid[top : top + SIDE, start : start + SIDE]

    chosen = {name: [picture(row, one) for one in COLUMNS] for row, name in ROWS.items()}
    file = DOCS / "pictures" / "rows.webp"
    image_grids.labelled(chosen, list(COLUMNS.values())).save(file, quality=90, method=6)


if __name__ == "__main__":
    main()
