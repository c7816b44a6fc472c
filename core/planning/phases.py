"""The phases of a dataset's chain, their order, and the digest of the settings each depends on."""

import hashlib
import json
from typing import Any

from core.can.features import FEATURE_VERSION
from settings.app import Settings

GRAPHS, TEACHER, STUDENT, FUSION, EVALUATION = "graphs", "teacher", "student", "fusion", "evaluation"
PHASES = (GRAPHS, TEACHER, STUDENT, FUSION, EVALUATION)
MODEL_PHASES = (TEACHER, STUDENT, FUSION)
PARENT = {STUDENT: TEACHER, FUSION: STUDENT, EVALUATION: FUSION}

RECIPE_VERSION = {TEACHER: 1, STUDENT: 1, FUSION: 1, EVALUATION: 1}
"""Raised with every change of code after which a phase would learn something else from the same input;
``core.can.features.FEATURE_VERSION`` is that of the graphs."""

_TRAINING_FIELDS = {
    "mixed_precision",
    "epochs",
    "patience",
    "batch_size",
    "min_steps_per_epoch",
    "lr",
    "weight_decay",
    "dropout",
    "seed",
}


def settings_digest(settings: Settings, dataset: str, phase: str) -> str:
    """Digest of every setting that changes what a phase produces, and of no other.

    Where outputs go, threads, retries, micro-batches and sampling change no result and are left out.

    Args:
        settings: All settings.
        dataset: The dataset's name.
        phase: One of ``PHASES``.

    Returns:
        16 hexadecimal digits.
    """
    own = settings.data.datasets.get(dataset)
    relevant: dict[str, Any] = {
        "recipe": [FEATURE_VERSION, *(RECIPE_VERSION[p] for p in PHASES[1 : PHASES.index(phase) + 1])],
        "graph": settings.graph.model_dump(mode="json"),
        "max_quarantined_fraction": settings.data.max_quarantined_fraction,
        "labels": [own.attack_frames, own.holdout_fraction] if own else [],
    }
    if phase != GRAPHS:
        relevant["training"] = settings.training.model_dump(
            mode="json", include=_TRAINING_FIELDS | {"curriculum"}
        )
        relevant["teacher"] = settings.models.teacher.model_dump(mode="json", exclude={"fusion"})
    if phase in (STUDENT, FUSION, EVALUATION):
        relevant["student"] = settings.models.student.model_dump(mode="json", exclude={"fusion"})
        relevant["distillation"] = settings.training.distillation.model_dump(mode="json")
    if phase in (FUSION, EVALUATION):
        relevant["fusion"] = settings.models.student.fusion.model_dump(mode="json")
        relevant["dqn"] = settings.training.dqn.model_dump(mode="json")
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:16]
