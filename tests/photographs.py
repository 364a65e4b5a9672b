"""Photographs to try docs/bring-your-own-domain.md with, and what two people say of them.

``python tests/photographs.py`` makes 72 pictures and ``captions.csv`` in ``data/``; and, as
people would hand them in, ``ann.csv`` (a table) and ``ben.json`` (as Label Studio exports).
"""

import csv
import hashlib
import json
import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 160
SCENES = ("a lake below hills", "a tower on a square", "a boat at sea", "a tree in a field",
          "houses along a street", "a vase on a table")  # fmt: skip
SHOTS = 12  # of each scene; the last two are one burst
FAULTS = ("technique/sharpness", "technique/highlights", "technique/contrast",
          "technique/grain", "framing/horizon", "framing/clutter", "colour/cast",
          "colour/life")  # fmt: skip


def scene(number, chance):
    """One scene, twice as large as it will be, in lively colours, level and sharp."""
    side = 2 * SIDE
    sky, ground, thing = ((70, 140, 220), (60, 120, 60), (200, 60, 50))
    shift = [chance.randint(-25, 25) for _ in range(9)]
    sky, ground, thing = (
        tuple(
            max(0, min(255, value + shift[3 * row + column]))
            for column, value in enumerate(rgb)
        )
        for row, rgb in enumerate((sky, ground, thing))
    )
    picture = Image.new("RGB", (side, side), sky)
    draw = ImageDraw.Draw(picture)
    line = side * chance.uniform(0.5, 0.65)
    draw.rectangle((0, line, side, side), fill=(30, 70, 130) if number in {0, 2} else ground)
    x = side * chance.uniform(0.3, 0.7)
    wide = side * chance.uniform(0.1, 0.16)
    if number == 0:
        for step in (-1, 0, 1):
            peak = x + step * 90
            draw.polygon(
                [(peak - 110, line), (peak, line - 100), (peak + 110, line)], fill=ground
            )
    elif number == 1:
        draw.rectangle((x - wide / 2, line - 150, x + wide / 2, line + 20), fill=thing)
        draw.polygon(
            [(x - wide, line - 150), (x, line - 200), (x + wide, line - 150)], fill=(40, 30, 30)
        )
    elif number == 2:
        draw.polygon(
            [
                (x - wide, line),
                (x + wide, line),
                (x + wide / 2, line + 30),
                (x - wide / 2, line + 30),
            ],
            fill=thing,
        )
        draw.polygon(
            [(x, line - 5), (x, line - 120), (x + wide, line - 5)], fill=(245, 245, 235)
        )
    elif number == 3:
        draw.rectangle((x - 8, line - 60, x + 8, line + 40), fill=(80, 50, 30))
        draw.ellipse((x - wide, line - 60 - 2 * wide, x + wide, line - 40), fill=(30, 90, 40))
    elif number == 4:
        for place in range(5):
            top = line - chance.uniform(50, 110)
            colour = tuple(chance.randint(90, 220) for _ in range(3))
            draw.rectangle(
                (place * side / 5, top, (place + 0.85) * side / 5, line), fill=colour
            )
    else:
        draw.ellipse((x - wide, line - 90, x + wide, line + 30), fill=thing)
        draw.ellipse((x - wide / 2, line - 150, x + wide / 2, line - 80), fill=(240, 220, 90))
    return picture


def spoil(picture, faults, chance):
    """The photograph that was taken, at half the size."""
    if "framing/clutter" in faults:
        draw = ImageDraw.Draw(picture)
        for _ in range(9):
            x, y = (chance.uniform(0, picture.width) for _ in range(2))
            draw.ellipse((x - 9, y - 9, x + 9, y + 9), fill=(255, 255, 250))
    if "framing/horizon" in faults:
        turn = chance.choice((-1, 1)) * chance.uniform(7, 12)
        picture = picture.rotate(turn, Image.Resampling.BICUBIC)
        edge = picture.width // 7
        picture = picture.crop((edge, edge, picture.width - edge, picture.height - edge))
    picture = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    if "technique/sharpness" in faults:
        picture = picture.filter(ImageFilter.GaussianBlur(3.5))
    values = np.asarray(picture, np.float64)
    grey = values.mean(2, keepdims=True)
    if "colour/life" in faults:
        values = grey + 0.3 * (values - grey)
    if "colour/cast" in faults:
        values = values * (1.3, 1.0, 0.6)
    if "technique/contrast" in faults:
        values = 128 + 0.35 * (values - 128)
    if "technique/highlights" in faults:
        values = values * 1.7 + 30
    noise = 26 if "technique/grain" in faults else 2
    values = values + np.random.default_rng(chance.randrange(2**32)).normal(
        0, noise, values.shape
    )
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8))


def take(data):
    """Make the pictures and the table; return the faults of each file."""
    truth, rows = {}, []
    data.mkdir(parents=True, exist_ok=True)
    for number, caption in enumerate(SCENES):
        for shot in range(SHOTS):
            chance = random.Random(f"{number} {shot}")
            same = random.Random(f"{number} {min(shot, SHOTS - 2)}")  # a burst: one motif
            faults = {fault for fault in FAULTS if chance.random() < 0.3}
            words = caption.split()[1] if caption.startswith("a") else "houses"
            name = f"{words}-{shot:02}.jpg"
            spoil(scene(number, same), faults, chance).save(data / name, quality=92)
            truth[name] = faults
            artwork = f"{words} burst" if shot >= SHOTS - 2 else ""
            rows.append({"file": name, "caption": caption, "artwork": artwork})
    with (data / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ("file", "caption", "artwork"))
        table.writeheader()
        table.writerows(rows)
    return truth


def opinions(truth, person, errs, silent):
    """What somebody says who errs, and keeps silent, so often: (file, criterion, pole)."""
    chance = random.Random(person)
    for name, faults in truth.items():
        for criterion in FAULTS:
            wrong, nothing = chance.random() < errs, chance.random() < silent
            if not nothing:
                yield (
                    name,
                    criterion,
                    "negative" if (criterion in faults) != wrong else "positive",
                )


def hand_in(truth, data, folder):
    """Write what ann says as CSV, and what ben says as Label Studio exports it."""
    with (folder / "ann.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "criterion", "pole"))
        table.writerows(opinions(truth, "ann", errs=0.03, silent=0.1))
    said = {name: [] for name in truth}
    for name, criterion, pole in opinions(truth, "ben", errs=0.12, silent=0.25):
        said[name].append(
            {
                "from_name": criterion.replace("/", "."), "to_name": "picture",
                "type": "choices", "value": {"choices": [pole]},
            }
        )  # fmt: skip
    exported = [
        {
            "id": number,
            "data": {
                "file": name, "image": f"/data/local-files/?d={name}",
                "sha256": hashlib.sha256((data / name).read_bytes()).hexdigest(),
            },
            "annotations": [
                {
                    "completed_by": {"email": "ben@example.org"}, "was_cancelled": False,
                    "result": result,
                }
            ],
        }
        for number, (name, result) in enumerate(said.items(), start=1)
    ]  # fmt: skip
    (folder / "ben.json").write_text(json.dumps(exported), encoding="utf-8")


if __name__ == "__main__":
    hand_in(take(Path("data")), Path("data"), Path())
