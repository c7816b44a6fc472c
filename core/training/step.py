"""One optimizer step: the same result whatever the micro-batch, and a second try when memory runs out."""

import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.models.batch import GraphBatch
from core.training.graph_data import GraphData
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

    A step is a transaction: gradients of all micro-batches first, then one update. Losses are averaged over
    the graphs of the step, and its random numbers are drawn for the step as a whole, so the micro-batch
    changes memory and nothing else (but rounding). When CUDA runs out of memory the micro-batch is halved and
    the step begins again.

    Attributes:
        objective: What is trained.
        data: Where batches come from.
        optimizer: Updates ``objective.module``.
        precision: Number format of the forward pass.
        micro_batch_size: Most graphs per forward/backward; falls when memory runs out.
    """

    objective: Objective
    data: GraphData
    optimizer: torch.optim.Optimizer
    precision: Precision
    micro_batch_size: int

    def __post_init__(self) -> None:
        """Begin with an untouched loss scaler."""
        self._data_wait_s = 0.0
        self.loss_scaler = torch.amp.GradScaler(self.precision.device.type, enabled=self.precision.scaled)

    def step(self, graphs: NDArray[np.int64], seed: int) -> Tensor:
        """Update the weights once.

        Args:
            graphs: int64 ``[B]`` the step's graphs.
            seed: Seed of the step's random numbers.

        Returns:
            The mean loss, a scalar on the device (not synchronised).
        """
        while True:
            try:
                loss = self._gradients(graphs, seed)
                break
            except torch.OutOfMemoryError:
                if self.micro_batch_size <= 1:
                    raise
            # Outside the handler: the exception's frames hold the tensors that filled the memory.
            self.micro_batch_size = min(self.micro_batch_size, len(graphs)) // 2 or 1
            torch.cuda.empty_cache()
        self.loss_scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.module.parameters(), _MAX_GRADIENT_NORM)
        self.loss_scaler.step(self.optimizer)
        self.loss_scaler.update()
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
            "micro_batch_size": self.micro_batch_size,
            "data_wait_s": self._data_wait_s,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave; a smaller micro-batch than it had stays: memory was lacking."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["loss_scaler"]:  # empty where nothing was scaled: trained so far in another number format
            self.loss_scaler.load_state_dict(state["loss_scaler"])
        self.micro_batch_size = min(self.micro_batch_size, state["micro_batch_size"])
        self._data_wait_s = state["data_wait_s"]

    def take_data_wait_s(self) -> float:
        """Seconds spent waiting for batches since the last call."""
        waited, self._data_wait_s = self._data_wait_s, 0.0
        return waited

    def _gradients(self, graphs: NDArray[np.int64], seed: int) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        objective = self.objective
        noise = self.data.draw_noise(graphs, objective.num_edge_uniform, objective.num_node_normal, seed)
        total = torch.zeros((), device=self.precision.device)
        for start in range(0, len(graphs), self.micro_batch_size):
            stop = min(start + self.micro_batch_size, len(graphs))
            asked = time.perf_counter()
            batch = self.data.batch(graphs, noise, start, stop)
            self._data_wait_s += time.perf_counter() - asked
            with self.precision.autocast():
                loss = objective.losses(batch, graphs[start:stop]).sum() / len(graphs)
            torch.autograd.backward(self.loss_scaler.scale(loss))
            total += loss.detach()
        return total
