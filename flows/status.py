"""How plans stand, or stood: ``python -m flows.status``, a read-only view that works while a run goes."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from core.analytics.versions import Versions, fold_versions
from core.events.catalogue import PhaseFailed
from core.events.event import Event
from core.events.open import open_log
from core.planning.audit import as_it_was, readable
from core.planning.live.decisions import granted
from core.planning.live.watching import plan_statuses
from core.planning.plan_state import PLAN_STATE, PhaseName, PlanState, progress
from core.planning.registry_view import RegistryView, fold_registry
from core.planning.shared.claims import holders
from flows.cli import DONE, add_common_arguments, left_out, plan_name, run_command, settings_of
from flows.live import print_live
from flows.tables import safe, styled, table
from settings.errors import SettingsError
from settings.layout import Layout

_MOST_LINES = 12
"""Of an error's message; all of it is in the log."""


def status_command(argv: Sequence[str] | None = None) -> int:
    """Print plans, the phases of one of them, saved models, training processes, resources, the last error.

    Args:
        argv: Arguments; None for those of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m flows.status",
        description="How plans and models stand.",
        epilog="Exit codes: 0 shown (with --watch: the plan has ended, well or not), 1 a plan cannot be "
        "read, 2 bad usage or settings, 130 stopped by Ctrl-C.",
    )
    parser.add_argument(
        "--plan", type=plan_name, metavar="PLAN_ID", help="show this plan's phases; default the newest"
    )
    parser.add_argument(
        "--at", type=int, metavar="POSITION", help="show everything as it was after this event of the plan"
    )
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--watch", action="store_true", help="follow a plan in the terminal until it has ended")
    way.add_argument("--serve", action="store_true", help="follow plans in the browser until Ctrl-C")
    parser.add_argument("--port", type=int, default=8765, help="where on loopback; default %(default)s")
    add_common_arguments(parser)
    arguments = parser.parse_args(argv)
    if arguments.at is not None and (arguments.watch or arguments.serve):
        parser.error("--at shows the past: it has no meaning with --watch or --serve")
    return run_command(lambda: _show(arguments))


def _show(arguments: argparse.Namespace) -> int:
    output_dir = settings_of(arguments).output_dir
    if arguments.watch:
        from flows.watch import watch

        watch(output_dir, arguments.plan)
        return DONE
    if arguments.serve:
        from flows.serve import serve

        serve(output_dir, arguments.port)
        return DONE
    return _print_status(output_dir, arguments.plan, arguments.at)


def _print_status(output_dir: Path, plan_id: str | None, position: int | None) -> int:
    console = Console()
    log = open_log(Layout(output_dir))
    events: Mapping[str, Sequence[Event]]
    events, problems = readable(log)
    plans = sorted({*events, *problems})
    if not plans:
        console.print(f"no plans in {log.location}", highlight=False)
        print_live(console, output_dir, "")
        return DONE
    if plan_id and plan_id not in plans:
        raise SettingsError(f"no plan {plan_id} in {log.location}; known plans: {', '.join(plans)}")
    chosen = plan_id or max(events, default=plans[-1])
    if chosen in problems:
        print_live(console, output_dir, chosen)
        raise problems[chosen]
    if position is not None:
        events = as_it_was(events, chosen, position)
        last = events[chosen][-1]
        console.print(
            f"as it was at {last.occurred_at:%Y-%m-%d %H:%M:%S.%f} UTC, after event {position} of {chosen}: "
            f"{last.type} {json.dumps(dict(last.payload), ensure_ascii=False)}\n",
            highlight=False,
            markup=False,
        )
    states = {name: PLAN_STATE.fold(past) for name, past in events.items()}
    statuses = plan_statuses(states, problems, output_dir if position is None else None)
    console.print(_plans_table(statuses, states))
    console.print(_phases_table(chosen, states[chosen], progress(events[chosen], states[chosen])))
    if position is None:
        for dataset, holder in holders(Layout(output_dir), chosen, states[chosen]).items():
            console.print(f"{dataset} is held by {holder}", highlight=False, markup=False)
    console.print(_models_table(fold_registry(events.values()), fold_versions(events.values())))
    if position is None:
        print_live(console, output_dir, chosen)
    for text in _last_error(events[chosen]):
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    for line in left_out(problems):
        console.print(f"\n{line}", highlight=False, markup=False, soft_wrap=True)
    return DONE


def _plans_table(statuses: Mapping[str, str], states: Mapping[str, PlanState]) -> Table:
    shown = table("Plans", "plan", "status", "started (UTC)", "last event (UTC)", "datasets")
    for name, status in sorted(statuses.items()):
        state = states.get(name, PLAN_STATE.initial)
        times = [f"{t:%Y-%m-%d %H:%M:%S}" if t else "" for t in (state.started_at, state.last_event_at)]
        shown.add_row(name, styled(status), *times, safe(", ".join(state.datasets)))
    return shown


def _phases_table(plan_id: str, state: PlanState, epochs: dict[PhaseName, str]) -> Table:
    shown = table(f"\nPhases of {plan_id}", "dataset", "phase", "status", "attempts", "progress or reason")
    for (dataset, phase), phase_state in state.phases.items():
        detail = phase_state.reason
        if phase_state.status == "running":
            room = granted(phase_state.admitted) if phase_state.admitted else ""
            detail = ", ".join(filter(None, (epochs.get((dataset, phase), ""), room)))
        attempts = str(phase_state.attempts or "")
        shown.add_row(safe(dataset), phase, styled(phase_state.status), attempts, safe(detail))
    return shown


def _last_error(events: Sequence[Event]) -> list[str]:
    """The last failure of a plan, and whether it was got over, a line each; empty if there was none."""
    event = next((event for event in reversed(events) if event.type == PhaseFailed.TYPE), None)
    if event is None:
        return []
    failed = event.payload
    name = f"{failed['dataset']}/{failed['phase']}"
    state = PLAN_STATE.fold(events).phases[failed["dataset"], failed["phase"]]
    report = [f"stacks and last signs of life: {failed['report']}"] if failed["report"] else []
    return [
        f"\nLast error, {event.occurred_at:%Y-%m-%d %H:%M:%S} UTC: attempt {failed['attempt']} of {name} "
        f"({failed['kind']}); the phase is {state.status} now",
        *failed["message"].splitlines()[:_MOST_LINES],
        *report,
    ]


def _models_table(view: RegistryView, versions: Versions) -> Table:
    shown = table("\nModels", "dataset", "phase", "version", "role", "sha256", "captures", "file")
    for (dataset, phase), model in sorted(view.models.items()):
        (version,) = (v for v in versions[dataset, phase] if v.sha256 == model.sha256)
        digests = model.sha256[:12], model.data_digest[:12]
        name = safe(Path(model.path).name)
        shown.add_row(safe(dataset), phase, str(version.number), version.role, *digests, name)
    return shown


if __name__ == "__main__":
    sys.exit(status_command())
