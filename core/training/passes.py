"""Passes over windows that are already scored: how the small fusion networks are trained."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.training.batch_plan import plan_epoch
from core.training.precision import one_thread
from settings.training import TrainingSettings


@dataclass(frozen=True)
class Pass:
    """What happened in one pass.

    Attributes:
        epoch: The pass, from 0.
        train_loss: Mean loss of its updates.
        val_loss: Loss on validation.
        val_score: float64 ``[K]`` scores of the validation windows.
        num_steps: Updates.
        num_windows: Windows seen.
        duration_s: Time taken, seconds.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_score: NDArray[np.float64]
    num_steps: int
    num_windows: int
    duration_s: float


def run_passes(
    network: nn.Module,
    num_windows: int,
    learn: Callable[[NDArray[np.int64]], Tensor],
    validate: Callable[[], tuple[float, NDArray[np.float64]]],
    training: TrainingSettings,
    on_pass: Callable[[Pass], None],
) -> None:
    """Train until the validation loss stops falling or ``dqn.episodes`` passes are done; keep the best.

    Args:
        network: What learns.
        num_windows: Training windows.
        learn: One update on some of them; its loss.
        validate: Validation loss and scores.
        training: Settings.
        on_pass: Called after each pass.
    """
    dqn = training.dqn
    best_loss, num_worse, best = float("inf"), 0, copy.deepcopy(network.state_dict())
    for epoch in range(dqn.episodes):
        began = time.perf_counter()
        batches = plan_epoch(
            np.arange(num_windows),
            seed=training.seed,
            epoch=epoch,
            batch_size=dqn.batch_size,
            min_steps=training.min_steps_per_epoch,
        )
        with one_thread():
            losses = torch.stack([learn(batch) for batch in batches])
            val_loss, val_score = validate()
        duration_s = time.perf_counter() - began
        on_pass(Pass(epoch, float(losses.mean()), val_loss, val_score, len(batches), num_windows, duration_s))
        if val_loss < best_loss:
            best_loss, num_worse, best = val_loss, 0, copy.deepcopy(network.state_dict())
        else:
            num_worse += 1
        if num_worse >= training.patience:
            break
    network.load_state_dict(best)
    network.eval()
