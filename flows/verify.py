"""Whether anyone changed history: ``python -m flows.verify`` checks the hashes of the whole event log."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from core.errors import EventLogError
from core.events.open import is_shared, open_log, open_store
from core.events.shared_telemetry import fetch_telemetry
from core.events.telemetry import check_telemetry
from core.planning.audit import StreamAudit, audit
from flows.cli import DONE, FAILED, add_common_arguments, run_command, settings_of
from flows.tables import styled, table
from settings.errors import SettingsError
from settings.layout import Layout


def verify_command(argv: Sequence[str] | None = None) -> int:
    """Print what the hashes say about every plan.

    Args:
        argv: Arguments; None for those of the process.

    Returns:
        The exit code: 1 if anything was changed or cannot be read.
    """
    parser = argparse.ArgumentParser(
        prog="python -m flows.verify",
        description="Check the hashes of the event log: whether anything in its history was changed.",
        epilog="Each plan names where the others stood when it began. That events were cut off which no "
        "later plan has named cannot be seen from the log: note the sha256 of each plan's end. Exit codes: "
        "0 unchanged, 1 changed or unreadable, 2 bad usage or settings, or no plans.",
    )
    add_common_arguments(parser)
    arguments = parser.parse_args(argv)
    return run_command(lambda: _print_audit(settings_of(arguments).output_dir))


def _print_audit(output_dir: Path) -> int:
    console = Console()
    log = open_log(Layout(output_dir))
    audits = audit(log)
    if not audits:
        raise SettingsError(
            f"no plans in {log.location} (setting output_dir, flag --output-dir): there is nothing to check"
        )
    plans = table("Event log", "plan", "status", "events")
    for found in audits:
        num_events = "" if found.num_events is None else str(found.num_events)
        plans.add_row(found.plan_id, styled(found.status), num_events)
    console.print(plans)
    ends = [f"{found.head.sha256}  {found.plan_id}" for found in audits if found.head.sha256]
    # Not in the table, which would break them where the terminal is narrow.
    console.print("\nsha256 of the end of each plan", *ends, sep="\n", highlight=False, soft_wrap=True)
    for found in audits:
        if detail := _detail(found):
            console.print(f"\nplan {found.plan_id}: {detail}", highlight=False, markup=False, soft_wrap=True)
    damage = _telemetry_damage(Layout(output_dir))
    if damage:
        console.print(f"\n{damage}", highlight=False, markup=False, soft_wrap=True)
    return FAILED if damage or any(found.problem for found in audits) else DONE


def _telemetry_damage(layout: Layout) -> str:
    """The first file of resource samples that was changed; empty if none was."""
    try:
        if is_shared(layout):  # what was fetched before says nothing about what is there now
            with tempfile.TemporaryDirectory() as folder:
                fetch_telemetry(open_store(layout, "telemetry"), Path(folder), None)
                check_telemetry(Path(folder))
        else:
            check_telemetry(layout.telemetry)
    except EventLogError as error:
        return str(error)
    return ""


def _detail(found: StreamAudit) -> str:
    unhashed = f"{found.num_unhashed} events of release 0.1.0 carry no hash" if found.num_unhashed else ""
    return found.problem or unhashed


if __name__ == "__main__":
    sys.exit(verify_command())
