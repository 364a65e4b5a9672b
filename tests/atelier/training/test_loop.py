import math

import pytest
import torch

from atelier.errors import DivergedError
from atelier.params import Times
from atelier.reporting import silent
from atelier.training import loop


def least_squares(seed=0):
    """A noisy quadratic: parameters and a step that draws its batch from (seed, step)."""
    parameters = {
        "w": torch.nn.Parameter(torch.zeros(5)),
        "b": torch.nn.Parameter(torch.ones(2)),
    }

    def step_loss(step, measure):
        noise = torch.randn(5, generator=loop.generator(seed, step, "step"))
        loss = (parameters["w"] - 3 + noise).square().sum() + parameters["b"].square().sum()
        return loss, {"noise": noise.norm().item()} if measure else {}

    return parameters, step_loss


def fit(folder, training, problem, report=silent):
    parameters, step_loss = problem
    return loop.fit(
        parameters, step_loss, learning_rate=0.1, params=training, folder=folder, report=report
    )


class KilledError(Exception):
    pass


@pytest.mark.parametrize("killed_after", [1, 2, 3, 4, 5])
def test_a_killed_run_goes_on_bit_for_bit(tmp_path, training, killed_after):
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

    def breaking(step, measure):
        loss, values = step_loss(step, measure)
        return (loss * math.nan, values) if step == 3 else (loss, values)

    with pytest.raises(DivergedError, match=r"nan at step 4; .* Lower learning_rate"):
        fit(tmp_path, training, (parameters, breaking))

    assert [path.name[:13] for path in tmp_path.iterdir()] == ["step-00000002"]


def test_the_schedule_warms_up_and_ends_at_two_percent(training):
    training = training.model_copy(update={"steps": 101, "warmup_steps": 1})
    shares = [loop.schedule(step, training) for step in range(101)]

    assert shares[0] == 1
    assert shares[51] == pytest.approx(0.02 + 0.98 * 0.5)
    assert loop.schedule(101, training) == pytest.approx(0.02)
    warming = training.model_copy(update={"warmup_steps": 4})
    assert [loop.schedule(s, warming) for s in range(4)] == [0.25, 0.5, 0.75, 1]
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
    uniform = Times(uniform_share=1, logit_mean=0, logit_std=1)
    normal = Times(uniform_share=0, logit_mean=0.8, logit_std=1)

    even = loop.draw_times(20000, uniform, loop.generator(0, 0, "x"))
    late = loop.draw_times(20000, normal, loop.generator(0, 0, "x"))

    assert even.mean().item() == pytest.approx(0.5, abs=0.01)
    # the median of sigmoid(N(0.8, 1)) is sigmoid(0.8) = 0.690
    assert late.median().item() == pytest.approx(0.690, abs=0.01)
