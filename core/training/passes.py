"""Passes over windows that are already scored: how the small fusion networks are trained."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.models.fusion import FusionNetwork
from core.training.batch_plan import plan_epoch
from core.training.input_tuner import InputSummary
from core.training.loop import Validate, fit
from core.training.memory import PackGuard, allocate_state
from core.training.packs import PackLimit
from core.training.precision import one_thread
from core.training.run import Run
from settings.training import TrainingSettings


class WindowLearner(ABC):
    """A fusion network that learns from windows held in memory, on the CPU.

    A step is a transaction, as that of ``core.training.step.Stepper``: when memory runs out it begins again,
    in smaller packs of windows.

    Args:
        run: Whose training it is.
        network: What learns.
        training: Learning rate and windows per step.
    """

    def __init__(self, run: Run, network: FusionNetwork, training: TrainingSettings) -> None:
        self.module = network
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=training.lr, fused=True)
        allocate_state(self.optimizer)
        self.guard = PackGuard.of(run, _windows(training.dqn.batch_size))
        self._steps: Sequence[NDArray[np.int64]] = ()
        self._stage = "input"

    @abstractmethod
    def examples(self, windows: Tensor) -> tuple[Tensor, ...]:
        """What a step learns from, given the indices of its training windows: tensors of as many rows."""

    @abstractmethod
    def loss(self, *examples: Tensor) -> Tensor:
        """Summed loss on some rows of the examples."""

    def remember(self) -> Callable[[], None]:
        """Take note of all that `examples` draws from or adds to; what is returned brings that back."""
        return lambda: None

    def begin(self, epoch: int, steps: Sequence[NDArray[np.int64]]) -> None:
        """See ``core.training.loop.Learner``."""
        self._steps = steps
        self.guard.begin(epoch, lambda: _windows(max(map(len, steps))))

    def step(self, index: int, seed: int) -> Tensor:
        """Update the weights once; see ``core.training.loop.Learner``."""
        del seed
        windows = torch.from_numpy(self._steps[index].copy())
        self.guard.before_step(index)
        loss = self.guard.do(
            lambda: self._gradients(windows),
            lambda: (self._stage, _windows(self.guard.limit.graphs)),
            step=index,
            undo=self.optimizer.zero_grad,
            remember=self.remember,
        )
        self.optimizer.step()
        self.guard.after_step()
        return loss

    def _gradients(self, windows: Tensor) -> Tensor:
        self._stage = "input"
        self.optimizer.zero_grad()
        examples = self.examples(windows)
        total = torch.zeros(())
        for pack in zip(*(torch.split(rows, self.guard.limit.graphs) for rows in examples), strict=True):
            self._stage = "forward"
            loss = self.loss(*pack) / len(examples[0])
            self._stage = "backward"
            torch.autograd.backward(loss)
            total += loss.detach()
        return total

    def take_input_summary(self) -> InputSummary:
        """Nothing is gathered, nothing waited for."""
        return InputSummary()

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "packs": self.guard.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.guard.load_state_dict(state["packs"])


def in_packs(run: Run, compute: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Compute something of every row, in as few packs as memory allows; errors as in ``PackGuard.do``."""
    guard = PackGuard(run.names, run.emit, _windows(max(1, len(rows))))
    return guard.do(
        lambda: torch.cat([compute(pack) for pack in torch.split(rows, guard.limit.graphs)]),
        lambda: ("evaluation", guard.limit),
    )


def _windows(num: int) -> PackLimit:
    return PackLimit(num, 0, 0)


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
