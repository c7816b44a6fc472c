"""One optimizer step: the same result whatever the micro-batch, and a second try when memory runs out."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.models.batch import GraphBatch
from core.training.input_tuner import InputSummary, InputTuner
from core.training.packs import PackLimit
from core.training.pipeline import Pipeline
from core.training.precision import Precision

_MAX_GRADIENT_NORM = 1.0


class Objective(Protocol):
    """What is trained, and by which loss."""

    module: nn.Module
    """Everything with trained weights."""
    num_edge_uniform: int
    """Uniform numbers that each edge needs in a step (dropout)."""
    num_node_normal: int
    """Normal numbers that each node needs in a step (latent samples)."""

    def losses(self, batch: GraphBatch, graphs: NDArray[np.int64]) -> Tensor:
        """Loss of each graph ``[B]``; `graphs` are the batch's indices in the store."""


@dataclass
class Stepper:
    """Takes optimizer steps on an objective.

    A step is a transaction: gradients of all packs first, then one update. Losses are averaged over the
    graphs of the step, and its random numbers are drawn for the step as a whole, so how it is split into
    packs changes memory and nothing else (but rounding). When CUDA runs out of memory the packs are halved
    and the step begins again.

    Attributes:
        objective: What is trained.
        pipeline: Where packs come from; its limit falls when memory runs out.
        optimizer: Updates ``objective.module``.
        precision: Number format of the forward pass.
        tuner: Watches the pipeline and adjusts it.
    """

    objective: Objective
    pipeline: Pipeline
    optimizer: torch.optim.Optimizer
    precision: Precision
    tuner: InputTuner

    def __post_init__(self) -> None:
        """Begin with an untouched loss scaler."""
        self._steps: Sequence[NDArray[np.int64]] = ()
        self.loss_scaler = torch.amp.GradScaler(self.precision.device.type, enabled=self.precision.scaled)

    def begin(self, epoch: int, steps: Sequence[NDArray[np.int64]]) -> None:
        """See ``core.training.loop.Learner``."""
        self._steps = steps
        self.pipeline.begin(steps)
        self.tuner.begin_epoch(epoch)

    def step(self, index: int, seed: int) -> Tensor:
        """Update the weights once.

        Args:
            index: Which of the epoch's steps.
            seed: Seed of the step's random numbers.

        Returns:
            The mean loss, a scalar on the device (not synchronised).
        """
        while True:
            try:
                loss = self._gradients(index, seed)
                break
            except torch.OutOfMemoryError:
                if self.pipeline.limit.graphs <= 1:
                    raise
            # Outside the handler: the exception's frames hold the tensors that filled the memory.
            held = min(self.pipeline.limit.graphs, len(self._steps[index]))
            self.pipeline.limit = PackLimit(held // 2 or 1)
            torch.cuda.empty_cache()
        self.loss_scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.module.parameters(), _MAX_GRADIENT_NORM)
        self.loss_scaler.step(self.optimizer)
        self.loss_scaler.update()
        self.tuner.after_step(index)
        return loss

    @property
    def module(self) -> nn.Module:
        """Everything with trained weights."""
        return self.objective.module

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loss_scaler": self.loss_scaler.state_dict(),
            "limit": astuple(self.pipeline.limit),
            "input": self.tuner.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave; a smaller limit than it had stays: memory was lacking."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["loss_scaler"]:  # empty where nothing was scaled: trained so far in another number format
            self.loss_scaler.load_state_dict(state["loss_scaler"])
        limits = zip(astuple(self.pipeline.limit), state["limit"], strict=True)
        self.pipeline.limit = PackLimit(*(min(pair) for pair in limits))
        self.tuner.load_state_dict(state["input"])

    def take_input_summary(self) -> InputSummary:
        """See ``core.training.loop.Learner``."""
        return self.tuner.take_summary()

    def _gradients(self, index: int, seed: int) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        objective, data, graphs = self.objective, self.pipeline.data, self._steps[index]
        noise = data.draw_noise(graphs, objective.num_edge_uniform, objective.num_node_normal, seed)
        total = torch.zeros((), device=self.precision.device)
        first_node = first_edge = 0
        for pack in self.pipeline.packs(index):
            batch = noise.give(pack.batch, first_node, first_edge)
            first_node, first_edge = first_node + len(batch.x), first_edge + len(batch.edge_attr)
            with self.precision.autocast():
                loss = objective.losses(batch, graphs[pack.start : pack.stop]).sum() / len(graphs)
            torch.autograd.backward(self.loss_scaler.scale(loss))
            total += loss.detach()
        return total
