"""A plan for people: what would run, what is skipped and why, and what it will take."""

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from core.analytics.history import PhaseEstimate
from core.planning.plan import Plan


def print_plan(plan: Plan, estimates: Mapping[tuple[str, str], PhaseEstimate], console: Console) -> None:
    """Print a plan.

    Args:
        plan: The plan.
        estimates: What each step is expected to take, by (dataset, phase); steps without history are absent.
        console: Where to.
    """
    machine = plan.machine
    device = f"{machine['device_name']} ({machine['device']}, {machine['precision']})"
    console.print(f"Plan for {device}, {plan.settings.models.preset} models, into {plan.settings.output_dir}")
    table = Table(box=None, header_style="bold", pad_edge=False)
    price = plan.settings.resources.cost_per_hour
    predicted = ["time", "peak memory, MiB", *["cost"] * bool(price)]
    for name in ("dataset", "phase", *predicted, "what and why"):
        table.add_column(name, no_wrap=name != "what and why", overflow="fold")
    due = {(step.dataset, step.phase) for step in plan.steps if step.action == "run"}
    for step in plan.steps:
        key = (step.dataset, step.phase)
        cells = _predicted(estimates.get(key), price) if key in due else ("", "", "")
        table.add_row(*map(escape, key), *cells[: len(predicted)], escape(f"{step.action}: {step.reason}"))
    console.print(table)
    if any(estimates[key].num == 1 for key in due if key in estimates):
        console.print("* after a single run: its bounds are wide", style="dim", highlight=False)
    for name, reason in plan.absent.items():
        console.print(f"left out: {name}: {reason}", style="dim", highlight=False, soft_wrap=True)
    console.print(_total(plan, estimates, price), highlight=False)


def _predicted(estimate: PhaseEstimate | None, price: float) -> tuple[str, str, str]:
    if estimate is None:
        return "?", "?", "?"
    once = "*" if estimate.num == 1 else ""
    seconds = f"{_number(estimate.duration_mean_s)} ± {_number(_spread_s(estimate))} s{once}"
    peak = estimate.peak_memory
    memory = f"{_number(peak.middle)} ({_number(peak.low)}\N{EN DASH}{_number(peak.high)}){once}"
    hours, spread_hours = estimate.duration_mean_s / 3600, _spread_s(estimate) / 3600
    return seconds, memory, f"{hours * price:.2f} ± {spread_hours * price:.2f}"


def _spread_s(estimate: PhaseEstimate) -> float:
    """Standard deviation; after a single run half of the bounds that one run leaves."""
    if estimate.duration_std_s is not None:
        return estimate.duration_std_s
    return (estimate.duration.high - estimate.duration.low) / 2


def _number(value: float) -> str:
    return f"{value:.{1 if value < 10 else 0}f}"


def _total(plan: Plan, estimates: Mapping[tuple[str, str], PhaseEstimate], price: float) -> str:
    running = [(step.dataset, step.phase) for step in plan.steps if step.action == "run"]
    if not running:
        return "Everything is up to date: nothing to do."
    known = [estimates[key] for key in running if key in estimates]
    if not known:
        return (
            f"{len(running)} phases to run; no history on this device yet. Published practice is "
            "45 + 35 + 60 minutes for teacher, student and fusion of one dataset on a GPU."
        )
    mean = sum(e.duration_mean_s for e in known)
    spread = sum(_spread_s(e) ** 2 for e in known) ** 0.5
    cost = f", cost {mean / 3600 * price:.2f} ± {spread / 3600 * price:.2f}" if price else ""
    unknown = f"; {len(running) - len(known)} without history" if len(known) < len(running) else ""
    since = min(e.since for e in known)
    based_on = f"based on {sum(e.num for e in known)} earlier phases on this device since {since}"
    return f"{len(running)} phases to run: {mean:.0f} ± {spread:.0f} s{cost} ({based_on}{unknown})"
