"""Notifications: messages of failed and surprising nights to one address: ``atelier notify``.

Prefect's server sends them by two automations: a run of ours failed or crashed, and a night
found something that a person should see (``flows.nights``). The address is a webhook: of Slack,
Mattermost, Discord or Teams, or any program that takes JSON.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from prefect.automations import Automation
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from atelier.errors import ParamsError
from flows.infra.prefect_setup import TAG

SURPRISE = "atelier.night.surprise"  # the event of a night that a person should look at
FAILED = "atelier: a run failed"
SURPRISING = "atelier: a night is surprising"
_BLOCK = "atelier"
_TEXT = "{{subject}}\n{{body}}"
# One body for all: Slack, Mattermost and Teams read `text`, Discord reads `content`.
_BODY = {"text": _TEXT, "content": _TEXT}


def setup(address: str) -> Iterator[str]:
    """Let Prefect's server send messages to an address; yield a line for each thing.

    Raises:
        ParamsError: The address is no webhook.
    """
    if urlsplit(address).scheme not in {"http", "https"} or not urlsplit(address).netloc:
        raise ParamsError(
            f"{address!r} is no webhook: give the https:// address that Slack, Mattermost, "
            "Discord or Teams shows for a channel, or that of a program. Prefect's server "
            "sends no e-mail by itself"
        )
    block = CustomWebhookNotificationBlock(name=_BLOCK, url=address, json_data=_BODY)
    ident = block.save(_BLOCK, overwrite=True)
    assert isinstance(ident, UUID)
    for name, trigger, subject, body in _messages():
        yield f"automation “{name}”: {_ensure(name, trigger, ident, subject, body)}"


def _messages() -> Iterator[tuple[str, EventTrigger, str, str]]:
    ours = {"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"}
    yield (
        FAILED,
        _on({f"prefect.flow-run.{end}" for end in ("Failed", "Crashed")}, related=ours),
        "{{ flow_run.name }}: {{ flow_run.state.name }}",
        "{{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
    )
    yield (
        SURPRISING,
        _on({SURPRISE}, related={}),
        "{{ event.resource.name }}",
        "{{ event.payload.why }}\n{{ event.payload.page }}",
    )


def _on(events: set[str], *, related: dict[str, str]) -> EventTrigger:
    return EventTrigger(
        posture=Posture.Reactive,
        expect=events,
        match_related=ResourceSpecification(dict(related)),
        threshold=1,
        within=timedelta(0),
    )


def _ensure(name: str, trigger: EventTrigger, block: UUID, subject: str, body: str) -> str:
    action: Any = SendNotification(block_document_id=block, subject=subject, body=body)
    with get_client(sync_client=True) as client:
        known = client.read_automations_by_name(name)
        for one in known:
            client.delete_automation(one.id)
    Automation(
        name=name,
        description="Sends a message to the address of `atelier notify`.",
        trigger=trigger,
        actions=[action],
    ).create()
    return "is new" if not known else "has this address now"
