import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from atelier import images
from atelier.config.annotation import VLMParams
from atelier.errors import ArtifactError, RoomError
from atelier.metrics import about, suite
from atelier.reporting import silent
from tasks import evaluate, generate
from tasks.evaluation import evaluated, judging, pictures, scoring
from tasks.run import paths


@pytest.fixture
def painted(gallery, notebook):
    """A gallery after generate."""
    generate.run(gallery, notebook)
    return gallery


def files():
    return {
        path.relative_to(paths.EVALUATE).as_posix(): path.read_bytes()
        for path in sorted(paths.EVALUATE.rglob("*.*"))
    }


def with_metrics(profile, *names):
    asked = profile.evaluate.model_copy(update={"metrics": list(names)})
    return profile.model_copy(update={"evaluate": asked})


class Counted:
    """What is asked of judges and networks."""

    def __init__(self, monkeypatch):
        self.judged, self.featured, self.scored = [], [], []
        judge, network = judging.judgements, scoring.extractor
        monkeypatch.setattr(
            judging, "judgements", lambda *a: self.judged.append(a[2]) or judge(*a)
        )

        def extractor(*words):
            found = network(*words)
            features = found.features
            found.features = lambda seen: self.featured.append(len(seen)) or features(seen)
            return found

        monkeypatch.setattr(scoring, "extractor", extractor)
        monkeypatch.setattr(suite.weights, "absent", lambda *_: None)
        monkeypatch.setattr(suite.weights, "recorded", lambda *_: {"x": "ab" * 32})
        monkeypatch.setattr(suite, "load", self._load)

    def _load(self, name, *_):
        def bright(seen, prompts):
            self.scored.append((name, len(seen)))
            return np.array([image.mean() for image in seen])

        return bright


def test_one_more_metric_judges_and_features_nothing_again(painted, notebook, monkeypatch):
    said = Counted(monkeypatch)
    evaluate.run(with_metrics(painted, "vendi", "clipscore"), notebook)
    first = files()
    assert len(said.judged) == 5
    assert said.featured == [5, 4, 4, 4, 4, 4]  # test paintings, then each candidate's
    assert said.scored == [("clipscore", 4)] * 5

    evaluate.run(with_metrics(painted, "vendi", "clipscore", "pickscore"), notebook)

    assert len(said.judged) == 5
    assert len(said.featured) == 6
    assert said.scored[5:] == [("pickscore", 4)] * 5
    after = files()
    assert all(after[name] == first[name] for name in first if name != "evaluated.json")
    assert len(evaluated.scores("pickscore", "cpo")) == 4

    evaluate.run(with_metrics(painted, "vendi"), notebook)
    assert not (paths.EVALUATE / "scores").exists()


def test_only_what_was_painted_anew_is_judged_and_measured_again(
    painted, notebook, monkeypatch
):
    said = Counted(monkeypatch)
    evaluate.run(with_metrics(painted, "vendi", "clipscore"), notebook)
    shutil.copy(paths.GENERATE / "cpo/001.png", paths.GENERATE / "cpo-s/001.png")

    evaluate.run(with_metrics(painted, "vendi", "clipscore"), notebook)

    assert said.judged[5:] == ["cpo-s"]
    assert said.featured[6:] == [4]
    assert said.scored[5:] == [("clipscore", 4)]


def test_interrupted_it_keeps_the_parts_that_were_whole(painted, notebook, monkeypatch):
    evaluate.run(painted, notebook)
    undisturbed = files()
    shutil.rmtree(paths.EVALUATE)

    with monkeypatch.context() as patch:
        patch.setattr(evaluated, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluate.run(painted, notebook)
    shutil.rmtree(paths.EVALUATE)  # as DVC does before it runs the stage again
    said = Counted(monkeypatch)
    evaluate.run(painted, notebook)

    assert (said.judged, said.featured) == ([], [])
    assert files() == undisturbed
    assert not list(paths.RESUME.iterdir())


def interrupted(*_):
    raise KeyboardInterrupt


def test_a_score_that_is_no_number_is_no_score():
    image = np.zeros((2, 2, 3), np.uint8)

    with pytest.raises(ValueError, match="gave array"):
        scoring.scores(
            lambda seen, prompts: np.array([np.nan] * len(seen)),
            [image] * 3,
            ["a"] * 3,
            batch_images=2,
            report=lambda done, values: None,
        )


def test_scores_are_of_each_picture_in_batches_of_one_candidate():
    batches, done = [], []
    seen = [np.full((2, 2, 3), number, np.uint8) for number in range(5)]

    def network(some, prompts):
        batches.append(list(prompts))
        return np.array([image.mean() for image in some])

    found = scoring.scores(
        network, seen, list("abcde"), batch_images=2, report=lambda n, _: done.append(n)
    )

    assert found.tolist() == [0, 1, 2, 3, 4]
    assert batches == [["a", "b"], ["c", "d"], ["e"]]
    assert done == [2, 4, 5]


def test_a_network_that_cannot_be_read_costs_its_metric_and_not_the_run(
    painted, notebook, monkeypatch
):
    there = about.Entry(suite.ALL["clipscore"], {"clip-l/x": "ab" * 32}, "float32", None)
    monkeypatch.setattr(suite, "survey", lambda *_, **__: {"clipscore": there})

    evaluate.run(with_metrics(painted, "clipscore"), notebook)

    assert "holds no CLIP" in evaluated.read().entries["clipscore"].unavailable
    assert "holds no CLIP" in notebook.said["unavailable.clipscore"]


def test_the_agent_that_judged_the_paintings_judges_what_is_painted(
    painted, notebook, vlm, model_server
):
    section = VLMParams.model_validate(vlm)
    annotate = painted.annotate.model_copy(update={"annotator": "vlm", "vlm": section})

    evaluate.run(painted.model_copy(update={"annotate": annotate}), notebook)

    assert evaluated.read().annotator == "vlm-1 toy-vl"
    assert model_server.asked()["asked"] > 0
    hashes = {images.sha256(path) for path in pictures.files("base")}
    said = [one for one in evaluated.judgements("base") if one.annotator == "vlm-1 toy-vl"]
    assert {one.image for one in said} <= hashes
    assert said


def test_only_a_profile_that_asks_for_it_has_an_independent_judge(gallery):
    alone = gallery.evaluate.model_copy(update={"second_judge": None})

    assert judging.second(gallery) is not None
    assert judging.second(gallery.model_copy(update={"evaluate": alone})) is None


def test_what_was_found_is_read_as_it_was_written(painted, notebook):
    evaluate.run(painted, notebook)

    found = evaluated.read()

    assert list(found.measured) == sorted(["base", "theta1", "theta1+pos", "cpo-s", "cpo"])
    assert found.measured["cpo"].nearest is not None
    written = evaluated.FILE.read_bytes()
    evaluated.write(found)
    assert evaluated.FILE.read_bytes() == written
    assert json.loads(written)["measured"]["base"]["fid"]["real"] == 5


def test_nothing_is_read_before_it_was_found(gallery):
    with pytest.raises(ArtifactError, match=r"evaluated.json is absent; run `dvc repro evalu"):
        evaluated.read()


def test_painted_pictures_are_read_when_they_are_looked_at(painted):
    found = pictures.painted("cpo")
    (paths.GENERATE / "cpo/003.png").unlink()

    assert (found[1] == np.array(Image.open(paths.GENERATE / "cpo/001.png"))).all()
    assert len(found[1:3]) == 2
    with pytest.raises(ArtifactError, match=r"cpo/003.png cannot be .*dvc repro gen"):
        found[3]


def test_too_little_memory_to_score_says_what_helps_there():
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(RoomError) as told:
        scoring.scores(full, ["picture"] * 3, ["a sea"] * 3, batch_images=2, report=silent)

    said = str(told.value)
    assert said.startswith("Scoring 2 picture(s) at once needs more memory")
    assert "evaluate.scoring.batch_images: 1 (now 2)" in said
    assert "evaluate.scoring.device: cpu" in said
