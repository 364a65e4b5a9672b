from typer.testing import CliRunner

from cli.app import app


def invoke(*words):
    return CliRunner().invoke(app, ["settings", *words])


def test_a_setting_is_explained_with_its_value(workspace):
    said = invoke("explain", "sft.training.steps").output.split()

    assert "Optimizer steps of the training." in " ".join(said)
    assert " ".join(said).endswith("default none: it has to be given in starter 4")


def test_a_section_lists_what_is_in_it(workspace):
    said = invoke("explain", "split").output

    for word in ("train", "0.8", "Share of the artworks whose pictures train.", "salt"):
        assert word in said


def test_objectives_are_listed_by_kind(workspace):
    said = invoke("explain", "cpo.objectives").output

    assert "Diffusion-DPO on pairs of pictures." in said
    assert "loser_target" in said


def test_a_mistyped_setting_gets_the_nearest(workspace):
    result = invoke("explain", "sft.lora.rnk")

    assert result.exit_code == 2
    assert (
        "sft.lora.rnk is no setting of a profile, did you mean sft.lora.rank?" in result.output
    )
    assert "sft.lora has: rank, alpha, rslora" in result.output


def test_a_profile_that_is_absent_is_named(workspace):
    result = invoke("explain", "sft", "--profile", "nowhere")

    assert result.exit_code == 2
    assert "params/nowhere.yaml is absent" in result.output


def test_schemas_are_written(workspace):
    assert invoke("schema").exit_code == 0
    assert '"A profile of atelier' in (workspace / "params/schema/profile.json").read_text()
