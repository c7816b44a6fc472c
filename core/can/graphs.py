"""From the captures of a dataset to its graph store on disk, built once and found again by digest."""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import numpy as np

from core.can.features import FEATURE_VERSION, iter_graphs, whole_windows
from core.can.graph_store import (
    MANIFEST,
    STORE_VERSION,
    CaptureEntry,
    GraphStore,
    Manifest,
    map_arrays,
    open_graph_store,
    read_array,
    read_manifest,
)
from core.can.labels import AttackRule
from core.can.readers import CaptureReader, open_capture
from core.can.registry import Capture, known_datasets
from core.can.scaling import Scaler
from core.can.splits import TEST, assign_splits, count_splits, split_digest
from core.can.store_writer import StoreWriter, write_array, write_manifest
from core.errors import CaptureError, GraphStoreError
from core.events.catalogue import CaptureRefused, Emit, GraphsBuilt, RowsQuarantined
from core.events.files import fsync_folder
from core.events.heartbeat import beat
from settings.app import Settings
from settings.data import DatasetSettings, DataSettings
from settings.graph import GraphSettings

_log = logging.getLogger(__name__)
_LOCK_POLL_S = 0.1
_ASIDE = ".tmp"
"""Ending of the folder in which a store is built, or taken apart."""


def build_graph_store(
    dataset: str, captures: list[Capture], data_digest: str, settings: Settings, cache_dir: Path, emit: Emit
) -> Path:
    """Build the graph store of a dataset, or find the one that was built from the same data and settings.

    A capture that cannot be used (unreadable, too many bad rows, shorter than one window, training traffic
    with attacks but without labels) is left out and told by a ``CaptureRefused``; the others are used.
    The store is built in a folder of its own and renamed when complete; a second builder of the same store
    waits for the first and then finds it. A store found damaged is built again.

    Args:
        dataset: The dataset's name.
        captures: Its captures; their order does not matter.
        data_digest: Digest of the captures' bytes.
        settings: ``data`` and ``graph`` are used.
        cache_dir: Folder of all stores.
        emit: Told of quarantined rows, refused captures and the finished store.

    Returns:
        Folder of the store, ``{cache_dir}/{digest}``.

    Raises:
        CaptureError: No training capture can be used, or no benign window is left to train on.
        GraphStoreError: The store cannot be written.
    """
    started = time.monotonic()
    own = known_datasets(settings.data)[dataset]
    digest = graphs_digest(dataset, data_digest, own, settings)
    folder = cache_dir / digest
    try:
        with _only_builder(cache_dir, digest):
            cached = _is_complete(folder)
            if not cached:
                with _renamed_when_complete(folder) as temporary:
                    build = _Build(dataset, digest, data_digest, own, settings, temporary, emit)
                    build.run(sorted(captures, key=lambda c: (c.role == "test", c.path.as_posix())))
            else:
                os.utime(folder / MANIFEST)  # see delete_unused_store
    except OSError as error:
        raise GraphStoreError(f"cannot write the graph store {folder}: {error}") from error
    manifest = read_manifest(folder)
    emit(
        GraphsBuilt(
            dataset=dataset,
            path=str(folder),
            graphs_digest=digest,
            split_digest=manifest.split_digest,
            num_frames=manifest.num_frames,
            num_graphs=manifest.num_graphs,
            num_nodes=manifest.num_nodes,
            num_edges=manifest.num_edges,
            num_attack_graphs=manifest.num_attack_graphs,
            splits=manifest.splits,
            duration_s=time.monotonic() - started,
            cached=cached,
        )
    )
    return folder


def window_capture(path: Path, folder: Path, graph: GraphSettings, data: DataSettings) -> GraphStore:
    """Turn one capture into graphs for scoring; labels are taken where the capture has them.

    Args:
        path: The capture.
        folder: An empty folder for the arrays, which are mapped from there.
        graph: Windows, as the models were trained with.
        data: How many bad rows are borne.

    Returns:
        The graphs of all full windows.

    Raises:
        CaptureError: The capture cannot be read or holds not one full window.
    """
    reader = open_capture(
        path,
        attack_rule=None,
        max_quarantined_fraction=data.max_quarantined_fraction,
        max_expansion=data.max_expansion,
    )
    with StoreWriter(folder) as writer:
        for frames in whole_windows(reader, graph.window, graph.stride_frames):
            for block in iter_graphs(frames, graph.window, graph.stride_frames):
                writer.append(block, 0)
    if not writer.num_graphs:
        raise CaptureError(f"{path}: {reader.num_frames} frames are less than a window of {graph.window}")
    write_array(folder, "split", np.full(writer.num_graphs, TEST, np.int8))
    return map_arrays(folder)


def graphs_digest(dataset: str, data_digest: str, own: DatasetSettings, settings: Settings) -> str:
    """sha256 of everything that decides what is in a store."""
    parts: dict[str, Any] = {
        "dataset": dataset,
        "data": data_digest,
        "graph": settings.graph.model_dump(mode="json"),
        "attack_frames": own.attack_frames,
        "holdout_fraction": own.holdout_fraction,
        "max_quarantined_fraction": settings.data.max_quarantined_fraction,
        "versions": [STORE_VERSION, FEATURE_VERSION],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextmanager
def _only_builder(cache_dir: Path, digest: str) -> Iterator[None]:
    """Hold a store's lock; the system lets go of it when the process ends, however it ends."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    with (cache_dir / f"{digest}.lock").open("w") as lock:
        while not _try_lock(lock):
            beat("waiting for another process to build the same graphs")  # it has a supervisor of its own
            time.sleep(_LOCK_POLL_S)
        yield


def delete_unused_store(folder: Path, unused_since: datetime) -> bool:
    """Delete a store that nobody has built or found since some time; what is open stays readable.

    Args:
        folder: The store, or what a builder that was killed left of one.
        unused_since: A time, with its zone.

    Returns:
        Whether it is gone; False if it is being built, or was found again meanwhile.

    Raises:
        OSError: It cannot be deleted; it is whole, or no store any more.
    """
    digest = folder.name.removesuffix(_ASIDE)
    with (folder.parent / f"{digest}.lock").open("w") as lock:
        if not _try_lock(lock):
            return False
        aside, manifest = folder.with_name(f"{digest}{_ASIDE}"), folder / MANIFEST
        if folder != aside and folder.exists():
            if manifest.exists() and manifest.stat().st_mtime > unused_since.timestamp():
                return False
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)  # at once: a store is whole or not there
        shutil.rmtree(aside)
        return True


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _renamed_when_complete(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of ``folder`` at the end, or goes after an error."""
    temporary = folder.with_name(f"{folder.name}{_ASIDE}")
    shutil.rmtree(temporary, ignore_errors=True)  # of a builder that was killed
    temporary.mkdir()
    try:
        yield temporary
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
        fsync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_complete(folder: Path) -> bool:
    if not folder.exists():
        return False
    try:
        open_graph_store(folder)
    except GraphStoreError as error:
        _log.warning("building a graph store again: %s", error)
        return False
    return True


@dataclass(frozen=True)
class _Build:
    """One build of a store into an empty folder."""

    dataset: str
    digest: str
    data_digest: str
    own: DatasetSettings
    settings: Settings
    folder: Path
    emit: Emit

    def run(self, captures: list[Capture]) -> None:
        """Write the whole store."""
        rule = AttackRule.of(self.own.attack_frames)
        used: list[tuple[Capture, CaptureReader, int, bool]] = []
        refused: list[str] = []
        with StoreWriter(self.folder) as writer:
            for capture in captures:
                before = writer.num_graphs, writer.num_nodes, writer.num_edges
                try:
                    reader, labelled = self._add(capture, rule, len(used), writer)
                except CaptureError as error:
                    writer.truncate(*before)
                    refused.append(str(error))
                    self.emit(
                        CaptureRefused(dataset=self.dataset, path=str(capture.path), reason=refused[-1])
                    )
                else:
                    used.append((capture, reader, writer.num_graphs - before[0], labelled))
        if all(capture.role == "test" for capture, *_ in used):
            raise CaptureError(
                f"dataset {self.dataset}: no training capture can be used ({len(refused)} captures refused): "
                f"{'; '.join(refused[:3])}"
            )
        y, capture_of = read_array(self.folder, "y"), read_array(self.folder, "capture")
        split = assign_splits(
            capture_of,
            y,
            [capture.role == "test" for capture, *_ in used],
            [self.own.holdout_fraction] * len(used),
            self.settings.graph,
        )
        write_array(self.folder, "split", split)
        scaler = Scaler.fit(map_arrays(self.folder), self.settings.graph.clip)
        names = _test_folders([capture for capture, *_ in used])
        write_manifest(
            self.folder,
            Manifest(
                store_version=STORE_VERSION,
                feature_version=FEATURE_VERSION,
                dataset=self.dataset,
                digest=self.digest,
                data_digest=self.data_digest,
                split_digest=split_digest(split, capture_of),
                graph=self.settings.graph,
                captures=[
                    CaptureEntry(
                        path=str(capture.path),
                        role=capture.role,
                        folder=capture.folder,
                        test_folder=name,
                        num_frames=reader.num_frames,
                        num_graphs=num_graphs,
                        labelled=labelled,
                    )
                    for (capture, reader, num_graphs, labelled), name in zip(used, names, strict=True)
                ],
                num_frames=sum(reader.num_frames for _, reader, *_ in used),
                num_graphs=len(y),
                num_nodes=writer.num_nodes,
                num_edges=writer.num_edges,
                num_attack_graphs=int(y.sum(dtype=np.int64)),
                splits=count_splits(split),
                scaler=scaler.to_dict(),
            ),
        )

    def _add(
        self, capture: Capture, rule: AttackRule | None, index: int, writer: StoreWriter
    ) -> tuple[CaptureReader, bool]:
        """Append a capture's graphs; tells whether its frames are labelled (attack-free ones are: benign)."""
        graph = self.settings.graph
        reader = open_capture(
            capture.path,
            attack_rule=rule,
            max_quarantined_fraction=self.settings.data.max_quarantined_fraction,
            max_expansion=self.settings.data.max_expansion,
        )
        labelled = capture.role == "attack_free"
        before = writer.num_graphs
        try:
            for frames in whole_windows(reader, graph.window, graph.stride_frames):
                labelled = labelled or bool((frames.attack >= 0).any())
                for block in iter_graphs(frames, graph.window, graph.stride_frames):
                    writer.append(block, index)
                    beat(num_graphs=len(block.y))
        finally:
            self._tell_quarantined(reader)
        _check_usable(capture, reader.num_frames, writer.num_graphs - before, labelled, graph)
        return reader, labelled

    def _tell_quarantined(self, reader: CaptureReader) -> None:
        quarantine = reader.quarantine
        if quarantine.num_rows:
            self.emit(
                RowsQuarantined(
                    dataset=self.dataset,
                    path=str(reader.path),
                    num_rows=quarantine.num_rows,
                    num_frames=reader.num_frames,
                    reasons=dict(quarantine.reasons),
                    examples=list(quarantine.examples),
                )
            )


def _check_usable(
    capture: Capture, num_frames: int, num_graphs: int, labelled: bool, graph: GraphSettings
) -> None:
    if not num_graphs:
        raise CaptureError(
            f"{capture.path}: {num_frames} frames do not fill one window (graph.window={graph.window})"
        )
    if capture.role == "with_attacks" and not labelled:
        raise CaptureError(
            f"{capture.path}: a training capture with attacks needs labels; set the dataset's attack_frames, "
            f"or list the file under attack_free if it holds no attacks"
        )


def _test_folders(captures: list[Capture]) -> list[str]:
    """Test folder of each capture: a training capture's held-out end is a folder named by the file's stem.

    Where that name is taken, the training folder's name goes before it.
    """
    stems = [Path(c.path.name.removesuffix(".gz")).stem for c in captures]
    taken = Counter(stem for c, stem in zip(captures, stems, strict=True) if c.role != "test")
    taken.update({c.folder for c in captures if c.role == "test"})
    return [
        c.folder if c.role == "test" else f"{c.folder}/{stem}" if taken[stem] > 1 else stem
        for c, stem in zip(captures, stems, strict=True)
    ]
