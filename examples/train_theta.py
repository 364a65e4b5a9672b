"""Train θ1 and θ in memory, paint with them, and write θ as a LoRA for diffusers.

python examples/train_theta.py              # a few steps; `make demo` takes 300 and 80
python examples/train_theta.py --sft 300 --cpo 80 --pictures 600
"""

import argparse
from pathlib import Path

from atelier.session import Session
from atelier.starter import drawings

ROOT = Path(__file__).parents[1]
asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
asked.add_argument("--sft", type=int, default=5, help="steps of the training of θ1")
asked.add_argument("--cpo", type=int, default=5, help="steps of the training of θ")
asked.add_argument("--pictures", type=int, default=32, help="drawings to train on")
asked.add_argument("--batch", type=int, default=8, help="pictures of one step")
asked.add_argument("--out", type=Path, default=ROOT / "artifacts" / "examples" / "theta")
args = asked.parse_args()

session = Session.open(ROOT / "params" / "starter.yaml")
pictures = [
    session.judged(drawing.pixels, drawing.caption)
    for drawing in drawings.paintings(args.pictures, seed=1)
]
first = session.fine_tune(pictures, steps=args.sft, batch_images=args.batch)
last = session.align(pictures, "cpo-s", steps=args.cpo, batch_images=args.batch)
print(f"θ1: loss {first['loss']:.3f} after {args.sft} steps")
print(f"θ:  loss {last['loss']:.3f} after {args.cpo} steps, drift {last['drift']:.2f}")

prompts = [
    "a landscape in blue",
    "a still life in green",
    "a city in orange",
    "a portrait in red",
]
for state in (None, "theta1", "cpo-s"):
    painted = session.paint(prompts, seeds=[0, 1, 2, 3], state=state, steps=6)
    bad = sum(len(session.judged(*one).negative) for one in zip(painted, prompts, strict=True))
    print(f"{state or 'base':7} paints {bad / len(prompts):.2f} negative attributes a picture")

session.save("cpo-s", args.out)
print(f"written: {args.out / 'pytorch_lora_weights.safetensors'}")
