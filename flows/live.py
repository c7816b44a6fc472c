"""What goes on at this moment: training processes and the machine's resources, for ``flows.status``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from core.resources.process_manager import ProcessManager
from core.resources.process_state import ProcessStatus
from flows.tables import safe, styled, table

_GIB = 2**10  # MiB


def print_live(console: Console, output_dir: Path, plan_id: str) -> None:
    """Print the training processes that run, all of the plan that is shown, and what the machine is doing.

    Args:
        console: Where to.
        output_dir: The output directory.
        plan_id: The plan; empty where there is none: then all processes are printed.
    """
    manager = ProcessManager(output_dir)
    own = f"{plan_id}-" if plan_id else ""
    shown = [p for p in manager.processes() if p.name.startswith(own) or not _is_over(p)]
    if shown:
        console.print(_process_table(shown, plan_id))
    console.print(_resource_table(manager.get_system_status()))


def _is_over(process: ProcessStatus) -> bool:
    return process.state in ("ended", "abandoned") and not process.is_alive


def _process_table(processes: Sequence[ProcessStatus], plan_id: str) -> Table:
    """A row for each; a process of the plan that is shown goes by its dataset."""
    shown = table(
        "\nTraining processes",
        "process",
        "status",
        "pid",
        "doing",
        "silent",
        "restarts",
        "RSS",
        "last failure",
    )
    for p in processes:
        speed = f", {p.graphs_per_s:.0f} graphs/s" if p.graphs_per_s else ""
        shown.add_row(
            safe(p.name.removeprefix(f"{plan_id}-")),
            styled(p.state),
            str(p.pid or ""),
            safe(p.doing + speed),
            "" if p.since_s is None else f"{p.since_s:.0f} s",
            str(p.num_restarts or ""),
            "" if p.rss_mib is None else f"{p.rss_mib:.0f} MiB",
            p.failure.kind if p.failure else "",
        )
    return shown


def _resource_table(status: Mapping[str, Any]) -> Table:
    now = status["current_resources"]
    shown = table("\nResources", "what", "in use", "of")
    shown.add_row("CPU", _number(now["cpu_percent"], "%"), _number(now["num_cpus"], "CPUs"))
    shown.add_row("RAM", _gib(now["ram_used_mib"]), _gib(now["ram_total_mib"]))
    shown.add_row("disk", f"{_gib(now['disk_free_mib'])} free", "")
    for gpu in status["gpus"]:
        heat = f"{_number(gpu['gpu_temperature_c'], '°C')}, {_number(gpu['gpu_power_w'], 'W')}"
        name = f"GPU {gpu['gpu_index']} {gpu['gpu_name'] or ''}"
        shown.add_row(safe(name), f"{_number(gpu['gpu_utilization_percent'], '%')}, {heat}", "")
        shown.add_row("VRAM", _gib(gpu["vram_used_mib"]), _gib(gpu["vram_total_mib"]))
    if not status["gpus"]:
        shown.add_row("GPU", "none", "")
    return shown


def _number(value: float | None, unit: str) -> str:
    return "unknown" if value is None else f"{value:.0f} {unit}"


def _gib(mib: float | None) -> str:
    return "unknown" if mib is None else f"{mib / _GIB:.1f} GiB"
