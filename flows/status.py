"""How plans stand: ``python -m flows.status``, a read-only view that works while a run goes."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from core.events.log import EventLog
from core.planning.lock import is_held
from core.planning.plan_state import PLAN_STATE, PlanState
from core.planning.registry_view import RegistryView, registry_view
from flows.cli import DONE, add_common_arguments, run_command, settings_of
from settings.errors import SettingsError
from settings.layout import Layout

_STYLES = {
    "completed": "green",
    "failed": "red",
    "blocked": "yellow",
    "running": "cyan",
    "interrupted": "yellow",
}


def status_command(argv: Sequence[str] | None = None) -> int:
    """Print plans, the phases of one of them, and saved models.

    Args:
        argv: Arguments; None for those of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m flows.status", description="How plans and models stand.")
    parser.add_argument("--plan", metavar="PLAN_ID", help="show this plan's phases; default the newest")
    add_common_arguments(parser)
    arguments = parser.parse_args(argv)
    return run_command(lambda: _print_status(settings_of(arguments).output_dir, arguments.plan))


def _print_status(output_dir: Path, plan_id: str | None) -> int:
    console = Console()
    log = EventLog(Layout(output_dir).events)
    plans = log.streams()
    if not plans:
        console.print(f"no plans in {log.location}", highlight=False)
        return DONE
    states = {name: PLAN_STATE.fold(log.read(name)) for name in plans}
    if plan_id and plan_id not in states:
        raise SettingsError(f"no plan {plan_id} in {log.location}; known plans: {', '.join(plans)}")
    chosen = plan_id or plans[-1]
    console.print(_plans_table(states, is_held(output_dir)))
    console.print(_phases_table(chosen, states[chosen]))
    console.print(_models_table(registry_view(log)))
    return DONE


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("plan", "dataset", "phase", "status"))
    return table


def _styled(status: str) -> str:
    return f"[{style}]{status}[/]" if (style := _STYLES.get(status)) else status


def _plans_table(states: dict[str, PlanState], someone_works: bool) -> Table:
    table = _table("Plans", "plan", "status", "started (UTC)", "last event (UTC)", "datasets")
    for name, state in states.items():
        going = someone_works and name == max(states, key=lambda n: str(states[n].last_event_at))
        status = state.status if state.status != "running" or going else "interrupted"
        times = [f"{t:%Y-%m-%d %H:%M:%S}" if t else "" for t in (state.started_at, state.last_event_at)]
        table.add_row(name, _styled(status), *times, ", ".join(state.datasets))
    return table


def _phases_table(plan_id: str, state: PlanState) -> Table:
    table = _table(f"\nPhases of {plan_id}", "dataset", "phase", "status", "attempts", "progress or reason")
    for (dataset, phase), phase_state in state.phases.items():
        detail = phase_state.progress if phase_state.status == "running" else phase_state.reason
        attempts = str(phase_state.attempts or "")
        table.add_row(dataset, phase, _styled(phase_state.status), attempts, detail.replace("[", r"\["))
    return table


def _models_table(view: RegistryView) -> Table:
    table = _table("\nModels", "dataset", "phase", "sha256", "captures", "file")
    for (dataset, phase), model in sorted(view.models.items()):
        table.add_row(dataset, phase, model.sha256[:12], model.data_digest[:12], Path(model.path).name)
    return table


if __name__ == "__main__":
    sys.exit(status_command())
