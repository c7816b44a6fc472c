"""Digests of captures: what a dataset's data are, and which captures serve training and test."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from core.can.registry import Capture
from core.errors import CaptureError
from core.events.catalogue import SharedCapturesFound

Row = dict[str, Any]


def digest_captures(
    captures: Iterable[Capture], known: Mapping[tuple[str, int, int], str]
) -> tuple[str, list[Row]]:
    """Hash the bytes of captures.

    Args:
        captures: What to hash.
        known: sha256 by (path, bytes, mtime in ns); a file that is unchanged by these is not read again.

    Returns:
        The data digest (over role, folder, file name and content of every capture, wherever the files lie
        and in whichever order they come) and a row per capture as in ``CapturesDigested.captures``.

    Raises:
        CaptureError: A capture cannot be read.
    """
    rows = [_digest(capture, known) for capture in captures]
    parts = sorted(
        [row["role"], row["folder"], row["path"].rsplit("/", 1)[-1], row["sha256"]] for row in rows
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest(), rows


def _digest(capture: Capture, known: Mapping[tuple[str, int, int], str]) -> Row:
    path = capture.path.as_posix()
    try:
        status = capture.path.stat()
        sha256 = known.get((path, status.st_size, status.st_mtime_ns))
        if sha256 is None:
            with capture.path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CaptureError(f"cannot read the capture {path}: {error}") from error
    return {
        "path": path,
        "role": capture.role,
        "folder": capture.folder,
        "num_bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "sha256": sha256,
    }


def find_shared_captures(digested: Mapping[str, Iterable[Row]]) -> list[SharedCapturesFound]:
    """Find captures whose bytes serve training in one place and test in another.

    Args:
        digested: Rows of ``digest_captures`` by dataset.

    Returns:
        One fact per dataset concerned, by name; empty where training and test are apart.
    """
    by_content: dict[str, list[tuple[str, Row]]] = defaultdict(list)
    for dataset, rows in digested.items():
        for row in rows:
            by_content[row["sha256"]].append((dataset, row))
    shared: dict[str, list[Row]] = defaultdict(list)
    for sha256, places in by_content.items():
        for dataset, row in places:
            shared[dataset] += [
                {"path": row["path"], "other_dataset": name, "other_path": other["path"], "sha256": sha256}
                for name, other in places
                if (other["role"] == "test") != (row["role"] == "test")
            ]
    return [
        SharedCapturesFound(dataset=name, captures=sorted(rows, key=lambda r: (r["path"], r["other_path"])))
        for name, rows in sorted(shared.items())
        if rows
    ]
