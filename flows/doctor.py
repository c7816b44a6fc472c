"""What is wrong here, and how to mend it: ``python -m flows.doctor``."""

import argparse
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module

from core.resources.cautions import warnings_for
from core.resources.doctor import Check, LimitFacts, judge_disk, judge_gpu, judge_limits
from core.resources.doctor_probes import probe_disk, probe_gpu, probe_limits
from core.resources.doctor_services import (
    Wanted,
    judge_clock,
    judge_mlflow,
    judge_prefect,
    judge_production,
    judge_storage,
)
from core.resources.machine import Machine, probe_machine
from core.resources.profiles import fit_to_machine
from flows.cli import DONE, FAILED, add_common_arguments, folder, loaded_of, run_command
from flows.tables import safe, table
from settings.app import Settings
from settings.errors import RetrainError, SettingsError

PATIENCE_S = 15.0
"""Time that all checks together may take: whatever has not answered then counts as wrong."""
_STYLES = {"ok": "green", "warning": "yellow", "wrong": "red", "not applicable": "dim"}

Checks = Callable[[], Sequence[Check]]


def doctor_command(argv: Sequence[str] | None = None) -> int:
    """Look at machine, disk, limits and services, and say what is wrong with them.

    Args:
        argv: Arguments; None for those of the process.

    Returns:
        The exit code: 1 if anything is wrong.
    """
    parser = argparse.ArgumentParser(
        prog="python -m flows.doctor",
        description="Look at GPU, driver, torch, disk, limits, Prefect, MLflow, shared storage and clock, "
        "and say what is wrong and how to mend it. Nothing is changed; it takes seconds, also where servers "
        "hang.",
        epilog="Exit codes: 0 nothing is wrong (there may be warnings), 1 something is wrong, 2 bad usage or "
        "settings.",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--data-dir", type=folder, metavar="DIR", help="where captures are")
    add_common_arguments(parser)
    arguments = parser.parse_args(argv)
    limits = probe_limits()  # before commands set the umask

    def examine() -> int:
        checks = examine_all(loaded_of(arguments).settings, limits)
        if arguments.json:
            print(json.dumps([check._asdict() for check in checks], indent=2, ensure_ascii=False))
        else:
            _print(checks)
        return FAILED if any(check.level == "wrong" for check in checks) else DONE

    return run_command(examine)


def examine_all(settings: Settings, limits: LimitFacts) -> list[Check]:
    """All checks, side by side, each with the same patience.

    Args:
        settings: Settings as loaded.
        limits: What this process may use.
    """
    from flows.doctor_probes import Clocks, probe_mlflow, probe_prefect, probe_storage, wanted_deployments

    with suppress(ImportError):  # then its check says so; it is slow to load, which is no check's fault
        import_module("prefect")
    machine, clocks = probe_machine(), Clocks()

    def prefect() -> list[Check]:
        from core.planning.admission import machine_limits

        deployments, pools = wanted_deployments()
        facts = probe_prefect(clocks)
        wanted = Wanted(pools, machine_limits(machine, settings.scheduling), deployments)
        return [
            *judge_prefect(facts, wanted),
            *judge_production(bool(facts.url), _has_heartbeat(), settings.retention.max_disk_gib),
        ]

    retention = settings.retention
    groups: dict[str, Checks] = {
        "GPU": lambda: [*judge_gpu(probe_gpu(machine))],
        "limits": lambda: [*judge_limits(limits, machine)],
        "settings": lambda: [_judge_settings(settings, machine)],
        "disk": lambda: [
            *judge_disk(probe_disk(settings.output_dir), retention.min_free_gib, retention.max_disk_gib)
        ],
        "captures": lambda: [_judge_captures(settings)],
        "shared storage": lambda: [judge_storage(*probe_storage(settings))],
        "Prefect server": prefect,
        "MLflow": lambda: [judge_mlflow(settings.tracking.mlflow, *probe_mlflow(settings, clocks))],
    }
    return [*_side_by_side(groups, PATIENCE_S), judge_clock(dict(clocks))]


def _side_by_side(groups: Mapping[str, Checks], patience_s: float) -> Iterator[Check]:
    """Run groups of checks in threads; those that hang are left behind."""
    found: dict[str, Sequence[Check]] = {}

    def run(name: str, checks: Checks) -> None:
        try:
            found[name] = checks()
        except Exception as error:  # noqa: BLE001 - the others are still worth knowing
            found[name] = [Check(name, "wrong", f"it cannot be examined: {error}", "see --verbose")]

    threads = [
        threading.Thread(target=run, args=entry, name=entry[0], daemon=True) for entry in groups.items()
    ]
    for thread in threads:
        thread.start()
    deadline = threading.Event()
    timer = threading.Timer(patience_s, deadline.set)
    timer.daemon = True
    timer.start()
    while any(thread.is_alive() for thread in threads) and not deadline.wait(0.02):
        pass
    timer.cancel()
    for name in groups:
        yield from found.get(
            name,
            [
                Check(
                    name,
                    "wrong",
                    f"no answer within {patience_s:g} s",
                    "something hangs: a disk, a mount, a server",
                )
            ],
        )


def _judge_settings(settings: Settings, machine: Machine) -> Check:
    try:
        cautions = warnings_for(fit_to_machine(settings, machine), machine)
    except SettingsError as error:
        return Check(
            "settings", "wrong", str(error), "python -m flows.config shows where each value comes from"
        )
    if cautions:
        named = ", ".join(sorted({caution.setting for caution in cautions}))
        return Check("settings", "warning", f"unwise here: {named}", "python -m flows.config says why")
    return Check("settings", "ok", "all are allowed, and none is unwise on this machine")


def _judge_captures(settings: Settings) -> Check:
    from core.planning.plan import choose_datasets

    try:
        names, _ = choose_datasets(settings, (), ())
    except RetrainError as error:
        return Check("captures", "warning", str(error), "set data.data_dir, or describe datasets of your own")
    except OSError as error:
        return Check(
            "captures", "wrong", f"{settings.data.data_dir}: {error.strerror}", "let this user read it"
        )
    return Check("captures", "ok", f"datasets in {settings.data.data_dir}: {', '.join(names)}")


def _has_heartbeat() -> bool:
    from prefect.settings import get_current_settings

    return bool(get_current_settings().flows.heartbeat_frequency)


def _print(checks: Sequence[Check]) -> None:
    from rich.console import Console

    console = Console()
    shown = table("", "check", "how it is", "found")
    for check in checks:
        level = f"[{_STYLES[check.level]}]{check.level}[/]"
        shown.add_row(safe(check.name), level, safe(check.found))
        if check.remedy and check.level != "ok":
            shown.add_row("", "", f"[bold]{safe(check.remedy)}[/]")
    console.print(shown)
    counts = {level: sum(check.level == level for check in checks) for level in ("wrong", "warning")}
    console.print(f"\n{counts['wrong']} wrong, {counts['warning']} warnings", highlight=False)


if __name__ == "__main__":
    code = doctor_command()
    sys.stdout.flush()
    os._exit(code)  # a thread that hangs in a dead disk would keep the process for ever
