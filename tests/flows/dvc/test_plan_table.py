from types import SimpleNamespace

import yaml

from flows.dvc import overrides, plan, plan_table, stages


def test_a_profile_without_its_base_is_told_below_the_plan(
    tmp_path, monkeypatch, profile, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr(stages, "read", lambda _: [])
    monkeypatch.setattr(plan, "look", lambda _: {"sft": plan.Prospect("sft", "run", ())})
    monkeypatch.setattr(plan_table, "connection", SimpleNamespace(past_minutes=lambda _: {}))
    for folder in ("params", "base/starter"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "params/profile.yaml").write_text("profile: mine\n")
    (tmp_path / "params/mine.yaml").write_text(yaml.safe_dump(profile))

    plan_table.run([], overrides.AS_WRITTEN)
    assert "It would not end: params/mine.yaml: model.source is 'base/starter'" in (
        capsys.readouterr().out
    )

    (tmp_path / "base/mine").mkdir()
    plan_table.run([], overrides.AS_WRITTEN)
    assert "would not end" not in capsys.readouterr().out
