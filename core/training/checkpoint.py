"""Checkpoints of a model in training: one file per epoch and a sidecar that vouches for it."""

import json
from pathlib import Path
from typing import Any

from core.errors import ArtifactError
from core.training import artifacts

CHECKPOINT_VERSION = 1


class CheckpointFolder:
    """The checkpoints of one model of one phase.

    ``epoch-000007.pt`` counts once its sidecar ``epoch-000007.json`` (version, sha256, key) is there, which
    is written after it: a process killed between the two leaves nothing half done.

    Args:
        folder: Where they are.
        key: What they belong to (digests of data and settings); others are not resumed from.
        keep: How many of the latest are kept.
    """

    def __init__(self, folder: Path, key: str, keep: int) -> None:
        self.folder, self.key, self.keep = folder, key, keep

    def clear(self) -> None:
        """Remove all checkpoints: a new training starts."""
        for sidecar in self._sidecars():
            self._remove(sidecar)

    def write(self, epoch: int, payload: dict[str, Any]) -> tuple[Path, str]:
        """Write an epoch's checkpoint and remove those beyond the latest `keep`.

        Returns:
            The file and its sha256.
        """
        path = self.folder / f"epoch-{epoch:06d}.pt"
        path.with_suffix(".json").unlink(missing_ok=True)  # of another key: it must not vouch for this file
        sha256 = artifacts.save(path, payload)
        sidecar = {"version": CHECKPOINT_VERSION, "sha256": sha256, "key": self.key}
        artifacts.write_file(path.with_suffix(".json"), json.dumps(sidecar).encode())
        for old in self._sidecars()[: -self.keep]:
            self._remove(old)
        return path, sha256

    def read_latest(self) -> dict[str, Any] | None:
        """The latest checkpoint of this key, or None.

        Raises:
            ArtifactError: It is damaged or of another version.
        """
        for sidecar in reversed(self._sidecars()):
            try:
                entry = json.loads(sidecar.read_text(encoding="utf-8"))
                version, sha256, key = entry["version"], entry["sha256"], entry["key"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ArtifactError(f"{sidecar}: damaged ({error}); delete it to go on without") from error
            if version != CHECKPOINT_VERSION:
                raise ArtifactError(
                    f"{sidecar}: checkpoint version {version}, this software reads {CHECKPOINT_VERSION}; "
                    "delete it"
                )
            if key == self.key:
                return artifacts.load(sidecar.with_suffix(".pt"), sha256)
        return None

    def _sidecars(self) -> list[Path]:
        return sorted(self.folder.glob("epoch-*.json"))

    @staticmethod
    def _remove(sidecar: Path) -> None:
        # The sidecar goes first: a checkpoint without one does not count.
        sidecar.unlink()
        sidecar.with_suffix(".pt").unlink(missing_ok=True)
