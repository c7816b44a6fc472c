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
    seconds = _with_error(estimate.duration_mean_s, estimate.duration_std_s, "s")
    memory = _with_error(estimate.peak_memory_mean_mib, estimate.peak_memory_std_mib, "MiB")
    return seconds, memory, f"{estimate.duration_mean_s / 3600 * price:.2f}"


def _with_error(mean: float, std: float | None, unit: str) -> str:
    digits = 1 if mean < 10 else 0
    return (
        f"{mean:.{digits}f} {unit} (once)" if std is None else f"{mean:.{digits}f} ± {std:.{digits}f} {unit}"
    )


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
    spreads = [e.duration_std_s for e in known if e.duration_std_s is not None]
    spread = sum(s**2 for s in spreads) ** 0.5
    error = f" ± {spread:.0f}" if spreads else ""
    cost = f", cost {mean / 3600 * price:.2f} ± {spread / 3600 * price:.2f}" if price else ""
    unknown = f"; {len(running) - len(known)} without history" if len(known) < len(running) else ""
    based_on = f"based on {sum(e.num for e in known)} earlier phases on this device"
    return f"{len(running)} phases to run: {mean:.0f}{error} s{cost} ({based_on}{unknown})"
