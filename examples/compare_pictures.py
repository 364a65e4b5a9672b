"""Compare two sets of pictures: negative attributes with intervals, FID, KID, diversity.

The sets are drawings in which each pole is the good one with probability 0.8, and drawings in
which both poles are equally likely.
"""

from pathlib import Path

from atelier.annotators import measured
from atelier.criteria import tree
from atelier.metrics import fid, negatives, vendi
from atelier.starter import drawings, feature_network

ROOT = Path(__file__).parents[1]
COUNT = 60

criteria = tree.parse(ROOT / "params" / "criteria" / "starter.yaml")
network = feature_network.read(ROOT / "base" / "starter" / "features")
sets = {
    "mostly good": list(drawings.paintings(COUNT, seed=5)),
    "half good": list(drawings.sketchbook(COUNT, seed=5)),
}
features = {}
for name, drawn in sets.items():
    pixels = [one.pixels for one in drawn]
    verdicts = [
        {path: pole for path, pole, _ in measured.judge(one, criteria)} for one in pixels
    ]
    captions = [one.caption for one in drawn]
    counted = negatives.mean(verdicts, criteria, captions, "negative")
    features[name] = network.features(pixels)
    print(
        f"{name}: {counted.estimate:.2f} [{counted.low:.2f}, {counted.high:.2f}] negative "
        f"attributes a picture, diversity {vendi.vendi(features[name]):.1f}"
    )
between = fid.distance(*features.values(), extractor=network.identity, seed=0)
print(f"between them: FID {between.fid:.1f}, KID {between.kid:.3f}")
