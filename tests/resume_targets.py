"""Phases that end at an exact moment; called in the training process by tests."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from core.events.catalogue import Emit
from core.events.stopping import stop_asked
from core.training import passes, phases, workbench
from core.training.job import PhaseJob
from core.training.loop import Learner, Plan, Validate, fit
from core.training.run import Run
from core.training.seeds import step_seed
from settings.training import TrainingSettings


@dataclass(frozen=True)
class Moment:
    """When to end.

    Attributes:
        model: While which model is trained.
        doing: ``step``: its update is done and nothing else; ``vouching`` for a checkpoint: all of it is
            there but its sidecar; ``validation``.
        epoch: The epoch.
        num_steps: Steps of the epoch that are done, the last one included.
        by: ``killed`` on the spot, or ``interrupted``: the supervisor is, by Ctrl-C, and asks to stop.
    """

    model: str
    doing: Literal["step", "vouching", "validation"]
    epoch: int
    num_steps: int = 0
    by: Literal["killed", "interrupted"] = "killed"


def train(job: PhaseJob, moment: Moment | None, emit: Emit) -> None:
    """Run a phase up to a moment; to its end if there is none."""
    if moment:
        workbench.fit = passes.fit = _fit_until(moment)  # type: ignore[attr-defined]
    phases.PHASES[job.phase](job, emit)


def train_on_one_cpu(job: PhaseJob, emit: Emit) -> None:
    """Run a phase as on a smaller machine."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    phases.PHASES[job.phase](job, emit)


def _end(moment: Moment) -> None:
    if moment.by == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    os.kill(os.getppid(), signal.SIGINT)
    while not stop_asked():
        time.sleep(0.01)


def _fit_until(moment: Moment) -> Callable[..., None]:
    def fit_until(
        run: Run, learner: Learner, plan: Plan, validate: Validate, training: TrainingSettings, epochs: int
    ) -> None:
        if run.model != moment.model:
            fit(run, learner, plan, validate, training, epochs)
            return
        last = step_seed(training.seed, moment.epoch, moment.num_steps - 1) if moment.num_steps else None
        epochs_begun: list[int] = []
        update, rename = learner.step, Path.replace

        def step(index: int, seed: int) -> Any:
            loss = update(index, seed)
            if moment.doing == "step" and seed == last:
                _end(moment)
            return loss

        def plan_epoch(epoch: int) -> Any:
            epochs_begun.append(epoch)
            return plan(epoch)

        def validate_epoch() -> tuple[float, float | None]:
            if moment.doing == "validation" and epochs_begun[-1] == moment.epoch:
                _end(moment)
            return validate()

        sidecar = run.checkpoints.folder / f"epoch-{moment.epoch:06d}-step-{moment.num_steps:08d}.json"

        def replace(self: Path, target: Path) -> Path:
            if moment.doing == "vouching" and target == sidecar:
                _end(moment)
            return rename(self, target)

        learner.step = step  # type: ignore[method-assign]
        Path.replace = replace  # type: ignore[assignment, method-assign]
        fit(run, learner, plan_epoch, validate_epoch, training, epochs)

    return fit_until
