"""Read a criteria file and judge pictures by its pixel measures.

python examples/judge_pictures.py                     # three drawings of the starter
python examples/judge_pictures.py sea.jpg lake.png    # your own, by 54 measured criteria
"""

import sys
from pathlib import Path

from atelier.annotators import measured
from atelier.criteria import tree
from atelier.images import read, square
from atelier.starter import drawings

CRITERIA = Path(__file__).parents[1] / "params" / "criteria"

files = [Path(name) for name in sys.argv[1:]]
if files:
    criteria = tree.parse(CRITERIA / "painting-measured.yaml")
    pictures = {
        file.name: square(read(file, largest_pixels=100_000_000), 512) for file in files
    }
else:
    criteria = tree.parse(CRITERIA / "starter.yaml")
    drawn = list(drawings.paintings(3, seed=0))
    pictures = {f"{n}: {one.caption}": one.pixels for n, one in enumerate(drawn)}

print(f"{len(measured.measured(criteria))} of {len(criteria.leaves())} criteria have a measure")
for name, pixels in pictures.items():
    print(name)
    for path, pole, confidence in measured.judge(pixels, criteria):
        phrase = criteria.criterion(path).phrase(pole)
        print(f"  {pole:8} {confidence:.2f}  {path}: {phrase}")
