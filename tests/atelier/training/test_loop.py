import math

import pytest
import torch

from atelier.config.training import Times
from atelier.errors import DivergedError, ParamsError
from atelier.reporting import silent
from atelier.training import loop


def least_squares(seed=0):
    """A noisy quadratic: parameters and a step that draws its batch from (seed, step)."""
    parameters = {
        "w": torch.nn.Parameter(torch.zeros(5)),
        "b": torch.nn.Parameter(torch.ones(2)),
    }

    def step_loss(step, measure, part=loop.WHOLE):
        noise = torch.randn(3, 5, generator=loop.generator(seed, step, "step"))[part]
        each = (parameters["w"] - 3 + noise).square().sum(1) + parameters["b"].square().sum()
        return each.mean(), {"noise": noise.norm(dim=1).mean().item()} if measure else {}

    return parameters, step_loss


def fit(folder, training, problem, report=silent):
    parameters, step_loss = problem
    return loop.fit(
        parameters, step_loss, learning_rate=0.1, params=training, folder=folder, report=report
    )


class KilledError(Exception):
    pass


EVERYTHING = {"images_at_once": 2, "precision": "fp16", "ema_decay": 0.9}


@pytest.mark.parametrize("optimizer", ["adamw", "adamw-fused", "adafactor", "muon"])
@pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("killed_after", [1, 2, 3, 4, 5])
def test_a_killed_run_goes_on_bit_for_bit(tmp_path, training, killed_after, changes, optimizer):
    training = training.model_copy(update={**changes, "optimizer": optimizer})
    undisturbed = fit(tmp_path / "one", training, least_squares())

    def kill(step, values):
        if step == killed_after:
            raise KilledError

    with pytest.raises(KilledError):
        fit(tmp_path / "two", training, least_squares(), report=kill)
    resumed = fit(tmp_path / "two", training, least_squares())

    assert all(torch.equal(resumed[name], undisturbed[name]) for name in undisturbed)


def test_finished_work_is_taken_over_without_a_step(tmp_path, training):
    first = fit(tmp_path, training, least_squares())
    steps = []

    again = fit(tmp_path, training, least_squares(), report=lambda step, _: steps.append(step))

    assert steps == []
    assert all(torch.equal(again[name], first[name]) for name in first)


def test_values_are_reported_when_asked_and_at_the_end(tmp_path, training):
    training = training.model_copy(update={"report_steps": 4})
    reported = {}

    fit(tmp_path, training, least_squares(), report=lambda s, v: reported.update({s: v}))

    assert sorted(reported) == [1, 2, 3, 4, 5, 6]
    assert [step for step, values in reported.items() if values] == [4, 6]
    assert set(reported[6]) == {"loss", "noise", "gradient_norm", "rate"}


def test_clipping_bounds_what_reaches_the_optimizer(tmp_path, training):
    seen = []
    parameters, step_loss = least_squares()
    parameters["w"].register_post_accumulate_grad_hook(lambda p: None)
    training = training.model_copy(update={"clip_norm": 0.5, "ema_decay": None})
    original = torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        seen.append(torch.cat([g.flatten() for g in grads]).norm().item())
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", spy)
        fit(tmp_path, training, (parameters, step_loss))

    assert len(seen) == training.steps
    assert max(seen) <= 0.5 + 1e-4


def test_the_average_follows_its_formula(tmp_path, training):
    training = training.model_copy(update={"steps": 1, "ema_decay": 0.9})
    problem = least_squares()

    kept = fit(tmp_path, training, problem)

    # decay = min(0.9, (1 + 1) / (10 + 1)) = 2/11; start at 1, so 2/11 * 1 + 9/11 * b
    expected = 2 / 11 * torch.ones(2) + 9 / 11 * problem[0]["b"].detach()
    torch.testing.assert_close(kept["b"], expected)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path, training):
    parameters, step_loss = least_squares()

    def breaking(step, measure, part):
        loss, values = step_loss(step, measure, part)
        return (loss * math.nan, values) if step == 3 else (loss, values)

    with pytest.raises(DivergedError, match=r"nan at step 4; .* Lower learning_rate"):
        fit(tmp_path, training, (parameters, breaking))

    assert [path.name[:13] for path in tmp_path.iterdir()] == ["step-00000002"]


def exploding(at):
    parameters, step_loss = least_squares()

    def breaking(step, measure, part):
        loss, values = step_loss(step, measure, part)
        return (loss * 1e6, values) if step == at else (loss, values)

    return parameters, breaking


def test_a_loss_that_explodes_stops_and_keeps_the_last_checkpoint(tmp_path, training):
    training = training.model_copy(update={"steps": 40, "explosion": 100.0})

    with pytest.raises(DivergedError, match=r"times its mean at step 31; .* kept in"):
        fit(tmp_path, training, exploding(at=30))

    kept = sorted(path.name[:13] for path in tmp_path.iterdir())
    assert kept == ["step-00000028", "step-00000030"]


def test_early_losses_and_an_unset_bound_stop_nothing(tmp_path, training):
    watched = training.model_copy(update={"steps": 10, "explosion": 100.0})

    fit(tmp_path / "early", watched, exploding(at=5))
    fit(tmp_path / "unset", training.model_copy(update={"steps": 40}), exploding(at=30))


def test_parts_of_a_batch_have_the_gradient_of_the_whole(tmp_path, training):
    training = training.model_copy(update={"ema_decay": None})
    told = {}

    for at_once in (None, 1, 2):
        reported = told.setdefault(at_once, [])
        weights = fit(
            tmp_path / str(at_once),
            training.model_copy(update={"images_at_once": at_once}),
            least_squares(),
            report=lambda step, values, to=reported: to.append(values),
        )
        reported.append({name: tensor.tolist() for name, tensor in weights.items()})

    for at_once in (1, 2):
        for whole, parts in zip(told[None], told[at_once], strict=True):
            assert parts == {k: pytest.approx(v, rel=1e-3, abs=1e-5) for k, v in whole.items()}


def test_float16_passes_scale_their_loss_and_pass_over_a_step_that_overflows(
    tmp_path, training
):
    parameters, step_loss = least_squares()
    training = training.model_copy(update={"precision": "fp16", "ema_decay": None})
    seen = []

    def overflowing(step, measure, part):
        loss, values = step_loss(step, measure, part)
        seen.append(parameters["w"].detach().clone())
        # The value stays; the gradient, once scaled by 65536, is beyond float32.
        return (loss - loss.detach() * 1e36 + loss * 1e36 if step == 0 else loss), values

    fit(tmp_path, training, (parameters, overflowing))

    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_the_passes_run_in_the_precision_that_is_asked_for(tmp_path, training):
    parameters, step_loss = least_squares()
    seen = set()

    def matrices(step, measure, part):
        seen.add((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
        return step_loss(step, measure, part)

    for precision in ("fp32", "bf16", "fp16"):
        changed = training.model_copy(update={"precision": precision, "steps": 1})
        seen.clear()
        fit(tmp_path / precision, changed, (parameters, matrices))
        assert seen == {
            {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        }


def test_what_is_random_in_layers_is_a_function_of_seed_and_step(tmp_path, training):
    drawn = []
    parameters, step_loss = least_squares()

    def dropping(step, measure, part):
        drawn.append(torch.rand(1).item())
        return step_loss(step, measure, part)

    for name in ("one", "two"):
        torch.manual_seed(len(drawn))
        before = torch.get_rng_state()
        fit(tmp_path / name, training, (parameters, dropping))
        assert torch.equal(torch.get_rng_state(), before)

    assert drawn[:6] == drawn[6:]
    assert len(set(drawn)) == 6


def test_the_8_bit_optimizer_says_what_it_needs(tmp_path, training):
    training = training.model_copy(update={"optimizer": "adamw-8bit"})

    with pytest.raises(
        ParamsError, match="needs a CUDA device, and this network is on the cpu"
    ):
        fit(tmp_path, training, least_squares())


def test_the_schedule_warms_up_and_ends_at_two_percent(training):
    training = training.model_copy(update={"steps": 101, "warmup_steps": 1})
    shares = [loop.schedule(step, training) for step in range(101)]

    assert shares[0] == 1
    assert shares[51] == pytest.approx(0.02 + 0.98 * 0.5)
    assert loop.schedule(101, training) == pytest.approx(0.02)
    warming = training.model_copy(update={"warmup_steps": 4})
    assert [loop.schedule(s, warming) for s in range(4)] == [0.25, 0.5, 0.75, 1]
    linear = training.model_copy(update={"schedule": "linear"})
    assert loop.schedule(51, linear) == pytest.approx(0.02 + 0.98 * 0.5)
    constant = training.model_copy(update={"schedule": "constant"})
    assert loop.schedule(90, constant) == 1


def test_each_image_is_seen_once_an_epoch():
    rows = torch.cat([loop.batch_rows(10, 4, step, seed=1) for step in range(5)])

    assert sorted(rows[:10].tolist()) == sorted(rows[10:].tolist()) == list(range(10))
    assert rows[:10].tolist() != rows[10:].tolist()


def test_buckets_have_turns_by_their_share_of_the_images():
    turns = [loop.bucket_turn((6, 3, 1), step) for step in range(100)]

    taken = [[turn for bucket, turn in turns if bucket == one] for one in range(3)]
    assert taken == [list(range(60)), list(range(30)), list(range(10))]
    for steps in range(1, 100):  # never more than a step ahead or behind
        seen = [sum(bucket == one for bucket, _ in turns[:steps]) for one in range(3)]
        assert all(
            abs(n - steps * share) < 1 for n, share in zip(seen, (0.6, 0.3, 0.1), strict=True)
        )


def test_a_turn_is_the_same_whatever_was_asked_before():
    late = loop.bucket_turn((5, 4), 50)
    loop._turns.cache_clear()

    assert loop.bucket_turn((5, 4), 50) == late


def test_a_generator_depends_on_seed_step_and_purpose_alone():
    def draw(*key):
        return torch.rand(1, generator=loop.generator(*key)).item()

    assert draw(0, 1, "step") == draw(0, 1, "step")
    assert (
        len({draw(0, 1, "step"), draw(1, 1, "step"), draw(0, 2, "step"), draw(0, 1, "x")}) == 4
    )


def test_times_follow_their_mixture():
    uniform = Times(uniform_share=1, logit_mean=0, logit_std=1, shift=1)
    normal = Times(uniform_share=0, logit_mean=0.8, logit_std=1, shift=1)

    even = loop.draw_times(20000, uniform, loop.generator(0, 0, "x"))
    late = loop.draw_times(20000, normal, loop.generator(0, 0, "x"))

    assert even.mean().item() == pytest.approx(0.5, abs=0.01)
    # the median of sigmoid(N(0.8, 1)) is sigmoid(0.8) = 0.690
    assert late.median().item() == pytest.approx(0.690, abs=0.01)


def test_a_shift_divides_the_signal_to_noise_ratio_by_its_square():
    plain = Times(uniform_share=0.5, logit_mean=0.2, logit_std=1, shift=1)
    shifted = plain.model_copy(update={"shift": 3.0})

    before = loop.draw_times(1000, plain, loop.generator(0, 0, "x")).double()
    after = loop.draw_times(1000, shifted, loop.generator(0, 0, "x")).double()

    snr_before, snr_after = (((1 - t) / t) ** 2 for t in (before, after))
    inside = (after < 0.999) & (before > 0.001)
    torch.testing.assert_close(snr_after[inside], snr_before[inside] / 9, rtol=0.01, atol=1e-7)
