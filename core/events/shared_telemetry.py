"""Resource samples in the storage that machines share.

::

    {url}/telemetry/plan={plan_id},dataset={dataset}/{time}-{writer}-{first}-{last}.parquet

A writer keeps its files in a folder that nobody reads until its chain has ended, and has those that count in
the storage. A reader has all that count in the storage in its own folder, which is a cache.
"""

import re
from functools import partial
from pathlib import Path

from core.errors import DamagedLogError
from core.events.files import make_folder, put_if_absent
from core.events.open import attempt, is_shared, open_store, read_blob
from core.events.seal import is_intact
from core.events.stores import SegmentStore
from core.events.telemetry import TelemetryWriter, partition
from core.events.telemetry_files import FULL_BYTES, counting_files, divide_files
from settings.layout import Layout

_STREAM = re.compile(r"(plan=[A-Za-z0-9_.~%-]+),(dataset=[A-Za-z0-9_.~%-]+)")
_MAX_BYTES = 32 * FULL_BYTES
"""More than any file takes, however much was sampled before it was merged."""
_FILE = re.compile(r"[A-Za-z0-9_-]+\.parquet")


def open_telemetry(layout: Layout, plan_id: str, dataset: str) -> TelemetryWriter:
    """A writer of resource samples, kept wherever the output directory keeps its truth.

    Raises:
        StorageError: The shared storage cannot be reached.
    """
    if not is_shared(layout):
        return TelemetryWriter(layout.telemetry, plan_id, dataset)
    store = open_store(layout, "telemetry")
    return TelemetryWriter(layout.unshared_telemetry, plan_id, dataset, partial(share_telemetry, store))


def share_telemetry(store: SegmentStore, folder: Path, is_over: bool) -> None:
    """Have what counts of a writer's folder in the storage, and nothing there that it stands for.

    Args:
        store: The storage.
        folder: The writer's folder.
        is_over: Whether nothing more will be written: then the folder is emptied.

    Raises:
        StorageError: The storage cannot be read or written; the next call makes up for it.
        OSError: The folder cannot be read or written.
    """
    stream = f"{folder.parent.name},{folder.name}"
    there = set(attempt(store, lambda: store.names(stream)))
    files = counting_files(folder)
    for path in files:
        if path.name not in there:
            content = path.read_bytes()
            attempt(store, partial(store.put_if_absent, stream, path.name, content))
    for path in divide_files(map(Path, there | {path.name for path in files}))[1]:
        attempt(store, partial(store.delete, stream, path.name))
    if is_over:
        for path in folder.glob("*.parquet"):
            path.unlink(missing_ok=True)


def fetched_telemetry(layout: Layout, plan_id: str | None) -> Path:
    """The folder of all telemetry, with what other machines have sampled.

    Args:
        layout: The output directory.
        plan_id: Whose is asked for; None for all.

    Raises:
        StorageError: The shared storage cannot be read.
        DamagedLogError: A file in it is empty, torn or changed; it is named.
    """
    if is_shared(layout):
        fetch_telemetry(open_store(layout, "telemetry"), layout.telemetry, plan_id)
    return layout.telemetry


def fetch_telemetry(store: SegmentStore, root: Path, plan_id: str | None) -> None:
    """Have the telemetry that counts in the storage in a folder, and no other; errors as above.

    Args:
        store: The storage.
        root: Folder of all telemetry.
        plan_id: Whose; None for all.
    """
    plan = f"{partition('plan', plan_id)}," if plan_id is not None else ""
    for stream in attempt(store, store.streams):
        if (match := _STREAM.fullmatch(stream)) and stream.startswith(plan):
            folder = root / match[1] / match[2]
            while not _fetch(store, stream, folder):
                pass


def _fetch(store: SegmentStore, stream: str, folder: Path) -> bool:
    """Whether nothing was merged away meanwhile."""
    counting = _counting(store, stream)
    make_folder(folder)
    there = {path.name for path in folder.glob("*.parquet")}
    for name in counting - there:
        content = read_blob(store, stream, name, _MAX_BYTES)
        if content is None:
            return False
        if not is_intact(content):
            raise DamagedLogError(
                f"telemetry file {store.location}/{stream}/{name} is not as it was written; restore or "
                "remove it"
            )
        put_if_absent(folder / name, content)
    for name in there - counting:
        (folder / name).unlink(missing_ok=True)
    return True


def _counting(store: SegmentStore, stream: str) -> set[str]:
    """A listing is no snapshot: two in a row that are alike missed no merged file."""
    before: set[str] | None = None
    while (names := set(attempt(store, lambda: store.names(stream)))) != before:
        before = names
    return {path.name for path in divide_files(Path(name) for name in names if _FILE.fullmatch(name))[0]}
