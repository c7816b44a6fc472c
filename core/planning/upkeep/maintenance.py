"""Maintenance: finished plans are compacted, and what is no longer needed is deleted by policy.

Everything is decided from what is there, and each deletion is complete or can be found again: maintenance may
be killed at any moment, run twice, beside plans, and on several hosts at once.
"""

import logging
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import cast

from core.can.graphs import delete_unused_store
from core.errors import EventLogError
from core.events.event import Event
from core.events.log import EventLog
from core.events.open import Part, attempt, bind_storage, open_log, open_store
from core.events.telemetry_files import merge_files
from core.logs import logged_to
from core.planning.analysis import analyze_plans
from core.planning.audit import readable
from core.planning.plan_state import PLAN_STATE
from core.planning.shared.lock import cannot_write
from core.planning.upkeep.disk import disk_shortage
from core.planning.upkeep.retention import Item, Removal, choose_removals
from core.planning.upkeep.survey import MAINTENANCE_LOG, num_bytes_below, survey, survey_shared
from settings.app import Settings
from settings.errors import SettingsError
from settings.layout import Layout
from settings.retention import RetentionSettings

_LOG = logging.getLogger("maintenance")
"""Written to a file of its own; whoever asked for it is told by the report."""
_GIB = 2**30


@dataclass
class MaintenanceReport:
    """What maintenance did, or would do.

    Attributes:
        num_bytes_before: Of the output directory.
        removed: What went, or would go.
        problems: What could not be done, a sentence each.
    """

    num_bytes_before: int = 0
    removed: list[Removal] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def num_bytes_freed(self) -> int:
        """Size of what went."""
        return sum(removal.item.num_bytes for removal in self.removed)

    def summary(self, dry_run: bool) -> str:
        """What was done, in a sentence; or what would be."""
        verb = "would be deleted" if dry_run else "deleted"
        return (
            f"{len(self.removed)} items {verb}, {self.num_bytes_freed / _GIB:.2f} of "
            f"{self.num_bytes_before / _GIB:.2f} GiB"
        )


def maintain_outputs(
    settings: Settings, now: datetime | None = None, *, dry_run: bool = False, rebuild: bool = False
) -> MaintenanceReport:
    """Compact finished plans, delete what the policy says, and see whether the disk budget is kept.

    Args:
        settings: Where outputs are, and the policy.
        now: The time, if it is not now.
        dry_run: Only say what would go; nothing is written.
        rebuild: First write the projections of all plans anew.

    Raises:
        SettingsError: There is no output directory, or it is bound to other storage.
        RetrainError: The output directory cannot be written.
        EventLogError: The plans cannot be listed.
        OSError: The output directory cannot be read.
    """
    layout, policy = bind_storage(settings), settings.retention
    if not layout.root.is_dir():
        raise SettingsError(
            f"there is no folder {layout.root} (setting output_dir, flag --output-dir): nothing to maintain"
        )
    now, log = now or datetime.now(UTC), open_log(layout)
    if rebuild and not dry_run and log.streams():
        analyze_plans(layout.root)
    streams, unreadable = readable(log)
    report = MaintenanceReport(num_bytes_below(layout.root))
    report.problems += [f"plan {plan_id} is left alone: {error}" for plan_id, error in unreadable.items()]
    with _logged(layout, dry_run):
        if not dry_run:
            _tidy(log, layout, streams, report)
        removals = choose_removals(
            [*survey(layout, {*streams}), *survey_shared(layout)],
            {plan_id: PLAN_STATE.fold(events) for plan_id, events in streams.items()},
            policy,
            report.num_bytes_before,
            now,
        )
        for removal in removals:
            if dry_run or _remove(removal, layout, report):
                report.removed.append(removal)
        report.problems += _still_wrong(layout, policy, report, dry_run)
        for problem in report.problems:
            _LOG.warning("%s", problem)
    return report


def describe(removal: Removal, root: Path) -> str:
    """What goes and why, in a line.

    Args:
        removal: It.
        root: The output directory.
    """
    item = removal.item
    if item.blobs:
        return f"{item.kind}: {'/'.join(item.blobs)} of shared storage: {removal.reason}"
    names = str(item.paths[0].relative_to(root))
    more = f" and {len(item.paths) - 1} more" if len(item.paths) > 1 else ""
    return f"{item.kind}: {names}{more}, {item.num_bytes / 2**20:.1f} MiB: {removal.reason}"


@contextmanager
def _logged(layout: Layout, dry_run: bool) -> Iterator[None]:
    """Keep what is done in a file of its own; looking writes nothing."""
    if dry_run:
        yield
        return
    try:
        layout.coordinator_logs.mkdir(exist_ok=True)
    except OSError as error:
        raise cannot_write(layout.root, error) from error
    with logged_to(layout.coordinator_logs / MAINTENANCE_LOG, _LOG.name, logging.INFO):
        yield


def _tidy(log: EventLog, layout: Layout, streams: dict[str, list[Event]], report: MaintenanceReport) -> None:
    """Fewer files for plans that are over: nothing is lost, and readers never notice."""
    for plan_id, events in streams.items():
        if PLAN_STATE.fold(events).status == "running":
            continue
        try:
            log.compact(plan_id)
            for folder in sorted(layout.telemetry.glob(f"plan={plan_id}/dataset=*")):
                merge_files(folder)
        except (EventLogError, OSError) as error:
            report.problems.append(f"plan {plan_id} stays in many small files: {error}")


def _remove(removal: Removal, layout: Layout, report: MaintenanceReport) -> bool:
    item = removal.item
    try:
        if not _delete(item, removal.last_used_at, layout):
            return False
    except (OSError, EventLogError) as error:
        reason = getattr(error, "strerror", None) or error
        report.problems.append(f"cannot delete {item.paths[0] if item.paths else item.blobs}: {reason}")
        return False
    _LOG.info(
        "deleted %s",
        describe(removal, layout.root),
        extra={
            "kind": item.kind,
            "paths": [str(path.relative_to(layout.root)) for path in item.paths],
            "blobs": item.blobs,
            "num_bytes": item.num_bytes,
            "plan": item.plan_id or None,
            "last_used_at": removal.last_used_at.isoformat(),
        },
    )
    return True


def _delete(item: Item, unused_since: datetime, layout: Layout) -> bool:
    """Delete an item: at once, or such that what is left is found again."""
    if item.blobs:
        part, stream = item.blobs
        store = open_store(layout, cast("Part", part))
        for name in sorted(attempt(store, partial(store.names, stream))):
            attempt(store, partial(store.delete, stream, name))
        return True
    first = item.paths[0]
    if item.kind == "graphs" or (first.suffix == ".tmp" and first.is_dir()):
        return delete_unused_store(first, unused_since)
    if first.is_dir():
        aside = first.with_name(f".{uuid.uuid4().hex}.tmp")
        first.rename(aside)
        shutil.rmtree(aside)
        return True
    for path in item.paths:
        path.unlink(missing_ok=True)
    return True


def _still_wrong(
    layout: Layout, policy: RetentionSettings, report: MaintenanceReport, dry_run: bool
) -> Iterator[str]:
    """What deleting cannot mend."""
    left = report.num_bytes_before - report.num_bytes_freed if dry_run else num_bytes_below(layout.root)
    if policy.max_disk_gib and left > policy.max_disk_gib * _GIB:
        sizes = sorted(((num_bytes_below(path), path.name) for path in layout.root.iterdir()), reverse=True)
        largest = ", ".join(f"{name} ({size / _GIB:.2f} GiB)" for size, name in sizes[:3])
        yield (
            f"{layout.root} takes {left / _GIB:.2f} GiB, more than retention.max_disk_gib="
            f"{policy.max_disk_gib:g}, and what is left is needed or younger than a day; most of it is "
            f"{largest}: raise the budget, resume plans that are not over, or move the directory to a larger "
            "disk (prefect/, and mlflow.db with mlartifacts/, are views that may go while nothing runs)"
        )
    if problem := disk_shortage(layout.root, policy):
        yield problem
