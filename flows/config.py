"""Every setting, its value and where it comes from: ``python -m flows.config``."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement

from core.resources.environment import TrainingEnvironmentConfig, fit_config
from core.resources.machine import probe_machine
from flows.cli import (
    DONE,
    add_common_arguments,
    add_environment_argument,
    folder,
    loaded_of,
    run_command,
)
from flows.tables import table
from settings.tree import Leaf, leaves

_STYLES = {"flag": "magenta", "variable": "cyan", "file": "green", "profile": "yellow", "default": "dim"}
_VALUE_WIDTH = 32
"""Columns that values may take before they fold at spaces."""
_ANY_WIDTH = 10_000


def config_command(argv: Sequence[str] | None = None) -> int:
    """Show, or write, the settings that a plan made now would go by.

    Args:
        argv: Arguments; None for those of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m flows.config",
        description="Show every setting with its value and where it comes from: a flag, an environment "
        "variable, a line of the settings file, the profile of this machine, or its default.",
        epilog="Exit codes: 0 done, 2 bad usage or settings.",
    )
    parser.add_argument("--changed", action="store_true", help="only what has not its default")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="as JSON")
    shape.add_argument(
        "--write", type=Path, metavar="FILE", help="write a commented settings file for --config"
    )
    parser.add_argument("--data-dir", type=folder, metavar="DIR", help="where captures are")
    add_environment_argument(parser)
    add_common_arguments(parser)
    arguments = parser.parse_args(argv)

    def show() -> int:
        config = fit_config(loaded_of(arguments), probe_machine())
        shown = [
            leaf
            for leaf in leaves(config.settings)
            if not arguments.changed or config.origins[leaf.name].level != "default"
        ]
        if arguments.json:
            print(json.dumps(_as_json(config, shown), indent=2, ensure_ascii=False))
            return DONE
        console = Console()
        if arguments.write:
            config.write(arguments.write, arguments.changed)
            console.print(f"wrote {arguments.write}: python -m flows.retrain --config {arguments.write}")
        else:
            console.print(_machine_text(config), highlight=False, markup=False, soft_wrap=True)
            _print_settings(console, config, shown)
        for caution in config.warnings:
            console.print(f"warning: {caution}", style="yellow", markup=False, soft_wrap=True)
        return DONE

    return run_command(show)


def _machine_text(config: TrainingEnvironmentConfig) -> str:
    machine = config.machine
    gpus = [
        f"{gpu.name}, {gpu.vram_total_mib:.0f} MiB, compute capability "
        f"{'.'.join(map(str, gpu.compute_capability))}, driver {gpu.driver}"
        for gpu in machine.gpus
    ]
    cpu = f"{machine.cpu_model}, {machine.num_cores} cores for {machine.num_cpus} CPUs"
    ram = f"{machine.ram_total_mib:.0f} MiB of RAM, torch {machine.torch_version or 'not installed'}"
    speed = config.profile.published_samples_per_s
    published = f"; published speed about {speed:.0f} samples/s" if speed else ""
    return "\n".join([*gpus, f"{cpu}, {ram}", f"{config.profile.label}{published}", ""])


def _print_settings(console: Console, config: TrainingEnvironmentConfig, shown: Sequence[Leaf]) -> None:
    """As a table; where that would break names and paths, a line each, which the terminal wraps."""
    rows = []
    for leaf in shown:
        origin = config.origins[leaf.name]
        value = leaf.value if isinstance(leaf.value, str) else json.dumps(leaf.value)
        rows.append((leaf.name, escape(value), f"[{_STYLES[origin.level]}]{escape(str(origin))}[/]"))
    made = table("", "setting", "value", "from")
    for row in rows:
        made.add_row(*row)
    values = [Measurement.get(console, console.options, value) for _, value, _ in rows]
    made.columns[1].width = max((max(m.minimum, min(m.maximum, _VALUE_WIDTH)) for m in values), default=None)
    if Measurement.get(console, console.options.update(width=_ANY_WIDTH), made).minimum <= console.width:
        console.print(made)
        return
    for name, value, source in rows:
        console.print(f"{name}: {value}  ({source})", highlight=False, soft_wrap=True)


def _as_json(config: TrainingEnvironmentConfig, shown: Sequence[Leaf]) -> dict[str, Any]:
    return {
        "profile": config.profile.label,
        "settings": {
            leaf.name: {
                "value": leaf.value,
                "level": config.origins[leaf.name].level,
                "from": str(config.origins[leaf.name]),
                "description": leaf.field.description,
            }
            for leaf in shown
        },
        "warnings": [{"setting": caution.setting, "message": caution.message} for caution in config.warnings],
    }


if __name__ == "__main__":
    sys.exit(config_command())
