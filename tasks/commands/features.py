"""``atelier features``: trains the feature network and the independent judge.

Like the base it is an input, not a stage: it was trained once, on its own sketchbook, and
committed. Its judgement is independent of the annotator's: its labels are the poles that were
drawn, and its drawings are neither the base's nor those of ``data/``.
"""

from atelier.starter import drawings as starter
from atelier.starter import feature_network
from tasks.run import paths, progress

_SEED = 260143  # of drawings and training; neither the base's nor that of data/
_DRAWINGS = 6000
_HELD_OUT = 1000
_STEPS = 600


def run() -> None:
    """Draw, train, and write weights with their held-out accuracy."""
    drawings = []
    with progress.bar("sketchbook", _DRAWINGS, "drawings") as report:
        for drawing in starter.sketchbook(_DRAWINGS, _SEED):
            drawings.append(drawing)
            report(len(drawings), {})
    with progress.bar("features", _STEPS, "steps") as report:
        network = feature_network.train(
            drawings[_HELD_OUT:], seed=_SEED, steps=_STEPS, report=report
        )
    right = feature_network.accuracy(network, drawings[:_HELD_OUT])
    about: dict[str, object] = {
        "made_by": "atelier features",
        "drawings": f"sketchbook({_DRAWINGS}, {_SEED})",
        "steps": _STEPS,
        "held_out": _HELD_OUT,
        "held_out_accuracy": {head: round(share, 4) for head, share in right.items()},
    }
    feature_network.write(network, paths.FEATURE_NETWORK, about=about)
