"""Whose training it is."""

from dataclasses import dataclass

from core.events.catalogue import Emit
from core.training.checkpoint import CheckpointFolder
from core.training.packs import KnownLimit


@dataclass(frozen=True)
class Run:
    """The names that a training's events carry, where its checkpoints go, and what is known of its packs."""

    dataset: str
    phase: str
    model: str
    checkpoints: CheckpointFolder
    emit: Emit
    known: KnownLimit | None = None

    @property
    def names(self) -> dict[str, str]:
        """What every event of it begins with."""
        return {"dataset": self.dataset, "phase": self.phase, "model": self.model}
