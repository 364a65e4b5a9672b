import pytest
import torch

from atelier.training import drift


def scalar(*values):
    return torch.tensor(values).reshape(-1, 1, 1, 1)


def test_the_monitor_by_hand():
    # policy 1, reference 0, winner 2, loser -1, aim 3
    values = drift.values(scalar(1.0), scalar(0.0), scalar(2.0), scalar(-1.0), scalar(3.0))

    assert values == pytest.approx(
        {
            "win_error": 1,
            "lose_error": 4,
            "win_error_reference": 4,
            "lose_error_reference": 1,
            "aim_error": 4,
            "aim_error_reference": 9,
            "accuracy": 1,
            "drift": 1,
            "separation": 3,
        }
    )


def test_accuracy_is_the_share_that_leans_to_the_winner():
    policy, reference = scalar(1.0, -1.0, 1.0, 1.0), scalar(0.0, 0.0, 0.0, 0.0)
    win, lose = scalar(2.0, 2.0, 2.0, -2.0), scalar(-2.0, -2.0, -2.0, 2.0)

    values = drift.values(policy, reference, win, lose, win)

    assert values["accuracy"] == 0.5


def report(ours, reference):
    return {"aim_error": ours, "aim_error_reference": reference}


def test_the_alarm_is_silent_while_the_aim_comes_closer():
    alarm = drift.Alarm()

    assert not any(alarm.drifting(report(1.0, 2.0)) for _ in range(50))


def test_the_alarm_rings_when_the_mean_of_ten_reports_is_worse_than_the_reference():
    alarm = drift.Alarm()

    rang = [alarm.drifting(report(error, 1.0)) for error in [0.5] * 5 + [1.6] * 10]

    # after 5 + 5 reports the mean excess is (5 * -0.5 + 5 * 0.6) / 10 = 0.05 > 0
    assert rang.index(True) == 9
