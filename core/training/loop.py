"""Training of one model: epochs, validation, early stopping, checkpoints, the best weights."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.errors import TrainingError
from core.events.catalogue import CheckpointWritten, Emit, EpochFinished
from core.training.checkpoint import CheckpointFolder
from core.training.graph_data import GraphData
from core.training.precision import Precision
from core.training.seeds import step_seed
from core.training.step import Objective, Stepper
from settings.training import TrainingSettings

Plan = Callable[[int], list[NDArray[np.int64]]]
Validate = Callable[[], tuple[float, float | None]]


@dataclass(frozen=True)
class Run:
    """Whose training this is: the names that its events carry, and where its checkpoints go."""

    dataset: str
    phase: str
    model: str
    checkpoints: CheckpointFolder
    emit: Emit


def fit(
    run: Run,
    objective: Objective,
    data: GraphData,
    plan: Plan,
    validate: Validate,
    training: TrainingSettings,
    precision: Precision,
    micro_batch_size: int,
) -> None:
    """Train until validation stops improving, then put the best weights back into ``objective.module``.

    Everything random is a function of (seed, epoch, step), and a checkpoint is written after each epoch:
    a training that was killed goes on from it to the very same weights.

    Args:
        run: Names and checkpoints.
        objective: What is trained.
        data: The graphs.
        plan: Batches of an epoch.
        validate: Loss and metric (None where there is none) on validation graphs.
        training: Optimisation settings.
        precision: Device and number format.
        micro_batch_size: Most graphs per forward/backward.

    Raises:
        TrainingError: A loss is not finite.
        ArtifactError: The checkpoint to go on from is damaged.
    """
    module = objective.module.to(precision.device)
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=training.lr, weight_decay=training.weight_decay, fused=True
    )
    stepper = Stepper(objective, data, optimizer, precision, micro_batch_size)
    state = _Progress(next_epoch=0, best_loss=float("inf"), num_worse=0, best=_copy_weights(module))
    if (found := run.checkpoints.read_latest()) is not None:
        state = _restore(found, module, stepper)
    while state.next_epoch < training.epochs and state.num_worse < training.patience:
        state = _run_epoch(run, stepper, plan, validate, training, state)
        path, sha256 = run.checkpoints.write(state.next_epoch - 1, _snapshot(state, module, stepper))
        run.emit(
            CheckpointWritten(
                dataset=run.dataset,
                phase=run.phase,
                model=run.model,
                epoch=state.next_epoch - 1,
                num_steps=None,
                path=str(path),
                sha256=sha256,
            )
        )
    module.load_state_dict(state.best)
    module.eval()


@dataclass(frozen=True)
class _Progress:
    next_epoch: int
    best_loss: float
    num_worse: int
    best: dict[str, Any]


def _run_epoch(
    run: Run,
    stepper: Stepper,
    plan: Plan,
    validate: Validate,
    training: TrainingSettings,
    state: _Progress,
) -> _Progress:
    epoch, module = state.next_epoch, stepper.objective.module
    began = time.perf_counter()
    batches = plan(epoch)
    module.train()
    losses = [
        stepper.step(graphs, step_seed(training.seed, epoch, step)) for step, graphs in enumerate(batches)
    ]
    train_losses = torch.stack(losses).cpu()  # the epoch's only synchronisation
    trained = time.perf_counter()
    if not torch.isfinite(train_losses).all():
        step = int((~torch.isfinite(train_losses)).nonzero()[0])
        raise TrainingError(
            f"{run.dataset}: the loss of {run.model} is {train_losses[step].item()} in epoch {epoch}, step "
            f"{step}; lower training.lr or set training.mixed_precision to false"
        )
    module.eval()
    val_loss, val_metric = validate()
    if not np.isfinite(val_loss):
        raise TrainingError(
            f"{run.dataset}: the validation loss of {run.model} is {val_loss} in epoch {epoch}; "
            "lower training.lr"
        )
    num_graphs = sum(map(len, batches))
    run.emit(
        EpochFinished(
            dataset=run.dataset,
            phase=run.phase,
            model=run.model,
            epoch=epoch,
            train_loss=float(train_losses.mean()),
            val_loss=val_loss,
            val_metric=val_metric,
            learning_rate=training.lr,
            num_steps=len(batches),
            duration_s=time.perf_counter() - began,
            graphs_per_s=num_graphs / (trained - began),
            data_wait_s=stepper.take_data_wait_s(),
        )
    )
    better = val_loss < state.best_loss
    return _Progress(
        next_epoch=epoch + 1,
        best_loss=min(val_loss, state.best_loss),
        num_worse=0 if better else state.num_worse + 1,
        best=_copy_weights(module) if better else state.best,
    )


def _copy_weights(module: torch.nn.Module) -> dict[str, Any]:
    # state_dict() refers to the live weights, which the next step changes.
    return copy.deepcopy(module.state_dict())


def _snapshot(state: _Progress, module: torch.nn.Module, stepper: Stepper) -> dict[str, Any]:
    return {
        "next_epoch": state.next_epoch,
        "best_loss": state.best_loss,
        "num_worse": state.num_worse,
        "best": state.best,
        "module": module.state_dict(),
        "optimizer": stepper.optimizer.state_dict(),
        "loss_scaler": stepper.loss_scaler.state_dict(),
    }


def _restore(found: dict[str, Any], module: torch.nn.Module, stepper: Stepper) -> _Progress:
    module.load_state_dict(found["module"])
    stepper.optimizer.load_state_dict(found["optimizer"])
    stepper.loss_scaler.load_state_dict(found["loss_scaler"])
    return _Progress(
        next_epoch=found["next_epoch"],
        best_loss=found["best_loss"],
        num_worse=found["num_worse"],
        best=found["best"],
    )
