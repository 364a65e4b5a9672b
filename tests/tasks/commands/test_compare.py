import pytest

from atelier.errors import ParamsError
from atelier.metrics.comparison import Result
from atelier.metrics.fid import Distance
from atelier.metrics.statistics import Interval
from tasks.commands import compare
from tasks.run import paths
from tasks.tracking import connection, registry


def result(fid, gap=None):
    distance = None if fid is None else Distance(fid, 0.0, 9, 9, "starter", 64)
    interval = None if gap is None else Interval((gap[0] + gap[1]) / 2, *gap, 100)
    return Result(
        captions=33,
        attributes=None,
        difference=interval,
        second=None,
        fid=distance,
        fid_clean=None,
        diversity=None,
        nearest=None,
        scores={},
        clipped=0.0,
    )


@pytest.mark.parametrize(
    ("gap", "fid", "better"),
    [
        ((-0.9, -0.1), 8.0, True),
        ((-0.9, -0.1), 8.4, True),  # 5% worse at most
        ((-0.9, -0.1), 8.5, False),
        ((-0.9, 0.0), 7.0, False),  # touches zero
        ((0.1, 0.9), 7.0, False),
        ((-0.9, -0.1), None, False),
    ],
)
def test_the_rule_wants_an_interval_below_zero_and_pictures_as_good(gap, fid, better):
    verdict = compare.judge(result(8.0), result(fid, gap), slack=0.05)

    assert verdict.better is better
    assert verdict.why.startswith("B is better" if better else "B is not better")
    assert "over 100 pictures of 33 captions" in verdict.why


@pytest.fixture
def two(workspace, mlflow_folder, monkeypatch):
    """A registry with two versions of θ, whose bytes nobody needs."""
    mlflow = connection.client()
    mlflow.create_registered_model("atelier-starter-theta")
    for _ in range(2):
        mlflow.create_model_version(
            "atelier-starter-theta", source=(workspace / "artifacts").as_uri()
        )
    return mlflow


def test_a_model_is_found_by_number_by_alias_and_by_its_whole_address(two):
    two.set_registered_model_alias("atelier-starter-theta", "champion", "2")

    said = ["theta/1", "theta@champion", "champion", "models:/atelier-starter-theta@champion"]
    assert [registry.address(name, "starter") for name in said] == [
        "models:/atelier-starter-theta/1",
        *["models:/atelier-starter-theta/2"] * 3,
    ]
    assert registry.address("theta/3", "starter") is None
    assert registry.address("serving", "starter") is None


def test_an_unknown_model_is_named_with_those_there_are(two, checked_profile):
    with pytest.raises(
        ParamsError, match="theta/9 is not in the registry; it has base, theta/2"
    ):
        compare.run(checked_profile, "base", "theta/9", promote=False, slack=0.05)


def test_where_nothing_serves_yet_the_base_is_to_beat(two, checked_profile):
    assert compare._side("serving", "starter", checked_profile).lora is None


def test_a_theta_that_only_guides_is_not_compared(two, checked_profile):
    two.set_model_version_tag("atelier-starter-theta", "1", "objective", "away")
    two.set_model_version_tag("atelier-starter-theta", "1", "mlflow.atelier.md5", "a")
    npo = {
        "objective": "npo",
        "beta": 500,
        "learning_rate": 0.001,
        "w": 0.25,
        "beside": ["base"],
    }
    values = checked_profile.model_dump()
    values["cpo"]["objectives"]["away"] = npo
    values["generate"]["guidance"] = 2.0
    profile = type(checked_profile).model_validate(values)

    with pytest.raises(ParamsError, match="theta/1 was trained by npo"):
        compare.run(profile, "base", "theta/1", promote=False, slack=0.05)


def test_a_promotion_moves_the_alias_and_says_why(two):
    registry.point("serving", "models:/atelier-starter-theta/2", "B is better: of course.")

    version = two.get_model_version_by_alias("atelier-starter-theta", "serving")
    assert (int(version.version), version.tags["serving.why"]) == (2, "B is better: of course.")


@pytest.fixture
def checked_profile(workspace):
    from atelier.config.profile import read_profile

    return read_profile(paths.profile("starter"))


def test_a_lora_that_is_a_file_is_a_side(two, checked_profile, tmp_path):
    file = tmp_path / "mine.safetensors"
    file.touch()

    side = compare._side(str(file), "starter", checked_profile)

    assert (side.name, side.address, side.lora) == ("mine.safetensors", None, file)
    with pytest.raises(ParamsError, match="is no registered model, so it cannot be promoted"):
        compare.run(checked_profile, "base", str(file), promote=True, slack=0.05)
