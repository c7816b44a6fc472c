"""Chains left alone and attempts cut off at exact moments, for the tests of exact resume."""

from pathlib import Path
from typing import Any

import pytest

from core.errors import TrainingProcessError
from core.events.catalogue import ModelSaved
from core.resources.process import TrainingProcess
from core.training.job import PhaseJob
from settings.app import Settings
from tests.resume_targets import Moment
from tests.synthetic import make_store, write_store
from tests.training_helpers import Recorder, make_job, quick_settings

MODELS = {
    "teacher": ("teacher_vgae", "teacher_gat"),
    "student": ("student_vgae", "student_gat"),
    "fusion": ("fusion", "mlp_fusion"),
}
NUM_STEPS = 4
TIMEOUT_S = 600.0


def tiny_settings(**training: Any) -> Settings:
    """Three epochs of `NUM_STEPS` steps for every model."""
    given = {
        "min_steps_per_epoch": NUM_STEPS,
        "num_threads": 1,
        "dqn": {"episodes": 3, "replay_capacity": 50},
    }
    return quick_settings(**{**given, **training})


def run_phase(process: TrainingProcess, job: PhaseJob, moment: Moment | None = None) -> Recorder:
    """One attempt of a phase, which the moment ends."""
    recorder = Recorder()

    def call() -> None:
        process.run("tests.resume_targets:train", job, moment, on_fact=recorder, timeout_s=TIMEOUT_S)

    if moment is None:
        call()
    else:
        with pytest.raises(TrainingProcessError) as caught:
            call()
        assert caught.value.kind == "killed", (moment, str(caught.value))
    return recorder


def sha256(*recorders: Recorder) -> str:
    """Of the one file that was saved."""
    (saved,) = [fact for recorder in recorders for fact in recorder.of(ModelSaved)]
    return saved.sha256


class Alone:
    """The chain that nobody interrupts: its folder, and what each phase said.

    Args:
        folder: Where it is run.
        training: Settings unlike those of `tiny_settings`.
    """

    def __init__(self, folder: Path, **training: Any) -> None:
        self.folder, self.training = folder, training
        self.store = write_store(folder / "store", make_store(40))
        self.said: dict[str, Recorder] = {}
        with TrainingProcess("alone", folder / "logs") as process:
            for phase in MODELS:
                self.said[phase] = run_phase(process, self.job(phase, folder / "checkpoints"))

    def job(self, phase: str, checkpoints_dir: Path, **training: Any) -> PhaseJob:
        """The same phase, with the same parent, elsewhere."""
        phases = list(MODELS)
        parent = sha256(self.said[phases[phases.index(phase) - 1]]) if phase != phases[0] else ""
        settings = tiny_settings(**{**self.training, **training})
        return make_job(
            self.folder, self.store, phase, settings, parent_sha256=parent, checkpoints_dir=checkpoints_dir
        )
