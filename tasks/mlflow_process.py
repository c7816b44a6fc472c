"""MLflow is written to by a process of its own: however slow or stuck it is, nobody has to wait for it.

Run as ``python -m tasks.mlflow_process OUTPUT_DIR PLAN_ID`` with the settings on standard input (they may
hold a password) it is that process. It ends when its standard input closes; killing it is always harmless.
"""

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from core.logs import LogFile, Sentences, identified, open_output
from settings.errors import RetrainError
from settings.layout import Layout
from settings.tracking import TrackingSettings
from tasks.mlflow_projection import project_to_mlflow

_LOG = logging.getLogger("tasks.mlflow_process")


@contextmanager
def live_curves(output_dir: Path, plan_id: str, tracking: TrackingSettings) -> Iterator[None]:
    """Let MLflow follow a plan for as long as the context lasts; what it misses is caught up at the end.

    Args:
        output_dir: The plan's output directory.
        plan_id: The plan.
        tracking: Where MLflow is, and how often it is brought up to date.
    """
    if not tracking.mlflow or not tracking.mlflow_every_s:
        yield
        return
    with _projector(output_dir, plan_id, tracking, "--follow"):
        yield


def update_in_time(output_dir: Path, plan_id: str, tracking: TrackingSettings) -> int:
    """Bring MLflow up to date with a plan, or give up when the time for it is over.

    Args:
        output_dir: The plan's output directory.
        plan_id: The plan.
        tracking: Where MLflow is, and how long it may take.

    Returns:
        Number of events projected now.

    Raises:
        RetrainError: MLflow is away, locked or too slow; the message says what to do.
    """
    with _projector(output_dir, plan_id, tracking) as process:
        try:
            process.wait(tracking.mlflow_limit_s)
        except subprocess.TimeoutExpired:
            raise RetrainError(
                f"MLflow took longer than {tracking.mlflow_limit_s:g} s (setting tracking.mlflow_limit_s); "
                "python -m flows.analyze catches up later"
            ) from None
        answer = process.stdout.read().strip() if process.stdout else ""
        if process.returncode:
            raise RetrainError(answer or f"MLflow is not up to date, see {_log_path(output_dir, plan_id)}")
        return int(answer)


@contextmanager
def _projector(
    output_dir: Path, plan_id: str, tracking: TrackingSettings, *flags: str
) -> Iterator["subprocess.Popen[str]"]:
    log_path = _log_path(output_dir, plan_id)
    with open_output(log_path) as log:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(output_dir), plan_id, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,  # Ctrl-C is for the plan
        )
    with process:
        try:
            if process.stdin:
                with suppress(BrokenPipeError):  # it has ended already: its exit code says so
                    told = tracking.model_dump() | {"mlflow_uri": tracking.mlflow_uri.get_secret_value()}
                    process.stdin.write(json.dumps(told) + "\n")
                    process.stdin.flush()
            yield process
        finally:
            process.kill()


def _log_path(output_dir: Path, plan_id: str) -> Path:
    return Layout(output_dir).process_logs / f"{plan_id}-mlflow.log"


def _follow(output_dir: Path, plan_id: str, tracking: TrackingSettings) -> None:
    """Project every so often, in what time training leaves; a lasting error is said once."""
    os.nice(10)
    said = ""
    while True:
        time.sleep(tracking.mlflow_every_s)
        try:
            project_to_mlflow(output_dir, plan_id, tracking, in_passing=True)
            said = ""
        except RetrainError as error:
            if str(error) != said:
                said = str(error)
                _LOG.warning("%s", said)


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.mlflow_process")
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("plan_id")
    parser.add_argument("--follow", action="store_true", help="go on until standard input closes")
    arguments = parser.parse_args()
    tracking = TrackingSettings.model_validate_json(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _log_to(_log_path(arguments.output_dir, arguments.plan_id).with_suffix(".jsonl"))
    if arguments.follow:
        with identified(plan=arguments.plan_id):
            _follow(arguments.output_dir, arguments.plan_id, tracking)
    try:
        print(project_to_mlflow(arguments.output_dir, arguments.plan_id, tracking))
    except RetrainError as error:
        print(error)
        return 1
    return 0


def _log_to(records: Path) -> None:
    """Log to a file of JSON lines, MLflow's warnings included, and to stderr, for people."""
    shown = logging.StreamHandler()
    shown.setFormatter(Sentences("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[LogFile(records), shown])


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(_main())
