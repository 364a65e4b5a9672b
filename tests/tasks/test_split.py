import json

import numpy as np
import pytest
from PIL import Image

from atelier import images
from atelier.config.profile import Profile
from atelier.criteria import annotations, splits
from atelier.criteria.annotations import Judgement, Record
from atelier.errors import ArtifactError
from tasks import split
from tasks.run import paths
from tests.conftest import Notebook


@pytest.fixture
def judged(tmp_path, monkeypatch, paint):
    """Forty judged paintings, as annotate leaves them."""
    monkeypatch.chdir(tmp_path)
    for number in range(40):
        paint(paths.DATA / f"{number}.png", number)
    annotated(f"{number}.png" for number in range(40))


def annotated(files):
    rows, said = [], []
    for number, file in enumerate(files):
        image = images.sha256(paths.DATA / file)
        rows.append(
            annotations.Image(
                image=image, file=file, width=32, height=32, caption="y", artwork=file[:-4]
            )
        )
        said.append(
            Judgement(
                image=image,
                criterion="harmony",
                pole="negative" if number % 4 == 0 else "positive",
                annotator="expert",
                confidence=1,
            )
        )
    paths.ANNOTATE.mkdir(parents=True, exist_ok=True)
    (paths.ANNOTATE / "images.jsonl").write_text(annotations.lines(rows))
    (paths.ANNOTATE / "judgements.jsonl").write_text(annotations.lines(said))


def run(values, **more):
    values["split"] |= more
    notebook = Notebook()
    split.run(Profile.model_validate(values), notebook)
    return notebook


def parts():
    return {
        part: [row.file for row in annotations.read(paths.SPLIT / f"{part}.jsonl", Record)]
        for part in splits.PARTS
    }


def test_every_image_is_in_one_part_in_the_order_of_the_corpus(judged, profile):
    notebook = run(profile)

    files = [file for part in parts().values() for file in part]
    order = [f"{number}.png" for number in range(40)]
    assert sorted(files, key=order.index) == order
    assert all(part == sorted(part, key=order.index) for part in parts().values())
    summary = json.loads((paths.SPLIT / "summary.json").read_text())
    assert summary["images"] == {part: len(files) for part, files in parts().items()}
    assert sum(summary["images"].values()) == 40
    assert summary["near_duplicates"] is None
    assert notebook.results["images_train"] == summary["images"]["train"]
    assert notebook.files == ["artifacts/split/summary.json"]


def test_the_balance_of_each_part_is_told(judged, profile):
    run(profile)

    shares = json.loads((paths.SPLIT / "summary.json").read_text())["positive_share"]["harmony"]
    for part in splits.PARTS:
        rows = annotations.read(paths.SPLIT / f"{part}.jsonl", Record)
        assert shares[part] == sum(bool(row.positive) for row in rows) / len(rows)
    assert sum(shares[part] * len(files) for part, files in parts().items()) == pytest.approx(
        30
    )


def test_a_copy_is_in_the_part_of_its_original_or_left_out(judged, profile, capsys):
    for number in range(40):
        rng = np.random.default_rng(number)
        rough = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        picture = rough.resize((128, 128), Image.Resampling.BICUBIC)
        picture.save(paths.DATA / f"{number}.png")
        picture.resize((96, 96), Image.Resampling.LANCZOS).save(
            paths.DATA / f"copy-{number}.jpg", quality=90
        )
    annotated(
        [f"{number}.png" for number in range(40)]
        + [f"copy-{number}.jpg" for number in range(40)]
    )

    notebook = run(profile, near_duplicate_bits=16)

    for number in range(40):
        pair = {f"{number}.png", f"copy-{number}.jpg"}
        assert sum(bool(pair & set(files)) for files in parts().values()) == 1
    near = json.loads((paths.SPLIT / "summary.json").read_text())["near_duplicates"]
    assert (near["groups"], near["images"], near["largest"]) == (40, 80, 2)
    assert near["examples"][0] == ["0.png", "copy-0.jpg"]
    kept = sum(map(len, parts().values()))
    assert near["left_out"] == notebook.results["images_left_out"] == 80 - kept > 0
    assert not set(near["examples_left_out"]) & {f for files in parts().values() for f in files}
    assert "at most 16 of 256 bits" in capsys.readouterr().out


def test_adding_images_moves_none(judged, profile, paint):
    run(profile)
    before = parts()
    paint(paths.DATA / "new.png", 99)
    annotated(["new.png"] + [f"{number}.png" for number in range(40)])

    run(profile)

    after = {
        part: [file for file in files if file != "new.png"] for part, files in parts().items()
    }
    assert after == before


def test_a_missing_upstream_artifact_names_the_command(tmp_path, monkeypatch, profile):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(
        ArtifactError,
        match=r"artifacts/annotate/images.jsonl is absent; run `dvc repro annotate`",
    ):
        run(profile)


def test_a_picture_that_went_away_names_itself(judged, profile):
    (paths.DATA / "5.png").unlink()

    with pytest.raises(
        ArtifactError, match=r"data/5.png was judged and is now cannot be opened"
    ):
        run(profile, near_duplicate_bits=8)


def test_too_few_images_say_how_many_it_takes(judged, profile):
    annotated(["0.png", "1.png"])

    with pytest.raises(
        ArtifactError, match=r"2 images .* too few for a share of 0.1; about 29"
    ):
        run(profile)
    assert not paths.SPLIT.exists()
