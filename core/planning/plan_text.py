"""A plan for people: what would run, what is skipped and why, and what it will take."""

from collections.abc import Mapping

from rich.console import Console
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
    columns = ["dataset", "phase", "action", "time", "peak memory", *["cost"] * bool(price), "why"]
    for name in columns:
        table.add_column(name, no_wrap=name != "why", overflow="fold")
    for step in plan.steps:
        estimate = estimates.get((step.dataset, step.phase))
        predicted = _predicted(estimate, price) if step.action == "run" else ("", "", "")
        table.add_row(step.dataset, step.phase, step.action, *predicted[: len(columns) - 4], step.reason)
    console.print(table)
    for name, reason in plan.absent.items():
        console.print(f"left out: {name}: {reason}", style="dim", highlight=False, soft_wrap=True)
    console.print(_total(plan, estimates, price), highlight=False)


def _predicted(estimate: PhaseEstimate | None, price: float) -> tuple[str, str, str]:
    if estimate is None:
        return "?", "?", "?"
    once = " (once)" if estimate.num == 1 else ""
    seconds = f"{_number(estimate.duration_mean_s)} ± {_number(_spread_s(estimate))} s{once}"
    peak = estimate.peak_memory
    memory = f"{_number(peak.middle)} MiB ({_number(peak.low)} to {_number(peak.high)})"
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
