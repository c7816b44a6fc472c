"""One optimizer step: the same result whatever the micro-batch, and a second try when memory runs out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.events.heartbeat import beat
from core.models.batch import GraphBatch
from core.training.input_tuner import InputSummary, InputTuner
from core.training.memory import PackGuard, allocate_state
from core.training.packs import PackLimit, largest_step, split_step
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
    packs changes memory and nothing else (but rounding). When memory runs out, on the device or the host, the
    packs are halved and the step begins again. The update allocates nothing: it is done or it is not.

    Attributes:
        objective: What is trained.
        pipeline: Where packs come from; its limit is that of the guard.
        optimizer: Updates ``objective.module``.
        precision: Number format of the forward pass.
        tuner: Watches the pipeline and adjusts it.
        guard: Keeps packs within memory.
    """

    objective: Objective
    pipeline: Pipeline
    optimizer: torch.optim.Optimizer
    precision: Precision
    tuner: InputTuner
    guard: PackGuard

    def __post_init__(self) -> None:
        """Begin with an untouched loss scaler and all of the optimizer's state."""
        self._steps: Sequence[NDArray[np.int64]] = ()
        self._stage, self._num_packs = "input", 0
        self.loss_scaler = self._new_loss_scaler()
        allocate_state(self.optimizer)

    def begin(self, epoch: int, steps: Sequence[NDArray[np.int64]]) -> None:
        """See ``core.training.loop.Learner``."""
        self._steps = steps
        self.pipeline.begin(steps)
        self.tuner.begin_epoch(epoch)
        data = self.pipeline.data
        self.guard.begin(epoch, lambda: largest_step(steps, data.num_nodes, data.num_edges))

    def step(self, index: int, seed: int) -> Tensor:
        """Update the weights once.

        Args:
            index: Which of the epoch's steps.
            seed: Seed of the step's random numbers.

        Returns:
            The mean loss, a scalar on the device (not synchronised).

        Raises:
            TrainingProcessError: Memory does not suffice for a single graph.
        """
        self.guard.before_step(index)
        loss = self.guard.do(
            lambda: self._gradients(index, seed),
            lambda: (self._stage, self._size_of_pack(index)),
            step=index,
            undo=self._undo,
        )
        self.loss_scaler.step(self.optimizer)
        self.loss_scaler.update()
        for _ in range(self.guard.after_step()):
            self.tuner.count_adjustment()
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
            "packs": self.guard.state_dict(),
            "input": self.tuner.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave; a smaller limit than it had stays: memory was lacking."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["loss_scaler"]:  # empty where nothing was scaled: trained so far in another number format
            self.loss_scaler.load_state_dict(state["loss_scaler"])
        self.guard.load_state_dict(state["packs"])
        self.tuner.load_state_dict(state["input"])

    def take_input_summary(self) -> InputSummary:
        """See ``core.training.loop.Learner``."""
        return self.tuner.take_summary()

    def _gradients(self, index: int, seed: int) -> Tensor:
        self._stage, self._num_packs = "input", 0
        if self.pipeline.limit != self.guard.limit:
            self.pipeline.limit = self.guard.limit
        self.optimizer.zero_grad(set_to_none=True)
        objective, data, graphs = self.objective, self.pipeline.data, self._steps[index]
        noise = data.draw_noise(graphs, objective.num_edge_uniform, objective.num_node_normal, seed)
        total = torch.zeros((), device=self.precision.device)
        first_node = first_edge = 0
        for pack in self.pipeline.packs(index):
            batch = noise.give(pack.batch, first_node, first_edge)
            first_node, first_edge = first_node + len(batch.x), first_edge + len(batch.edge_attr)
            self._stage = "forward"
            with self.precision.autocast():
                loss = objective.losses(batch, graphs[pack.start : pack.stop]).sum() / len(graphs)
            self._stage = "backward"
            torch.autograd.backward(self.loss_scaler.scale(loss))
            total += loss.detach()
            beat(num_graphs=pack.stop - pack.start)
            self._stage, self._num_packs = "input", self._num_packs + 1
        self._stage = "backward"
        self.loss_scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.module.parameters(), _MAX_GRADIENT_NORM)
        return total

    def _undo(self) -> None:
        """Let go of packs held ready, gradients, and a loss scaler that may hold half of what a step does."""
        self.pipeline.begin(self._steps)
        self.optimizer.zero_grad(set_to_none=True)
        state, self.loss_scaler = self.loss_scaler.state_dict(), self._new_loss_scaler()
        if state:
            self.loss_scaler.load_state_dict(state)

    def _size_of_pack(self, index: int) -> PackLimit:
        """What the pack of a step that is being worked on holds; the last one where all are done."""
        graphs, data = self._steps[index], self.pipeline.data
        nodes, edges = data.num_nodes(graphs), data.num_edges(graphs)
        packs = split_step(nodes, edges, self.guard.limit)
        chosen = slice(*packs[min(self._num_packs, len(packs) - 1)])
        return PackLimit(chosen.stop - chosen.start, int(nodes[chosen].sum()), int(edges[chosen].sum()))

    def _new_loss_scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self.precision.device.type, enabled=self.precision.scaled)
