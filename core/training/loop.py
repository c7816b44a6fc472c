"""Training of one model: epochs, validation, early stopping, checkpoints, the best weights."""

import copy
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.errors import TrainingError
from core.events.catalogue import (
    CheckpointRefused,
    CheckpointWritten,
    EpochFinished,
    TrainingResumed,
)
from core.events.heartbeat import beat
from core.events.stopping import Stopped, heed_stop, heeding_stops, stop_asked
from core.training.input_tuner import InputSummary
from core.training.memory import Shortage, attempt
from core.training.run import Run
from core.training.seeds import random_states, restore_random_states, step_seed
from settings.training import TrainingSettings

_LOG = logging.getLogger(__name__)
Indices = NDArray[np.int64]
Plan = Callable[[int], list[Indices]]
Validate = Callable[[], tuple[float, float | None]]


class Learner(Protocol):
    """What is trained, update by update."""

    @property
    def module(self) -> nn.Module:
        """Everything with trained weights."""

    def begin(self, epoch: int, steps: Sequence[Indices]) -> None:
        """Get ready for an epoch whose steps hold these graphs (or windows)."""

    def step(self, index: int, seed: int) -> Tensor:
        """Update the weights once, by one of the epoch's steps; the mean loss, not synchronised."""

    def take_input_summary(self) -> InputSummary:
        """How the steps since the last call were fed."""

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on, as tensors and primitives."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""


@dataclass
class _Progress:
    """Where a training stands: with the states of learner and generators, what a checkpoint holds.

    Attributes:
        best: Weights with the lowest validation loss so far.
        best_loss: That loss.
        num_worse: Epochs since.
        epoch: The epoch under way.
        losses: Of its steps that are done.
        worked_s: Time spent on it, seconds.
    """

    best: dict[str, Any]
    best_loss: float = math.inf
    num_worse: int = 0
    epoch: int = 0
    losses: list[float] = field(default_factory=list)
    worked_s: float = 0.0


def fit(
    run: Run, learner: Learner, plan: Plan, validate: Validate, training: TrainingSettings, num_epochs: int
) -> None:
    """Train until validation stops improving, then put the best weights back into ``learner.module``.

    Everything random is a function of (seed, epoch, step) or part of a checkpoint. One is written at the
    first step or epoch that ends when it is due, when training is asked to stop, and at the end: a training
    that was killed goes on from the latest sound one, at that very step, to the very same weights.

    Args:
        run: Names and checkpoints.
        learner: What is trained.
        plan: Batches of an epoch.
        validate: Loss and metric (None where there is none) on validation windows.
        training: Seed, patience and learning rate.
        num_epochs: Most epochs.

    Raises:
        TrainingError: A loss is not finite.
        Stopped: It was asked to stop, and has written a checkpoint.
    """

    def is_over() -> bool:
        return progress.epoch >= num_epochs or progress.num_worse >= training.patience

    progress = _resume(run, learner) or _Progress(best=_copy_weights(learner.module))
    with heeding_stops():
        while not is_over():
            progress = _run_epoch(run, learner, plan, validate, training, progress)
            if is_over() or run.checkpoints.due or stop_asked():
                _write_checkpoint(run, learner, progress)
                heed_stop()
    beat(f"trained {run.model}")
    learner.module.load_state_dict(progress.best)
    learner.module.eval()


def _run_epoch(
    run: Run,
    learner: Learner,
    plan: Plan,
    validate: Validate,
    training: TrainingSettings,
    progress: _Progress,
) -> _Progress:
    epoch, losses = progress.epoch, progress.losses
    began = time.perf_counter() - progress.worked_s
    batches = plan(epoch)
    learner.begin(epoch, batches)
    learner.module.train()
    pending: list[Tensor] = []  # on the device: only a checkpoint and the epoch's end wait for it
    for step in range(len(losses), len(batches)):
        pending.append(learner.step(step, step_seed(training.seed, epoch, step)))
        # The latest loss that is known without waiting for the device.
        known: dict[str, Any] = {"loss": losses[-1]} if losses else {}
        beat(f"training {run.model}", epoch=epoch, step=step + 1, num_steps=len(batches), **known)
        if run.checkpoints.due or stop_asked():
            losses += _finite(run, pending, progress)
            pending.clear()
            progress.worked_s = time.perf_counter() - began
            _write_checkpoint(run, learner, progress)
            heed_stop()
    losses += _finite(run, pending, progress)
    trained = time.perf_counter()
    learner.module.eval()
    beat(f"validating {run.model}", epoch=epoch)
    try:
        val_loss, val_metric = validate()
    except Stopped:
        progress.worked_s = time.perf_counter() - began
        _write_checkpoint(run, learner, progress)
        raise
    if not math.isfinite(val_loss):
        raise TrainingError(
            f"{run.dataset}: the validation loss of {run.model} is {val_loss} in epoch {epoch}; "
            "lower training.lr"
        )
    ended = time.perf_counter()
    run.emit(
        EpochFinished(
            dataset=run.dataset,
            phase=run.phase,
            model=run.model,
            epoch=epoch,
            train_loss=sum(losses) / len(losses),
            val_loss=val_loss,
            val_metric=val_metric,
            learning_rate=training.lr,
            num_steps=len(batches),
            duration_s=ended - began,
            validation_s=ended - trained,
            graphs_per_s=sum(map(len, batches)) / (trained - began),
            **asdict(learner.take_input_summary()),
        )
    )
    better = val_loss < progress.best_loss
    return _Progress(
        best=_copy_weights(learner.module) if better else progress.best,
        best_loss=min(val_loss, progress.best_loss),
        num_worse=0 if better else progress.num_worse + 1,
        epoch=epoch + 1,
    )


def _finite(run: Run, pending: list[Tensor], progress: _Progress) -> list[float]:
    """Wait for the losses of the latest steps."""
    losses: list[float] = torch.stack(pending).tolist() if pending else []
    for step, loss in enumerate(losses, start=len(progress.losses)):
        if not math.isfinite(loss):
            raise TrainingError(
                f"{run.dataset}: the loss of {run.model} is {loss} in epoch {progress.epoch}, step {step}; "
                "lower training.lr or set training.mixed_precision to false"
            )
    return losses


def _copy_weights(module: nn.Module) -> dict[str, Any]:
    # state_dict() refers to the live weights, which the next step changes.
    weights = module.state_dict()
    copied = attempt(lambda: copy.deepcopy(weights))
    if isinstance(copied, Shortage):
        return {name: values.to("cpu", copy=True) for name, values in weights.items()}
    return copied


def _write_checkpoint(run: Run, learner: Learner, progress: _Progress) -> None:
    num_steps = len(progress.losses)
    payload = {"progress": vars(progress), "learner": learner.state_dict(), "random": random_states()}
    written = attempt(lambda: run.checkpoints.write(progress.epoch, num_steps, payload))
    if isinstance(written, Shortage):  # the one before it stays; this one is tried again after the next step
        _LOG.warning("%s: no memory for a checkpoint (%s): %s", run.model, written.kind, written.message)
        return
    path, sha256 = written
    run.emit(
        CheckpointWritten(
            **run.names,
            # Before its first step an epoch is the end of the one before it.
            epoch=progress.epoch if num_steps else progress.epoch - 1,
            num_steps=num_steps or None,
            path=str(path),
            sha256=sha256,
        )
    )


def _resume(run: Run, learner: Learner) -> _Progress | None:
    def refuse(path: Path, reason: str) -> None:
        run.emit(CheckpointRefused(**run.names, path=str(path), reason=reason))

    found = run.checkpoints.read_latest(refuse)
    if found is None:
        return None
    path, payload = found
    learner.load_state_dict(payload["learner"])
    restore_random_states(payload["random"])
    progress = _Progress(**payload["progress"])
    run.emit(
        TrainingResumed(**run.names, epoch=progress.epoch, num_steps=len(progress.losses), path=str(path))
    )
    return progress
