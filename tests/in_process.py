"""Carries out a plan without Prefect, in a process that may kill or stop itself or its training process.

::

    python -m tests.in_process SETTINGS_FILE OUTPUT_DIR [--resume PLAN_ID] [--data-dir DIR] [--chain DATASET]
        [--victim coordinator|training|both --signal SIGKILL --at FACT_TYPE[/PHASE] ...]
        [--wait-for FILE --at FACT_TYPE[/PHASE] ...]

With ``--chain`` only that dataset's chain of the resumed plan, as machines do that share a plan. Exits with 0
when the plan is completed, with 1 when it failed.
"""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from core.events.catalogue import Fact
from core.planning.chain import Chain
from core.planning.coordinator import RetrainingCoordinator, run_phase
from flows.cli import run_command, show_progress
from settings.app import load_settings
from tests.held_up import name_of


def main() -> int:
    """Carry out the plan."""
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--resume")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--chain")
    parser.add_argument("--victim", choices=("coordinator", "training", "both"))
    parser.add_argument("--signal", type=lambda name: signal.Signals[name], default=signal.SIGKILL)
    parser.add_argument("--wait-for", type=Path)
    parser.add_argument("--at", nargs="+", default=[])
    arguments = parser.parse_args()
    coordinator = RetrainingCoordinator(load_settings(arguments.config, output_dir=arguments.output_dir))
    show_progress(logging.INFO)
    listener = _acting(arguments.at, lambda: _act(arguments))
    if arguments.chain:
        with Chain(coordinator.layout.root, arguments.resume, arguments.chain, listener) as chain:
            for phase in chain.remaining():
                run_phase(chain, phase)
        return 0
    if arguments.resume:
        state = coordinator.resume_retraining_plan(arguments.resume, arguments.data_dir, listener)
    else:
        state = coordinator.execute_retraining_plan(coordinator.create_retraining_plan(), listener)
    return 0 if state.status == "completed" else 1


def _acting(at: list[str], act: Callable[[], None]) -> Callable[[Fact], None]:
    """Acts at the first fact of each kind, which is in the log by then."""
    left = set(at)

    def listen(fact: Fact) -> None:
        if (name := name_of(fact)) in left:
            left.remove(name)
            act()

    return listen


def _act(arguments: argparse.Namespace) -> None:
    if arguments.wait_for:
        while not arguments.wait_for.exists():
            time.sleep(0.05)
        return
    if arguments.victim != "coordinator":
        for child in psutil.Process().children():
            with suppress(psutil.NoSuchProcess):
                child.send_signal(arguments.signal)
    if arguments.victim != "training":
        os.kill(os.getpid(), arguments.signal)


if __name__ == "__main__":
    sys.exit(run_command(main))
