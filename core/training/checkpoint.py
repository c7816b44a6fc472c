"""Checkpoints of a model in training: vouched for by a sidecar, the latest sound one read back."""

import json
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from core.errors import UNREADABLE, ArtifactError
from core.events.files import replace_file
from core.events.heartbeat import beat
from core.training import artifacts

CHECKPOINT_VERSION = 3

_OURS = ("epoch-*.json", "epoch-*.pt", ".*.tmp")
"""Everything that is ever in the folder; sidecars first: a checkpoint without one does not count."""


class CheckpointFolder:
    """The checkpoints of one model of one phase.

    ``epoch-000007-step-00000042.pt`` (42 steps of epoch 7 are done) counts once its sidecar of the same name,
    ``.json`` (version, sha256, key), is there, which is written after it: a process killed between the two
    leaves nothing half done, and what it left goes with the next write.

    Args:
        folder: Where they are.
        key: What they belong to (the plan, digests of data and settings); others are not resumed from.
        keep: How many of the latest are kept.
        interval_s: Least time between two, seconds; 0 means as often as there is a chance.
        clock: Seconds that never go back.
        vouched_for: sha256 of those that may be read, as whoever can write files can write sidecars too; None
            takes their word, where there is no log.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        keep: int,
        interval_s: float,
        clock: Callable[[], float] = time.monotonic,
        vouched_for: Collection[str] | None = None,
    ) -> None:
        self.folder, self.key, self.keep, self.interval_s = folder, key, keep, interval_s
        self._clock, self._vouched_for = clock, vouched_for
        self._written_s = clock()

    @property
    def due(self) -> bool:
        """Whether the last write, or the beginning, is `interval_s` ago."""
        return self._clock() - self._written_s >= self.interval_s

    def write(self, epoch: int, num_steps: int, payload: dict[str, Any]) -> tuple[Path, str]:
        """Write a checkpoint, and remove all but the latest `keep`.

        Args:
            epoch: The epoch under way.
            num_steps: Its steps that are done.
            payload: What ``torch.load(weights_only=True)`` can read back.

        Returns:
            The file and its sha256.

        Raises:
            OSError: The folder cannot be written; the checkpoints before are untouched.
        """
        path = self.folder / f"epoch-{epoch:06d}-step-{num_steps:08d}.pt"
        beat()
        sha256 = artifacts.save(path, payload)
        sidecar = {"version": CHECKPOINT_VERSION, "sha256": sha256, "key": self.key}
        replace_file(path.with_suffix(".json"), json.dumps(sidecar).encode())
        self._keep_only([sidecar.stem for sidecar in self._sidecars()][-self.keep :])
        self._written_s = self._clock()  # not before: a slow disk must not fill the whole interval
        return path, sha256

    def read_latest(self, refuse: Callable[[Path, str], None]) -> tuple[Path, dict[str, Any]] | None:
        """The latest checkpoint of this key that is sound; later ones count no more.

        Args:
            refuse: Told of every damaged one on the way to it: file and reason.

        Returns:
            Its file and what it holds; None if there is none.
        """
        for sidecar in reversed(self._sidecars()):
            path = sidecar.with_suffix(".pt")
            try:
                if (payload := self._read(sidecar)) is not None:
                    return path, payload
            except ArtifactError as error:
                refuse(path, str(error))
            sidecar.unlink()  # it must not pass for one of the latest among those written from now on
        return None

    def _read(self, sidecar: Path) -> dict[str, Any] | None:
        remedy = "training goes on from the checkpoint before it"
        try:
            entry = json.loads(sidecar.read_text(encoding="utf-8"))
            version, sha256, key = entry["version"], entry["sha256"], entry["key"]
        except UNREADABLE as error:
            raise ArtifactError(f"{sidecar}: no readable sidecar ({error!r}); {remedy}") from error
        if version != CHECKPOINT_VERSION:
            raise ArtifactError(
                f"{sidecar}: checkpoint version {version}, this software reads {CHECKPOINT_VERSION}; {remedy}"
            )
        if key != self.key or (self._vouched_for is not None and sha256 not in self._vouched_for):
            return None
        return artifacts.load(sidecar.with_suffix(".pt"), sha256, remedy)

    def _sidecars(self) -> list[Path]:
        return sorted(self.folder.glob("epoch-*.json"))

    def _keep_only(self, stems: Collection[str]) -> None:
        for pattern in _OURS:
            for path in self.folder.glob(pattern):
                if path.stem not in stems:
                    path.unlink()
