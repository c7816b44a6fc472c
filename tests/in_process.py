"""Carries out a plan without Prefect, in a process that may kill itself or its training process.

::

    python -m tests.in_process SETTINGS_FILE OUTPUT_DIR [--resume PLAN_ID] [--data-dir DIR]
        [--victim coordinator|training|both --at FACT_TYPE[/PHASE] ...]

Exits with 0 when the plan is completed, with 1 when it failed.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from core.events.catalogue import Fact
from core.planning.coordinator import RetrainingCoordinator
from flows.cli import run_command
from settings.app import load_settings


def main() -> int:
    """Carry out the plan."""
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--resume")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--victim", choices=("coordinator", "training", "both"))
    parser.add_argument("--at", nargs="+", default=[])
    arguments = parser.parse_args()
    coordinator = RetrainingCoordinator(load_settings(arguments.config, output_dir=arguments.output_dir))
    listener = _killer(arguments.victim, arguments.at)
    if arguments.resume:
        state = coordinator.resume_retraining_plan(arguments.resume, arguments.data_dir, listener)
    else:
        state = coordinator.execute_retraining_plan(coordinator.create_retraining_plan(), listener)
    return 0 if state.status == "completed" else 1


def _killer(victim: str | None, at: list[str]) -> Callable[[Fact], None]:
    """Kills at the first fact of each kind, which is in the log by then."""
    left = set(at)

    def listen(fact: Fact) -> None:
        name = f"{fact.TYPE}/{getattr(fact, 'phase', '')}".rstrip("/")
        if name not in left:
            return
        left.remove(name)
        if victim != "coordinator":
            for child in psutil.Process().children():
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        if victim != "training":
            os.kill(os.getpid(), signal.SIGKILL)

    return listen


if __name__ == "__main__":
    sys.exit(run_command(main))
