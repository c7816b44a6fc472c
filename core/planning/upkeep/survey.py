"""What lies in an output directory that maintenance may look at: found by its place and its name."""

import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import unquote

from core.events.open import Part, attempt, is_shared, open_store
from core.planning.upkeep.retention import Item, Kind
from settings.layout import Layout

PLAN_FILES = ("plan.json", "results.json", "dashboard.html", "dashboard.png")
"""Endings of a plan's own projections."""
MAINTENANCE_LOG = "maintenance.jsonl"
"""In ``coordinator_logs``: what was deleted, and why."""
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp|\..+\.state\.json\.\d+\.tmp|[0-9a-f]{64}\.tmp")
"""Names of what is written aside, by ``core.events.files``, process states, and builders of graph stores."""
_SHARED: tuple[tuple[Part, Kind, re.Pattern[str]], ...] = (
    ("telemetry", "telemetry", re.compile(r"plan=([^,]+),dataset=.+")),
    ("files", "checkpoints", re.compile(r"checkpoints-(.+)")),
)
_STORE = re.compile(r"[0-9a-f]{64}")
_SIDECAR = re.compile(r"epoch-\d+-step-\d+\.json")
_CHECKPOINT = re.compile(r"epoch-\d+-step-\d+\.pt")


def survey(layout: Layout, plans: Collection[str]) -> list[Item]:
    """Everything that may ever be deleted; what vanishes meanwhile is left out.

    Args:
        layout: The output directory.
        plans: Names of plans, to know whose a log file is.

    Raises:
        OSError: A folder cannot be read.
    """
    return [
        *_checkpoints(layout),
        *_graphs(layout),
        *_dashboards(layout, plans),
        *_logs(layout, plans),
        *_telemetry(layout),
        *_litter(layout),
    ]


def survey_shared(layout: Layout) -> Iterator[Item]:
    """What plans have in shared storage besides the log and models, as far as it may ever be deleted.

    Raises:
        StorageError: It cannot be listed.
    """
    if not is_shared(layout):
        return
    for part, kind, pattern in _SHARED:
        store = open_store(layout, part)
        for stream in sorted(attempt(store, store.streams)):
            match = pattern.fullmatch(stream)
            if match and attempt(store, partial(store.names, stream)):
                yield Item(
                    kind, (), 0, datetime.min.replace(tzinfo=UTC), unquote(match[1]), "", (part, stream)
                )


def num_bytes_below(folder: Path) -> int:
    """Size of all files below a folder; links are not followed."""
    return sum(size for _, size, _ in _walk(folder))


def _checkpoints(layout: Layout) -> Iterator[Item]:
    """One for each sidecar, which makes a checkpoint count and names its plan; without one it is litter."""
    models = (
        (dataset.name, model)
        for dataset in _folders(layout.checkpoints)
        for phase in _folders(dataset)
        for model in _folders(phase)
    )
    for dataset, folder in models:
        names = {path.name for path in _entries(folder)}
        for name in sorted(names):
            path = folder / name
            if _SIDECAR.fullmatch(name):
                files = (path, path.with_suffix(".pt"))
                yield from _item("checkpoints", files, _plan_of(path), dataset)
            elif _CHECKPOINT.fullmatch(name) and path.with_suffix(".json").name not in names:
                yield from _item("litter", (path,))


def _plan_of(sidecar: Path) -> str:
    """The plan that a checkpoint belongs to; none where its sidecar cannot be read."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        key: str = json.loads(sidecar.read_bytes())["key"]
        return key.partition("/")[0]
    return ""


def _graphs(layout: Layout) -> Iterator[Item]:
    for folder in _folders(layout.graphs):
        if _STORE.fullmatch(folder.name):
            yield from _item("graphs", (folder,))


def _dashboards(layout: Layout, plans: Collection[str]) -> Iterator[Item]:
    for plan_id in sorted(plans):
        paths = tuple(layout.plan_file(plan_id, ending) for ending in PLAN_FILES)
        yield from _item("dashboards", paths, plan_id)


def _logs(layout: Layout, plans: Collection[str]) -> Iterator[Item]:
    for folder in (layout.coordinator_logs, layout.orchestrator_logs, layout.process_logs):
        for path in sorted(folder.glob("*")):
            is_own = path.name.startswith(MAINTENANCE_LOG)
            if (
                path.is_file()
                and not path.is_symlink()
                and not is_own
                and not _TEMPORARY.fullmatch(path.name)
            ):
                plan_id = max((name for name in plans if path.name.startswith(name)), key=len, default="")
                yield from _item("logs", (path,), plan_id)


def _telemetry(layout: Layout) -> Iterator[Item]:
    for folder in _folders(layout.telemetry):
        key, _, plan_id = folder.name.partition("=")
        if key == "plan":
            yield from _item("telemetry", (folder,), unquote(plan_id))


def _litter(layout: Layout) -> Iterator[Item]:
    """What was written aside and never got its name; in a shared log too, where readers ignore it."""
    pending = [layout.root]
    while pending:
        for path in sorted(_entries(pending.pop())):
            if _TEMPORARY.fullmatch(path.name):
                yield from _item("litter", (path,))
            elif path.is_dir() and not path.is_symlink() and path != layout.prefect_home:
                pending.append(path)


def _item(kind: Kind, paths: tuple[Path, ...], plan_id: str = "", dataset: str = "") -> Iterator[Item]:
    files = [entry for path in paths for entry in _walk(path)]
    if files:
        modified_at = datetime.fromtimestamp(max(mtime_s for _, _, mtime_s in files), UTC)
        yield Item(kind, paths, sum(size for _, size, _ in files), modified_at, plan_id, dataset)


def _walk(path: Path) -> Iterator[tuple[Path, int, float]]:
    """Files at or below a path, and the folders themselves, with size and time."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if path.is_dir() and not path.is_symlink():
        yield path, 0, status.st_mtime
        for inner in _entries(path):
            yield from _walk(inner)
    else:
        yield path, status.st_size, status.st_mtime


def _folders(folder: Path) -> list[Path]:
    return [path for path in sorted(_entries(folder)) if path.is_dir() and not path.is_symlink()]


def _entries(folder: Path) -> Sequence[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries]
    except FileNotFoundError:
        return []
