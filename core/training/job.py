"""What a phase is told when it runs in the training process; free of torch so that planning can make one."""

from dataclasses import dataclass, field
from pathlib import Path

from core.training.packs import KnownLimits
from settings.app import Settings

_TARGETS = {
    "teacher": "train_teacher",
    "student": "distill_student",
    "fusion": "train_fusion",
    "evaluation": "evaluate",
}


@dataclass(frozen=True)
class PhaseJob:
    """One attempt of one phase.

    Attributes:
        plan_id: The plan; only its own checkpoints are gone on from.
        dataset: The dataset's name.
        phase: ``teacher``, ``student``, ``fusion`` or ``evaluation``.
        store: Folder of the graph store.
        settings: All settings.
        models_dir: Where best models are saved and parents are found.
        checkpoints_dir: Where checkpoints are kept.
        data_digest: Digest of the captures, recorded with what is trained.
        settings_digest: Digest of the settings that matter to the phase, recorded likewise.
        parent_sha256: sha256 of the parent phase's saved model; empty where there is no parent.
        micro_batch_size: Graphs per forward/backward; results do not depend on it.
        device_name: Name of the GPU, or of the CPU, that it runs on.
        known_limits: What the log says of how much packs may hold.
        known_checkpoints: sha256 of the checkpoints that the log tells of; no other one is gone on from. None
            where there is no log.
    """

    plan_id: str
    dataset: str
    phase: str
    store: Path
    settings: Settings
    models_dir: Path
    checkpoints_dir: Path
    data_digest: str
    settings_digest: str
    parent_sha256: str
    micro_batch_size: int
    device_name: str = ""
    known_limits: KnownLimits = field(default_factory=KnownLimits)
    known_checkpoints: frozenset[str] | None = None

    @property
    def target(self) -> str:
        """Name of the function in ``core.training.phases`` that runs it."""
        return _TARGETS[self.phase]
