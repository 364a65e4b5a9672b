import itertools

import pytest
import yaml

from atelier.config.model import recorded_model
from atelier.config.profile import Profile, read_profile, read_switch
from atelier.errors import ArtifactError, ParamsError
from tests.conftest import TOY_NETWORKS


def written(tmp_path, values, name="starter.yaml"):
    path = tmp_path / name
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_a_complete_profile_is_read(tmp_path, profile):
    read = read_profile(written(tmp_path, profile))

    assert isinstance(read, Profile)
    assert read.model_dump(mode="json", exclude_unset=True) == profile


def test_all_mistakes_are_named_at_once_with_field_value_and_what_is_allowed(tmp_path, profile):
    profile["model"]["family"] = "dit"
    profile["annotate"]["largest_pixels"] = 0
    profile["split"]["train"] = 1.5
    del profile["sft"]["learning_rate"]
    profile["sft"]["learning_rat"] = 0.1
    profile["sft"]["lora"] = {"rank": -1, "alpha": "much", "targets": []}
    profile["cpo"]["featured"] = "cpo-z"
    profile["cpo"]["objectives"]["cpo-s"] |= {"omega": 1, "loser_target": "mirror-policy"}
    profile["betta"] = 1
    profile["evaluate"]["bootstrap"] = 1000

    with pytest.raises(ParamsError) as caught:
        read_profile(written(tmp_path, profile))

    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'starter.yaml'} does not fit:\n")
    for mistake in (
        "model.family: input should be 'chroma', 'flux', 'flux2_klein', ",
        "'qwen_image', 'sd3', 'sdxl' or 'z_image', got 'dit'",
        "annotate.largest_pixels: input should be greater than 0, got 0",
        "split.train: input should be less than or equal to 1, got 1.5",
        "sft.learning_rate: field required",
        "sft.learning_rat: extra inputs are not permitted, got 0.1",
        "sft.lora.rank: input should be greater than 0, got -1",
        "sft.lora.alpha: input should be a valid number",
        "omega should be below 1 for mirror-policy",
        "betta: extra inputs are not permitted, got 1",
        "evaluate.bootstrap: is no setting any more, since intervals are not resampled",
    ):
        assert mistake in text


def test_parts_that_do_not_add_up_are_refused(tmp_path, profile):
    profile["split"]["train"] = 0.7

    with pytest.raises(
        ParamsError, match=r"split: train \+ validation \+ test should be 1, is 0\.9"
    ):
        read_profile(written(tmp_path, profile))


def test_a_featured_objective_that_nobody_trains_is_refused(tmp_path, profile):
    profile["cpo"]["featured"] = "cpo-z"

    with pytest.raises(ParamsError, match=r"one of \['cpo', 'cpo-s'\], got 'cpo-z'"):
        read_profile(written(tmp_path, profile))


@pytest.mark.parametrize("number", [".nan", ".inf", "-1", "0"])
def test_a_learning_rate_is_a_positive_finite_number(tmp_path, profile, number):
    profile["sft"]["learning_rate"] = yaml.safe_load(number)

    with pytest.raises(ParamsError, match=r"sft.learning_rate: input should be"):
        read_profile(written(tmp_path, profile))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"model: [", "is not YAML"),
        (b"\xff\xff", "is not YAML"),
        (b"", r"should hold sections \(`model:`, `sft:`, …\), holds None"),
        (b"- 1", "should hold sections"),
        (b"{}", "model: field required"),
    ],
)
def test_what_is_no_profile_is_refused(tmp_path, content, says):
    path = tmp_path / "starter.yaml"
    path.write_bytes(content)

    with pytest.raises(ParamsError, match=says):
        read_profile(path)


def test_an_absent_profile_lists_those_there_are(tmp_path, profile):
    written(tmp_path, profile, "paintings.yaml")
    written(tmp_path, profile, "starter.yaml")

    with pytest.raises(ParamsError, match=r"started.yaml is absent; .* paintings, starter$"):
        read_profile(tmp_path / "started.yaml")


def test_the_switch_names_a_profile(tmp_path):
    assert read_switch(written(tmp_path, {"profile": "sdxl"}, "profile.yaml")) == "sdxl"
    with pytest.raises(ParamsError, match="profile: string should match pattern"):
        read_switch(written(tmp_path, {"profile": "../x"}, "profile.yaml"))


def test_a_profile_cannot_be_changed(profile):
    with pytest.raises(ValueError, match="frozen"):
        Profile.model_validate(profile).split.train = 0.5


BASE = """
corpus: sketchbook
images: 10
codec: {kind: pca, patch_pixels: 4, channels: 4}
network:
  {kind: sdxl, predicts: v, widths: [16, 32], attention: [false, true], layers: 1,
   head_width: 16, groups: 8, text_widths: [8, 16], pooled_width: 16}
caption_dropout: 0.1
grid_guidance: 1.0
learning_rate: 0.01
"""


@pytest.fixture
def small_sdxl(profile):
    profile["model"]["family"] = "sdxl"
    profile["base"] = {**yaml.safe_load(BASE), "training": profile["sft"]["training"]}
    return profile


@pytest.mark.parametrize("kind", ["flux2_klein", "qwen_image"])
def test_a_family_with_a_codec_of_its_own_refuses_another(tmp_path, small_sdxl, kind):
    network = yaml.safe_load(TOY_NETWORKS[kind])
    small_sdxl["base"]["network"] = network
    small_sdxl["model"]["family"] = kind

    with pytest.raises(ParamsError, match=f"codec.kind should be folder for {kind}"):
        read_profile(written(tmp_path, small_sdxl))


def test_the_kind_of_a_network_says_which_fields_it_has(tmp_path, small_sdxl):
    read = read_profile(written(tmp_path, small_sdxl))
    small_sdxl["base"]["network"] |= {"kind": "unet"}

    assert read.base.network.widths == [16, 32]
    with pytest.raises(
        ParamsError, match=r"base\.network: .*'unet'.*'flux2_klein', 'flux', .*'sdxl'"
    ):
        read_profile(written(tmp_path, small_sdxl))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"attention": [True]}, "one entry for each of the 2 widths, has 1"),
        (
            {"groups": 12},
            r"groups \(12\) .* should divide each of widths, .* not divide 16",
        ),
        ({"head_width": 32}, r"head_width \(32\) should divide each"),
        ({"text_widths": [8]}, "network.sdxl.text_widths: list should have at least 2"),
    ],
)
def test_a_unet_that_cannot_be_built_is_refused(tmp_path, small_sdxl, change, says):
    small_sdxl["base"]["network"] |= change

    with pytest.raises(ParamsError, match=says):
        read_profile(written(tmp_path, small_sdxl))


def test_clips_wider_than_t5_are_refused(tmp_path, profile):
    network = {
        "kind": "sd3", "blocks": 2, "heads": 2, "head_width": 16, "text_width": 16,
        "clip_widths": [8, 16], "pooled_width": 16,
    }  # fmt: skip
    profile["model"]["family"] = "sd3"
    training = profile["sft"]["training"]
    profile["base"] = {**yaml.safe_load(BASE), "network": network, "training": training}

    with pytest.raises(
        ParamsError, match=r"sum of clip_widths should be at most text_width, 16"
    ):
        read_profile(written(tmp_path, profile))


def test_a_base_of_another_family_than_the_model_is_refused(tmp_path, small_sdxl):
    small_sdxl["model"]["family"] = "flux"

    with pytest.raises(
        ParamsError, match=r"base\.network\.kind should be model\.family, 'flux', is 'sdxl'"
    ):
        read_profile(written(tmp_path, small_sdxl))


def with_objective(profile, name="npo", **values):
    profile["cpo"]["objectives"][name] = values
    return profile


NPO = {"objective": "npo", "beta": 2000, "learning_rate": 1e-4, "w": 0.0}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: p["cpo"].update(pairs=None), "pairs is null, but dpo need pairs"),
        (lambda p: p["cpo"]["training"].update(batch_images=3), "batch_images should be even"),
        (
            lambda p: with_objective(p, **NPO, beside=["cpo-z", "npo"]),
            r"beside should name models of \[.*\], has cpo-z, npo",
        ),
        (
            lambda p: with_objective(p, **NPO, beside=["base"]),
            "generate.guidance should be above 1 for cpo.objectives.npo",
        ),
        (
            lambda p: (
                with_objective(p, **NPO, beside=["base"]),
                p["cpo"].update(featured="npo"),
            ),
            "only supplies the negative branch",
        ),
        (
            lambda p: p["cpo"]["objectives"]["cpo-s"].update(
                omega={"colour": 1}, loser_target="mirror-policy"
            ),
            "omega by root needs loser_target mirror-winner",
        ),
        (
            lambda p: p["cpo"]["objectives"]["cpo-s"].update(
                omega=0.5, k=2, loser_target="mirror-policy"
            ),
            "omega times k, 2, should be below 1 for mirror-policy",
        ),
        (
            lambda p: p["cpo"]["objectives"]["cpo-s"].update(
                k=2, loser_target="mirror-reference"
            ),
            "k should be null for mirror-reference",
        ),
        (
            lambda p: (
                p["cpo"]["objectives"]["cpo-s"].update(init="sft"),
                p["cpo"].update(lora={**p["sft"]["lora"], "rank": 8}),
            ),
            r"cpo.lora should be sft.lora for cpo.objectives.cpo-s, .*rank=8.*rank=4",
        ),
        (
            lambda p: p["sft"].update(init="sft"),
            "sft.init: should be 'base' or a LoRA in loras/; 'sft' is what sft makes",
        ),
        (
            lambda p: p["sft"].update(init="../mine.safetensors"),
            "sft.init: should be 'base', 'sft' .*, or a LoRA's .* got '../mine.safetensors'",
        ),
        (
            lambda p: p["cpo"]["objectives"]["cpo-s"].update(init="loras/../mine.safetensors"),
            r"init: should be a path inside its folder, .* got 'loras/\.\./mine.safetensors'",
        ),
        (
            lambda p: p["sft"].update(init="loras/a.safetensors", lora="full"),
            "sft.init is the LoRA 'loras/a.safetensors', and sft.lora is 'full'",
        ),
        (
            lambda p: (
                p["cpo"].update(lora="full"),
                p["cpo"]["objectives"]["cpo-s"].update(init="loras/a.safetensors"),
            ),
            "cpo.objectives.cpo-s.init is the LoRA 'loras/a.safetensors', and cpo.lora is",
        ),
        (
            lambda p: (
                with_objective(p, **NPO, beside=["cpo-s"]),
                p["cpo"]["objectives"]["cpo-s"].update(teacher_guidance=2),
            ),
            "objectives.npo.beside should not name cpo-s, which is sampled without guidance",
        ),
    ],
)
def test_what_an_objective_needs_is_asked_for(tmp_path, profile, change, says):
    with_objective(profile, "dpo", objective="dpo", beta=500, learning_rate=1e-3)
    change(profile)

    with pytest.raises(ParamsError, match=says):
        read_profile(written(tmp_path, profile))


def test_a_model_recorded_before_a_setting_existed_has_what_it_was_made_with(profile):
    recorded = dict(profile["model"])
    for name in ("quantise", "text_chunks", "buckets", "true_sizes"):
        del recorded[name]

    assert recorded_model(recorded, "x/1") == Profile.model_validate(profile).model


def test_a_recorded_model_that_cannot_be_read_is_named_with_field_and_cure(profile):
    recorded = {**profile["model"], "tomorrow": 1}
    del recorded["pixels"]

    with pytest.raises(
        ArtifactError, match=r"(?s)^x/1 was .* {2}pixels: .*git\.commit"
    ) as told:
        recorded_model(recorded, "x/1")
    assert "  tomorrow: " in str(told.value)
    with pytest.raises(ArtifactError, match="got 'flux'"):
        recorded_model("flux", "x/1")


@pytest.mark.parametrize(
    ("section", "field", "value", "says"),
    [
        ("generate", "guidance", ".inf", "generate.guidance: input should be a finite number"),
        ("generate", "steps", "yes", "generate.steps: input should be a valid integer"),
        ("sft", "learning_rate", "yes", "sft.learning_rate: should be a number, got True"),
        ("annotate", "criteria", "../../x.yaml", "annotate.criteria: should be a path inside"),
        ("annotate", "criteria", "/etc/passwd", "annotate.criteria: should be a path inside"),
        ("model", "source", "{a: 2}", "model.source: input should be a valid string"),
    ],
)
def test_what_python_would_take_for_a_number_or_a_path_is_refused(
    tmp_path, profile, section, field, value, says
):
    profile[section][field] = yaml.safe_load(value)

    with pytest.raises(ParamsError, match=says):
        read_profile(written(tmp_path, profile))


def test_a_small_file_that_stands_for_a_huge_one_is_refused_in_few_words(tmp_path):
    path = tmp_path / "starter.yaml"
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    names = "abcdefghi"
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in itertools.pairwise(names)]
    path.write_text("\n".join(lines))

    with pytest.raises(ParamsError, match="stands for more than") as caught:
        read_profile(path)

    assert len(str(caught.value)) < 500


def test_a_message_repeats_no_more_of_a_value_than_a_person_reads(tmp_path, profile):
    profile["model"]["family"] = "x" * 10**5
    profile["model"] |= {f"{number}": number for number in range(1000)}

    with pytest.raises(ParamsError, match="and 961 more") as caught:
        read_profile(written(tmp_path, profile))

    assert len(str(caught.value)) < 5000


def test_a_folder_in_the_place_of_a_profile_is_said(tmp_path):
    with pytest.raises(ParamsError, match="cannot be read: Is a directory"):
        read_profile(tmp_path)
