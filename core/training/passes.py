"""Passes over windows that are already scored: how the small fusion networks are trained."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.models.fusion import FusionNetwork
from core.training.batch_plan import plan_epoch
from core.training.input_tuner import InputSummary
from core.training.loop import Validate, fit
from core.training.precision import one_thread
from core.training.run import Run
from settings.training import TrainingSettings


class WindowLearner(ABC):
    """A fusion network that learns from windows held in memory, on the CPU.

    Args:
        network: What learns.
        lr: Learning rate.
    """

    def __init__(self, network: FusionNetwork, lr: float) -> None:
        self.module = network
        self._steps: Sequence[NDArray[np.int64]] = ()
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=lr)

    @abstractmethod
    def loss(self, windows: Tensor) -> Tensor:
        """Mean loss on some of the training windows, given their indices."""

    def begin(self, epoch: int, steps: Sequence[NDArray[np.int64]]) -> None:
        """See ``core.training.loop.Learner``."""
        del epoch
        self._steps = steps

    def step(self, index: int, seed: int) -> Tensor:
        """Update the weights once; see ``core.training.loop.Learner``."""
        del seed
        loss = self.loss(torch.from_numpy(self._steps[index].copy()))
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        return loss.detach()

    def take_input_summary(self) -> InputSummary:
        """Nothing is gathered, nothing waited for."""
        return InputSummary()

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])


def run_passes(
    run: Run, learner: WindowLearner, num_windows: int, validate: Validate, training: TrainingSettings
) -> None:
    """Train as ``core.training.loop.fit`` does, for at most ``dqn.episodes`` passes over `num_windows`."""
    dqn = training.dqn

    def plan(epoch: int) -> list[NDArray[np.int64]]:
        return plan_epoch(
            np.arange(num_windows),
            seed=training.seed,
            epoch=epoch,
            batch_size=dqn.batch_size,
            min_steps=training.min_steps_per_epoch,
        )

    with one_thread():
        fit(run, learner, plan, validate, training, dqn.episodes)
