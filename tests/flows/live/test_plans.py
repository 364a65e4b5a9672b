"""What a flow notes of its own run, for the live page."""

from types import SimpleNamespace

import prefect

from flows.dvc.overrides import Changes
from flows.live import plans
from tasks.tracking import run_record


def test_the_changes_that_a_form_asked_for_are_noted_as_they_are_sent_again(
    repository, monkeypatch
):
    changes = Changes(objectives={"cpo-s": {"omega": 2.5}})
    flow_run = SimpleNamespace(
        name="a", id="1", parameters={"changes": changes, "force": False}
    )
    asked = SimpleNamespace(flow_run=flow_run, deployment=SimpleNamespace(id="2"))
    monkeypatch.setattr(prefect, "runtime", asked)

    plans.begin("asked", [], {})

    noted = run_record.read(run_record.folder("asked") / run_record.RUN)["parameters"]
    assert noted["force"] is False
    assert Changes.model_validate(noted["changes"]) == changes
