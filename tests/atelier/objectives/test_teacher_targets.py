import pytest
import torch

from atelier.models import adapters
from atelier.objectives.cpo_s import cpo_s
from atelier.objectives.objective import Setup
from atelier.training import loop
from atelier.training.corpus import Corpus, draw
from tests.atelier.conftest import IMAGES
from tests.atelier.objectives.conftest import LOGISTIC, STABLE, aligned


def test_an_untrained_policy_costs_log_two_under_cpo(pair, corpus, training):
    with adapters.use(pair.network, "theta"):
        loss, values = aligned(pair, corpus, LOGISTIC, training)(0, True)

    # A fresh adapter is the base, so policy and reference agree.
    assert loss.item() == pytest.approx(0.6931472, abs=1e-3)
    assert values["drift"] == pytest.approx(0, abs=1e-4)


def test_targets_are_what_theta1_predicts_for_each_prompt(pair, corpus, training):
    clean, rows, noise, time, _ = draw(pair, corpus, training, 0)
    noisy = pair.process.add_noise(clean, noise, time)
    with adapters.use(pair.network, "theta1"):
        win = pair.predict(noisy, time, pair.encode_texts(["a sea, calm edges"] * len(rows)))
        lose = pair.predict(noisy, time, pair.encode_texts(["a sea, harsh edges"] * len(rows)))
    with adapters.use(pair.network, None):
        base = pair.predict(noisy, time, pair.encode_texts(["a sea"] * len(rows)))

    with adapters.use(pair.network, "theta"):
        loss, values = aligned(pair, corpus, STABLE, training)(0, True)

    weights, both = torch.ones(len(rows)), torch.ones(len(rows), dtype=torch.bool)
    expected = cpo_s(
        base, base, win, lose,
        kind="mirror-winner", omega=1.0, weights=weights, has_loser=both,
    ).mean()  # fmt: skip
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)
    separation = (win - lose).square().flatten(1).mean(1).sqrt().mean()
    assert values["separation"] == pytest.approx(separation.item(), rel=1e-3)


# Every option of ours that a step reads.
GUIDED = STABLE.model_copy(
    update={"teacher_guidance": 2.0, "reference": "sft", "dpo_beta": 20.0, "k": 0.5}
)


def test_guidance_inside_the_targets_leads_both_away_from_the_empty_prompt(
    pair, corpus, training
):
    clean, rows, noise, time, _ = draw(pair, corpus, training, 0)
    noisy = pair.process.add_noise(clean, noise, time)
    with adapters.use(pair.network, "theta1"), torch.no_grad():
        empty, win, lose = (
            pair.predict(noisy, time, pair.encode_texts([prompt] * len(rows)))
            for prompt in ("", "a sea, calm edges", "a sea, harsh edges")
        )
    with adapters.use(pair.network, None), torch.no_grad():
        base = pair.predict(noisy, time, pair.encode_texts(["a sea"] * len(rows)))
    guided = STABLE.model_copy(update={"teacher_guidance": 3.0})

    with adapters.use(pair.network, "theta"):
        loss, values = aligned(pair, corpus, guided, training)(0, True)

    weights, both = torch.ones(len(rows)), torch.ones(len(rows), dtype=torch.bool)
    expected = cpo_s(
        base, base, empty + 3 * (win - empty), empty + 3 * (lose - empty),
        kind="mirror-winner", omega=1.0, weights=weights, has_loser=both,
    ).mean()  # fmt: skip
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)
    apart = 3 * (win - lose).square().flatten(1).mean(1).sqrt().mean()
    assert values["separation"] == pytest.approx(apart.item(), rel=1e-3)


@pytest.mark.parametrize(("guidance", "prompts"), [(1.0, 2), (2.0, 3)])
def test_targets_are_one_batch_and_ask_for_the_empty_prompt_only_where_it_guides(
    pair, corpus, training, guidance, prompts
):
    asked = []
    predict = pair.predict
    pair.predict = lambda noisy, *more: asked.append(len(noisy)) or predict(noisy, *more)
    objective = STABLE.model_copy(update={"teacher_guidance": guidance})

    with adapters.use(pair.network, "theta"):
        aligned(pair, corpus, objective, training)(0, False)

    assert asked == [prompts * training.batch_images, training.batch_images]


def test_a_copy_of_theta1_compared_with_theta1_costs_log_two(pair, corpus, training):
    adapters.copy(pair.network, "theta1", "theta")

    def value(objective):
        with adapters.use(pair.network, "theta"):
            return aligned(pair, corpus, objective, training)(0, True)

    loss, values = value(LOGISTIC.model_copy(update={"reference": "sft"}))
    against_base, moved = value(LOGISTIC)

    assert loss.item() == pytest.approx(0.6931472, abs=1e-3)
    assert values["drift"] == pytest.approx(0, abs=1e-4)
    assert moved["drift"] > 0.01
    assert against_base.item() != pytest.approx(0.6931472, abs=1e-3)


def test_a_caption_may_win_where_no_good_pole_is_labelled(pair, corpus, training):
    corpus.rows["winner"].copy_(corpus.rows["caption"])
    wins = STABLE.model_copy(update={"empty_positive": "caption-wins"})

    with adapters.use(pair.network, "theta"):
        contrasted, values = aligned(pair, corpus, wins, training)(0, True)
        alone, before = aligned(pair, corpus, STABLE, training)(0, True)
        corpus.rows["loser"].copy_(corpus.rows["caption"])
        _, without_loser = aligned(pair, corpus, wins, training)(0, True)

    assert (values["winner_only"], before["winner_only"]) == (0, 1)
    assert without_loser["winner_only"] == 1
    assert contrasted > alone


def trained(pair, corpus, objective, training, folder):
    training = training.model_copy(update={"steps": 30, "ema_decay": None})
    curve = {}
    with adapters.use(pair.network, "theta"):
        loop.fit(
            adapters.weights(pair.network, "theta"),
            aligned(pair, corpus, objective, training),
            learning_rate=objective.learning_rate,
            params=training,
            folder=folder,
            report=lambda step, values: curve.update({step: values} if values else {}),
        )
    return curve


def test_cpo_s_brings_the_policy_nearer_to_its_aim(pair, corpus, training, tmp_path, family):
    # At toy size Z-Image learns slowly: its gates pass little of what a LoRA changes.
    left = 0.9 if family == "z_image" else 0.6
    before = {k: v.clone() for k, v in adapters.weights(pair.network, "theta1").items()}

    curve = trained(pair, corpus, STABLE, training, tmp_path)

    assert curve[30]["loss"] < curve[2]["loss"]
    assert curve[30]["aim_error"] < left * curve[30]["aim_error_reference"]
    after = adapters.weights(pair.network, "theta1")
    assert all(torch.equal(after[name], before[name]) for name in before)  # θ1 is frozen


def test_l_cpo_prefers_the_winner_and_runs_past_it(pair, corpus, training, tmp_path):
    curve = trained(pair, corpus, LOGISTIC, training, tmp_path)

    assert curve[30]["loss"] < curve[2]["loss"]
    assert curve[30]["accuracy"] == 1
    # What the paper stabilises: a linear reward has no place to stop.
    assert curve[30]["win_error"] > curve[30]["win_error_reference"]


@pytest.mark.parametrize("empty", ["winner", "loser"])
def test_an_image_with_an_empty_pole_is_counted_and_trains_the_winner_alone(
    pair, corpus, training, empty
):
    corpus.rows[empty].copy_(corpus.rows["caption"])
    at_zero = STABLE.model_copy(update={"omega": 0.0})

    with adapters.use(pair.network, "theta"):
        loss, values = aligned(pair, corpus, STABLE, training)(0, True)
        plain, _ = aligned(pair, corpus, at_zero, training)(0, False)

    assert values["winner_only"] == 1
    torch.testing.assert_close(
        loss, plain, atol=1e-4, rtol=1e-4
    )  # omega has no say where there is no loser


def test_silent_reports_change_nothing(pair, corpus, training):
    # Measuring runs the reference once more; the loss must not notice.
    with adapters.use(pair.network, "theta"):
        step = aligned(pair, corpus, STABLE, training)
        assert torch.equal(step(1, True)[0], step(1, False)[0])


def gradients(pair, corpus, objective, training, part=loop.WHOLE):
    policy = adapters.weights(pair.network, "theta")
    generator = torch.Generator().manual_seed(7)
    for weight in policy.values():
        weight.data = torch.empty_like(weight).normal_(std=0.05, generator=generator)
        weight.requires_grad_(True)
        weight.grad = None
    with adapters.use(pair.network, "theta"):
        loss, _ = aligned(pair, corpus, objective, training)(0, True, part)
        loss.backward()
    # Nothing reads the words that leave Qwen-Image's last block: no gradient for their weights.
    return {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad
        for name, weight in policy.items()
    }


@pytest.mark.parametrize("objective", [STABLE, LOGISTIC], ids=["cpo-s", "cpo"])
def test_gradient_checkpointing_changes_no_gradient(pair, corpus, training, objective):
    # The passes are made again during backward, when the policy must be in force again.
    plain = gradients(pair, corpus, objective, training)
    pair.network.enable_gradient_checkpointing()
    blocks = []
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, *_: blocks.append(type(module).__name__)
    )

    again = gradients(pair, corpus, objective, training)

    hook.remove()
    pair.network.disable_gradient_checkpointing()
    once = len(blocks)
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, *_: blocks.append(type(module).__name__)
    )
    gradients(pair, corpus, objective, training)
    hook.remove()
    assert once > len(blocks) - once  # passes really were made again
    found, expected = (
        torch.cat([gradient.flatten() for gradient in gradients.values()])
        for gradients in (again, plain)
    )
    assert expected.norm() > 0
    assert (found - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize("objective", [STABLE, LOGISTIC], ids=["cpo-s", "cpo"])
def test_parts_of_a_batch_add_up_to_its_gradient(pair, corpus, training, objective):
    whole = gradients(pair, corpus, objective, training)

    one = gradients(pair, corpus, objective, training, slice(0, 1))
    rest = gradients(pair, corpus, objective, training, slice(1, 3))

    summed, expected = (
        torch.cat([gradient.flatten() for gradient in found.values()])
        for found in ({k: one[k] / 3 + rest[k] * 2 / 3 for k in whole}, whole)
    )
    assert (summed - expected).norm() < 1e-4 * expected.norm()


class KilledError(Exception):
    pass


@pytest.mark.parametrize("objective", [STABLE, GUIDED], ids=["cpo-s", "guided"])
def test_a_killed_training_goes_on_bit_for_bit(pair, corpus, training, tmp_path, objective):
    policy = adapters.weights(pair.network, "theta")
    fresh = {name: weight.detach().clone() for name, weight in policy.items()}

    def fit(folder, killed_after=None):
        def report(step, values):
            if step == killed_after:
                raise KilledError

        for name, weight in policy.items():
            weight.data.copy_(fresh[name])
        with adapters.use(pair.network, "theta"):
            return loop.fit(
                policy,
                aligned(pair, corpus, objective, training),
                learning_rate=0.01,
                params=training,
                folder=folder,
                report=report,
            )

    undisturbed = fit(tmp_path / "one")
    for killed_after in (1, 5):
        folder = tmp_path / str(killed_after)
        with pytest.raises(KilledError):
            fit(folder, killed_after)
        resumed = fit(folder)
        assert all(torch.equal(resumed[name], undisturbed[name]) for name in undisturbed)


@pytest.mark.parametrize("teacher", ["base", "self"])
def test_targets_need_no_expert(pair, corpus, training, teacher):
    state = {"base": None, "self": "theta"}[teacher]
    source = torch.Generator().manual_seed(8)
    for parameter in adapters.weights(pair.network, "theta").values():
        torch.nn.init.normal_(parameter, std=0.2, generator=source)
    clean, rows, noise, time, _ = draw(pair, corpus, training, 0)
    noisy = pair.process.add_noise(clean, noise, time)
    with adapters.use(pair.network, state), torch.no_grad():
        win, lose = (
            pair.predict(noisy, time, pair.encode_texts([f"a sea, {edges} edges"] * len(rows)))
            for edges in ("calm", "harsh")
        )

    with adapters.use(pair.network, "theta"):
        objective = STABLE.model_copy(update={"teacher": teacher})
        loss, values = aligned(pair, corpus, objective, training)(0, True)
        loss.backward()

    separation = (win - lose).square().flatten(1).mean(1).sqrt().mean()
    assert values["separation"] == pytest.approx(separation.item(), rel=1e-3)
    moved = adapters.weights(pair.network, "theta").values()
    assert sum(one.grad.abs().sum() for one in moved if one.grad is not None) > 0


def test_dropped_captions_are_read_as_empty_and_targets_keep_theirs(pair, corpus, training):
    def step(**more):
        return STABLE.step(Setup(pair, corpus, training, "theta1", "theta", **more))

    with adapters.use(pair.network, "theta"):
        dropped, with_drop = step(caption_dropout=1)(1, True)
        kept, without = step(caption_dropout=0)(1, True)
        corpus.rows["caption"].fill_(corpus.empty)
        empty, _ = step(caption_dropout=0)(1, True)

    assert torch.equal(dropped, empty)
    assert not torch.equal(dropped, kept)
    assert with_drop["separation"] == without["separation"]


def test_of_several_contrasts_a_step_draws_one_that_has_a_loser(pair, corpus, training):
    # The first contrast has no loser, the second the usual one, at a strength of its own.
    rows = dict(corpus.rows)
    one = torch.ones(IMAGES, 1, dtype=torch.long)
    rows["winner"], rows["loser"] = (
        torch.cat([2 * one, 2 * one], 1),
        torch.cat([2 * one, 3 * one], 1),
    )
    omegas = torch.tensor([[7.0, 1.0]]).expand(IMAGES, 2)
    several = Corpus(corpus.latents, corpus.prompts, rows, empty=0, omegas=omegas)
    by_root = STABLE.model_copy(update={"omega": {"colour": 7.0, "light": 1.0}})

    with adapters.use(pair.network, "theta"):
        drawn, values = aligned(pair, several, by_root, training)(0, True)
        plain, _ = aligned(pair, corpus, STABLE, training)(0, True)

    assert values["winner_only"] == 0
    torch.testing.assert_close(drawn, plain, atol=1e-4, rtol=1e-4)
