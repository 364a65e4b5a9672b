"""The table of ``atelier plan``: which stages run and why, which are restored, how long."""

import logging
from collections.abc import Iterable, Sequence

from rich.markup import escape
from rich.table import Table

from atelier.config.profile import read_profile, read_switch
from flows.dvc import overrides, plan, stages
from flows.dvc.overrides import Changes
from flows.dvc.plan import Prospect
from tasks.run import paths, pins
from tasks.run.console import console
from tasks.tracking import connection

_WORDS = {
    "up to date": "up to date",
    "restore": "restored from the run cache",
    "run": "[bold]runs[/bold]",
    "depends": "runs if its input changes",
}
_log = logging.getLogger(__name__)


def run(targets: Sequence[str], wanted: Changes) -> None:
    """Print a row a stage; nothing is run.

    Raises:
        ParamsError: A target is no stage, or the profile does not fit.
    """
    order = stages.read(targets)
    profile = read_switch(paths.SWITCH)
    source = read_profile(paths.profile(profile)).model.source
    with overrides.in_force(wanted):
        prospects = plan.look(order)
    minutes = _minutes(profile)
    out = console()
    out.print(_table(prospects.values(), minutes))
    out.print(_total(list(prospects.values()), minutes))
    if why := pins.absent_base(profile, source):
        out.print(f"[bold]It would not end:[/bold] {escape(why)}.")


def _minutes(profile: str) -> dict[str, float]:
    try:
        return connection.past_minutes(profile)
    except Exception as error:  # a server that is away should cost the minutes alone
        _log.warning("MLflow did not answer, so there are no minutes: %s", error)
        return {}


def _table(prospects: Iterable[Prospect], minutes: dict[str, float]) -> Table:
    table = Table()
    table.add_column("stage")
    table.add_column("would be")
    table.add_column("why", overflow="fold")
    table.add_column("minutes", justify="right")
    for one in prospects:
        takes = one.verdict in {"run", "depends"}
        table.add_row(
            one.stage,
            _WORDS[one.verdict],
            escape("\n".join(one.reasons)),
            _number(minutes.get(one.stage)) if takes else "",
        )
    return table


def _total(prospects: Sequence[Prospect], minutes: dict[str, float]) -> str:
    running = [one.stage for one in prospects if one.verdict in {"run", "depends"}]
    if not running:
        return "Nothing would run."
    known = [minutes[name] for name in running if name in minutes]
    unknown = [name for name in running if name not in minutes]
    if not known:
        return f"No earlier run says how long {', '.join(unknown)} would take."
    text = f"At most {_number(sum(known))} minutes, as long as each took when it ran last"
    return f"{text}; no earlier run of {', '.join(unknown)}." if unknown else f"{text}."


def _number(minutes: float | None) -> str:
    return "?" if minutes is None else f"{minutes:.1f}"
