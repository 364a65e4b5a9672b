"""Turn one setting at a time and paint the same prompts: ω, β, guidance in targets, sampling.

python examples/turn_parameters.py               # a few steps: shows only that it works
python examples/turn_parameters.py --theta1 artifacts/sft --pictures 300 --steps 40
"""

import argparse
from pathlib import Path

from atelier.config.profile import Profile
from atelier.reports import image_grids
from atelier.session import Session
from atelier.starter import drawings

ROOT = Path(__file__).parents[1]
PROMPTS = [
    "a landscape in blue",
    "a still life in green",
    "a city in orange",
    "a portrait in red",
]
CPO_S = {
    "objective": "cpo-s",
    "loser_target": "mirror-winner",
    "winner": "flipped",
    "init": "sft",
}
CPO = {"objective": "cpo", "winner": "labelled"}
TURNS = {  # the objective without its setting, the setting, its values, guidance when painting
    "omega": (CPO_S, "omega", (0, 2, 8), 2),
    "teacher-guidance": (CPO_S | {"omega": 1}, "teacher_guidance", (1, 2, 4), 1),
    "beta": (CPO, "beta", (10, 100, 1000), 2),
}
SHARED = {
    "teacher": "sft",
    "confidence": "ignored",
    "weighting": "constant",
    "learning_rate": 1e-3,
}
asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
asked.add_argument("--theta1", type=Path, help="a trained θ1; absent: a few steps")
asked.add_argument("--pictures", type=int, default=16, help="drawings to train on")
asked.add_argument("--steps", type=int, default=2, help="steps of the training of each θ")
asked.add_argument("--batch", type=int, default=8, help="pictures of one step")
asked.add_argument("--sampling", type=int, default=4, help="sampling steps")
asked.add_argument(
    "--turn", nargs="*", default=list(TURNS), help="omega, teacher-guidance, beta; or none"
)
asked.add_argument("--out", type=Path, default=ROOT / "artifacts" / "examples")
args = asked.parse_args()

session = Session.open(ROOT / "params" / "starter.yaml")
pictures = [
    session.judged(drawing.pixels, drawing.caption)
    for drawing in drawings.paintings(args.pictures, seed=1)
]
if args.theta1:
    session.load("theta1", args.theta1)
else:
    session.fine_tune(pictures, steps=args.steps, batch_images=args.batch)


def row(state, steps, guidance):
    """Paint the prompts, and count the negative attributes of a picture."""
    painted = session.paint(
        PROMPTS, range(len(PROMPTS)), state=state, steps=steps, guidance=guidance
    )
    judged = [session.judged(*one) for one in zip(painted, PROMPTS, strict=True)]
    return painted, sum(len(one.negative) for one in judged) / len(judged)


def save(name, rows):
    """Write a grid with the number of each row."""
    named = {f"{title} ({bad:.2f})": painted for title, (painted, bad) in rows.items()}
    file = args.out / f"turn-{name}.webp"
    file.parent.mkdir(parents=True, exist_ok=True)
    image_grids.labelled(named, PROMPTS).save(file, quality=85)
    print(f"{file.name}: {', '.join(named)}")


objectives = {
    f"{turn}-{value}": SHARED | base | {setting: value}
    for turn, (base, setting, values, _) in TURNS.items()
    for value in values
}
whole = session.profile.model_dump()
whole["cpo"] |= {"objectives": objectives, "featured": next(iter(objectives))}
session.profile = Profile.model_validate(whole)
for turn in args.turn:
    _, setting, values, guidance = TURNS[turn]
    rows = {"θ1": row("theta1", args.sampling, guidance)}
    for value in values:
        state = f"{turn}-{value}"
        session.align(pictures, state, steps=args.steps, batch_images=args.batch)
        rows[f"{setting} {value}"] = row(state, args.sampling, guidance)
    save(turn, rows)
counts = sorted({2, 4, 8, args.sampling})
save("steps", {f"θ1, {steps} sampling steps": row("theta1", steps, 2) for steps in counts})
shares = (1, 1.5, 2, 4)
save(
    "guidance",
    {f"θ1, guidance {share}": row("theta1", args.sampling, share) for share in shares},
)
