import dataclasses

import pytest
import torch

from atelier.config.objectives import DPO, NPO, SDPO, SPO, MaPO
from atelier.config.training import MinSNR
from atelier.models import adapters
from atelier.models.denoiser import FRAME
from atelier.objectives import losses, steps
from atelier.training import loop
from tests.atelier.conftest import objective_params

IMAGES = 5


@pytest.fixture
def corpus(painter):
    prompts = ["", "a sea", "a sea, calm edges", "a sea, harsh edges"]
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(IMAGES, *painter.latent_shape(32), generator=generator)
    every = torch.ones(IMAGES, 1, dtype=torch.long)
    rows = {"caption": every, "winner": 2 * every, "loser": 3 * every, "labelled": 2 * every}
    return steps.Corpus(latents, painter.encode_texts(prompts), rows, empty=0)


@pytest.fixture
def pair(painter, lora):
    """θ1 that tells prompts apart, and a fresh θ."""
    adapters.add(painter.network, "theta1", lora, seed=1)
    generator = torch.Generator().manual_seed(4)
    for parameter in adapters.weights(painter.network, "theta1").values():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    adapters.add(painter.network, "theta", lora, seed=2)
    return painter


STABLE = objective_params("cpo-s", omega=1.0, learning_rate=0.01)
LOGISTIC = objective_params("cpo", beta=100, learning_rate=0.01)


def aligned(painter, corpus, objective, training):
    return steps.complex_preference(
        painter,
        corpus,
        objective,
        training,
        teacher="theta1",
        policy="theta",
        caption_dropout=0,
    )


def test_denoising_is_the_error_against_the_process_target(painter, corpus, training):
    step = steps.denoising(
        painter, corpus, training, role="labelled", caption_dropout=0, weighting="constant"
    )

    loss, _ = step(0, False)

    clean, rows, noise, time, _ = steps._draw(painter, corpus, training, 0)
    noisy = painter.process.add_noise(clean, noise, time)
    target = painter.process.target(clean, noise, time)
    condition = painter.encode_texts(["a sea, calm edges"] * len(rows))
    expected = (painter.predict(noisy, time, condition) - target).square().mean()
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)


def test_a_batch_is_drawn_within_one_bucket_and_every_image_as_often(painter, corpus):
    buckets = [torch.tensor([4, 1, 2]), torch.tensor([0, 3])]
    bucketed = dataclasses.replace(corpus, buckets=buckets)

    batches = [bucketed.batch(2, step, seed=1).tolist() for step in range(30)]

    kinds = [{4, 1, 2}, {0, 3}]
    assert all(any(set(batch) <= kind for kind in kinds) for batch in batches)
    assert [sum(batch.count(image) for batch in batches) for image in range(5)] == [12] * 5


def test_one_bucket_of_all_images_is_no_bucket(painter, corpus):
    one = dataclasses.replace(corpus, buckets=[torch.arange(IMAGES)])

    for step in range(5):
        assert torch.equal(one.batch(3, step, seed=2), corpus.batch(3, step, seed=2))


def test_each_picture_tells_its_own_frame_whatever_the_prompt(painter, corpus):
    frames = torch.arange(4.0 * IMAGES).reshape(IMAGES, 4)
    framed = dataclasses.replace(corpus, frames=frames)
    images = torch.tensor([3, 0])

    told = framed.condition(torch.tensor([1, 1]), images, torch.device("cpu"))
    silent = corpus.condition(torch.tensor([1, 1]), images, torch.device("cpu"))

    assert torch.equal(told.pop(FRAME), frames[images])
    assert told.keys() == silent.keys()
    assert all(torch.equal(told[name], silent[name]) for name in silent)


@pytest.mark.parametrize("weighting", ["snr", MinSNR(min_snr_gamma=5.0)])
def test_denoising_is_weighted_by_time(painter, corpus, training, weighting):
    one = training.model_copy(update={"batch_images": 1})

    plain, weighted = (
        steps.denoising(
            painter, corpus, one, role="labelled", caption_dropout=0, weighting=kind
        )(0, False)[0]
        for kind in ("constant", weighting)
    )

    time = steps._draw(painter, corpus, one, 0)[3]
    snr, scale = painter.process.snr(time), painter.process.clean_scale(time)
    expected = snr / (1 + snr) if weighting == "snr" else scale * snr.clamp(max=5)
    torch.testing.assert_close(weighted, plain * expected[0], atol=1e-4, rtol=1e-4)


def test_offset_noise_moves_channels_as_a_whole_and_nothing_else(painter, corpus, training):
    offset = training.model_copy(update={"offset_noise": 0.5})

    _, rows, plain, time, _ = steps._draw(painter, corpus, training, 0)
    _, same_rows, moved, same_time, _ = steps._draw(painter, corpus, offset, 0)

    level = (moved - plain) / 0.5
    assert torch.equal(rows, same_rows)
    assert torch.equal(time, same_time)
    torch.testing.assert_close(level, level[:, :, :1, :1].expand_as(level), atol=1e-4, rtol=0)
    assert len(level[:, :, 0, 0].unique()) == level[:, :, 0, 0].numel()
    part = steps._draw(painter, corpus, offset, 0, slice(1, 3))[2]
    assert torch.equal(part, moved[1:3])  # whoever takes a part sees the whole batch's


def test_full_caption_dropout_reads_only_the_empty_prompt(painter, corpus, training):
    dropped = steps.denoising(
        painter, corpus, training, role="labelled", caption_dropout=1, weighting="constant"
    )
    corpus.rows["labelled"].fill_(corpus.empty)
    empty = steps.denoising(
        painter, corpus, training, role="labelled", caption_dropout=0, weighting="constant"
    )

    assert torch.equal(dropped(1, False)[0], empty(1, False)[0])


def test_an_untrained_policy_costs_log_two_under_cpo(pair, corpus, training):
    with adapters.use(pair.network, "theta"):
        loss, values = aligned(pair, corpus, LOGISTIC, training)(0, True)

    # A fresh adapter is the base, so policy and reference agree.
    assert loss.item() == pytest.approx(0.6931472, abs=1e-3)
    assert values["drift"] == pytest.approx(0, abs=1e-4)


def test_targets_are_what_theta1_predicts_for_each_prompt(pair, corpus, training):
    clean, rows, noise, time, _ = steps._draw(pair, corpus, training, 0)
    noisy = pair.process.add_noise(clean, noise, time)
    with adapters.use(pair.network, "theta1"):
        win = pair.predict(noisy, time, pair.encode_texts(["a sea, calm edges"] * len(rows)))
        lose = pair.predict(noisy, time, pair.encode_texts(["a sea, harsh edges"] * len(rows)))
    with adapters.use(pair.network, None):
        base = pair.predict(noisy, time, pair.encode_texts(["a sea"] * len(rows)))

    with adapters.use(pair.network, "theta"):
        loss, values = aligned(pair, corpus, STABLE, training)(0, True)

    weights, both = torch.ones(len(rows)), torch.ones(len(rows), dtype=torch.bool)
    expected = losses.cpo_s(
        base, base, win, lose,
        kind="mirror-winner", omega=1.0, weights=weights, has_loser=both,
    ).mean()  # fmt: skip
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)
    separation = (win - lose).square().flatten(1).mean(1).sqrt().mean()
    assert values["separation"] == pytest.approx(separation.item(), rel=1e-3)


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


def test_cpo_s_brings_the_policy_nearer_to_its_aim(pair, corpus, training, tmp_path):
    before = {k: v.clone() for k, v in adapters.weights(pair.network, "theta1").items()}

    curve = trained(pair, corpus, STABLE, training, tmp_path)

    assert curve[30]["loss"] < curve[2]["loss"]
    assert curve[30]["aim_error"] < 0.6 * curve[30]["aim_error_reference"]
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
    return {name: weight.grad for name, weight in policy.items()}


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


def test_a_killed_training_goes_on_bit_for_bit(pair, corpus, training, tmp_path):
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
                aligned(pair, corpus, STABLE, training),
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


DPO_ = DPO(objective="dpo", beta=100, learning_rate=0.01)
NPO_ = NPO(objective="npo", beta=100, learning_rate=0.01, w=0, beside=["base"])
SDPO_ = SDPO(objective="sdpo", beta=100, slack=0, learning_rate=0.01)
MAPO = MaPO(objective="mapo", beta=1, scale=0.5, learning_rate=0.01)


@pytest.fixture
def pairs():
    win, lose = torch.tensor([0, 1, 2]), torch.tensor([3, 4, 0])
    return steps.Pairs(
        win, lose, torch.ones(3, dtype=torch.long), torch.tensor([1.0, 0.5, 1.0])
    )


def paired(painter, corpus, pairs, objective, training):
    training = training.model_copy(update={"batch_images": 6})
    return steps.pairwise_preference(
        painter, corpus, pairs, objective, training, policy="theta", caption_dropout=0
    )


@pytest.mark.parametrize("objective", [DPO_, NPO_, SDPO_])
def test_an_untrained_policy_costs_log_two_on_pairs(pair, corpus, pairs, training, objective):
    with adapters.use(pair.network, "theta"):
        loss, values = paired(pair, corpus, pairs, objective, training)(0, True)

    # Every pair is seen once; their weights are 1, 0.5 and 1.
    assert loss.item() == pytest.approx(0.6931472 * 2.5 / 3, abs=1e-3)
    assert values["gradient_factor"] == pytest.approx(0.5, abs=1e-3)
    assert values["drift"] == pytest.approx(0, abs=1e-4)


def test_both_pictures_of_a_pair_share_noise_time_and_caption(pair, corpus, pairs, training):
    corpus.latents[:] = corpus.latents[0]  # the same picture on both sides

    with adapters.use(pair.network, "theta"):
        _, values = paired(pair, corpus, pairs, DPO_, training)(0, True)

    assert values["win_error"] == pytest.approx(values["lose_error"], rel=1e-4)


@pytest.mark.parametrize("family", ["flux"])
@pytest.mark.parametrize(
    ("objective", "nearer"), [(DPO_, "win"), (SDPO_, "win"), (NPO_, "lose"), (MAPO, None)]
)
def test_pairs_teach_the_way_of_their_objective(
    pair, corpus, pairs, training, objective, nearer, tmp_path
):
    more = {"steps": 40, "ema_decay": None, "report_steps": 1, "batch_images": 6}
    training = training.model_copy(update=more)
    reports = []

    with adapters.use(pair.network, "theta"):
        loop.fit(
            adapters.weights(pair.network, "theta"),
            paired(pair, corpus, pairs, objective, training),
            learning_rate=objective.learning_rate,
            params=training,
            folder=tmp_path,
            report=lambda step, values: reports.append(values),
        )

    gains = {
        end: sum(one[f"{end}_error_reference"] - one[f"{end}_error"] for one in reports[20:])
        for end in ("win", "lose")
    }
    if nearer is None:  # MaPO has the winner's own loss, from which the loser gains too
        assert gains["win"] > 0
    else:
        assert max(gains, key=gains.get) == nearer


@pytest.mark.numerical
@pytest.mark.parametrize("family", ["flux"])
def test_a_small_step_of_sdpo_does_not_raise_the_winners_error(float64, pair, corpus, training):
    # Losers are the winners' pictures, stronger: where DPO leaves them, it leaves both.
    corpus.latents[3:] = 3 * corpus.latents[:2]
    policy = adapters.weights(pair.network, "theta")
    source = torch.Generator().manual_seed(7)
    for parameter in policy.values():
        torch.nn.init.normal_(parameter, std=0.1, generator=source)
    two = torch.tensor([0, 1])
    pairs = steps.Pairs(two, two + 3, torch.ones(2, dtype=torch.long), torch.ones(2))
    training = training.model_copy(update={"batch_images": 4})

    def change(objective):
        before = {name: weight.detach().clone() for name, weight in policy.items()}
        step = steps.pairwise_preference(
            pair, corpus, pairs, objective, training, policy="theta", caption_dropout=0
        )
        with adapters.use(pair.network, "theta"):
            loss, values = step(0, True)
            gradients = torch.autograd.grad(loss, list(policy.values()))
            for weight, gradient in zip(policy.values(), gradients, strict=True):
                weight.data -= 0.1 * gradient
            _, after = step(0, True)
        for name, weight in policy.items():
            weight.data.copy_(before[name])
        return after["win_error"] - values["win_error"], values

    # With so small a beta both pairs count alike, and the mean is what is kept safe.
    raised, _ = change(DPO_.model_copy(update={"beta": 1e-3}))
    safe, values = change(SDPO_.model_copy(update={"beta": 1e-3}))
    slack, _ = change(SDPO_.model_copy(update={"beta": 1e-3, "slack": 0.5}))

    # The error is about 4 and its last bit 1e-15; the changes are about 1e-6.
    assert values["safe_share"] < 0.9
    assert raised > 1e-8
    assert safe < 0.02 * raised  # what is left is of second order
    assert slack < -0.02 * raised


@pytest.mark.parametrize("teacher", ["base", "self"])
def test_targets_need_no_expert(pair, corpus, training, teacher):
    state = {"base": None, "self": "theta"}[teacher]
    source = torch.Generator().manual_seed(8)
    for parameter in adapters.weights(pair.network, "theta").values():
        torch.nn.init.normal_(parameter, std=0.2, generator=source)
    clean, rows, noise, time, _ = steps._draw(pair, corpus, training, 0)
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
    assert sum(parameter.grad.abs().sum() for parameter in moved) > 0


def test_dropped_captions_are_read_as_empty_and_targets_keep_theirs(pair, corpus, training):
    def step(**more):
        return steps.complex_preference(
            pair, corpus, STABLE, training, teacher="theta1", policy="theta", **more
        )

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
    several = steps.Corpus(corpus.latents, corpus.prompts, rows, empty=0, omegas=omegas)
    by_root = STABLE.model_copy(update={"omega": {"colour": 7.0, "light": 1.0}})

    with adapters.use(pair.network, "theta"):
        drawn, values = aligned(pair, several, by_root, training)(0, True)
        plain, _ = aligned(pair, corpus, STABLE, training)(0, True)

    assert values["winner_only"] == 0
    torch.testing.assert_close(drawn, plain, atol=1e-4, rtol=1e-4)


MEASURED = SPO(
    objective="spo-measured", beta=10, clip=0.1, steps=10, untrained=2, churn=1.0, gap=1,
    learning_rate=0.01,
)  # fmt: skip


def stepwise(painter, corpus, training, judge):
    training = training.model_copy(update={"batch_images": 8})
    return steps.stepwise_preference(
        painter, corpus, MEASURED, training, judge, policy="theta", caption_dropout=0
    )


def test_an_untrained_policy_costs_log_two_for_each_pair_of_outcomes(pair, corpus, training):
    judged = []

    def judge(pixels):
        assert pixels.shape[1] == 3
        judged.append(len(pixels))
        return torch.tensor([2, 1, 0, 5] if len(judged) == 1 else [2, 3, 1, 0])

    with adapters.use(pair.network, "theta"):
        loss, values = stepwise(pair, corpus, training, judge)(0, True)

    # The first image's outcomes tie; the three others are pairs.
    assert judged == [4, 4]
    assert loss.item() == pytest.approx(0.6931472 * 3 / 4, abs=1e-3)
    assert values["pairs"] == 0.75
    assert values["gradient_factor"] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("family", ["flux"])
def test_the_policy_learns_to_take_the_better_judged_outcome(pair, corpus, training, tmp_path):
    def judge(pixels):
        return (1e5 * (1 - pixels.mean((1, 2, 3)))).round()  # darker is worse

    training = training.model_copy(
        update={"steps": 30, "ema_decay": None, "batch_images": 8, "report_steps": 1}
    )
    reports = []
    with adapters.use(pair.network, "theta"):
        loop.fit(
            adapters.weights(pair.network, "theta"),
            steps.stepwise_preference(
                pair, corpus, MEASURED.model_copy(update={"gap": 1}), training, judge,
                policy="theta", caption_dropout=0,
            ),
            learning_rate=0.003,
            params=training,
            folder=tmp_path,
            report=lambda step, values: reports.append(values),
        )  # fmt: skip

    late = [one["accuracy"] for one in reports[15:] if one["pairs"] > 0]
    assert sum(late) / len(late) > 0.6
    assert sum(r["negatives"] for r in reports[-8:]) < sum(r["negatives"] for r in reports[:8])
