"""What deployments refer to, made as code says: ``python -m deployments.apply``, as often as you like.

Work pools with their queues, Prefect variables and automations; with ``--machine``, run on each machine that
trains, the concurrency limits of that machine's GPUs and processors.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cli import DONE, FAILED, print_error, run_command
from settings.errors import RetrainError, SettingsError

if TYPE_CHECKING:  # Prefect is loaded where it is needed: --help answers at once
    from prefect.client.orchestration import SyncPrefectClient

    from deployments.changes import Change


def apply_command(argv: Sequence[str] | None = None) -> int:
    """Make, or check, what deployments refer to.

    Args:
        argv: Arguments; None for those of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m deployments.apply",
        description="Make work pools, queues, variables and automations of the configured Prefect API "
        "(PREFECT_API_URL, profile) as this code says. What is there is changed where it differs; what you "
        "set yourself (variables, slots of limits) is kept; nothing is deleted.",
        epilog="Exit codes: 0 done, 1 something failed or is wrong, 2 bad usage or settings.",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--machine",
        action="store_true",
        help="make the concurrency limits of this machine instead: MiB of each GPU, and processor cores",
    )
    what.add_argument(
        "--check",
        action="store_true",
        help="check prefect.yaml and everything it refers to, without a server, and change nothing",
    )
    parser.add_argument(
        "--reset", action="store_true", help="give variables and limits that you set their defaults again"
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings file (YAML), for the group scheduling"
    )
    parser.add_argument(
        "--webhook-url",
        metavar="URL",
        default=os.environ.get("CAN_RETRAIN_WEBHOOK_URL"),
        help="where automations send notifications, kept as a secret of the server; the variable "
        "CAN_RETRAIN_WEBHOOK_URL says the same, and is seen in no list of processes",
    )
    arguments = parser.parse_args(argv)
    if arguments.check:
        return run_command(_check)
    if arguments.machine:
        return run_command(lambda: _apply(_machine_limits(arguments.config, arguments.reset)))
    return run_command(lambda: _apply(_everything(arguments.reset, arguments.webhook_url)))


def _check() -> int:
    from deployments.check import check_deployments

    checked, problems = check_deployments()
    for problem in problems:
        print_error(problem)
    if problems:
        return FAILED
    print("all right: " + ", ".join(checked))
    return DONE


def make_automations() -> None:
    """The step of ``prefect.yaml`` that makes the automations of deployments, once those are there."""
    from deployments.automations import ensure_automations

    _apply(ensure_automations)


def _everything(reset: bool, webhook_url: str | None) -> "Callable[[SyncPrefectClient], list[Change]]":
    from deployments.automations import ensure_automations
    from deployments.variables import ensure_variables
    from deployments.work_pools import ensure_work_pools

    return lambda client: [
        *ensure_work_pools(client),
        *ensure_variables(client, reset),
        *ensure_automations(client, webhook_url),
    ]


def _machine_limits(config: Path | None, reset: bool) -> "Callable[[SyncPrefectClient], list[Change]]":
    from core.planning.admission import machine_limits
    from core.resources.machine import probe_machine
    from deployments.limits import ensure_limits
    from settings.app import load_settings

    limits = machine_limits(probe_machine(every_slice=True), load_settings(config).scheduling)
    return lambda client: ensure_limits(client, limits, reset)


def _apply(ensure: "Callable[[SyncPrefectClient], list[Change]]") -> int:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import get_current_settings

    from flows.server import require_answer

    url = get_current_settings().api.url
    if not url:
        raise SettingsError(
            "no Prefect API is configured: start one (prefect server start) and name it, as in "
            "PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    require_answer(url)
    try:
        with get_client(sync_client=True) as client:
            changes = ensure(client)
    except PrefectHTTPStatusError as error:
        raise RetrainError(f"the Prefect API at {url} refuses: {error}") from error
    print(*changes, sep="\n")
    return DONE


if __name__ == "__main__":
    sys.exit(apply_command())
