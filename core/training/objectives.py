"""What each model is trained on: losses per graph, not per node, so that no window weighs more."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from core.models.batch import GraphBatch
from core.models.gat import Gat
from core.models.segments import segment_mean
from core.models.vgae import Vgae, VgaeOutput
from settings.training import DistillationSettings

_DIVERGENCE_WEIGHT = 0.01
"""Weight of the latent's divergence from the prior; at 1 the latent of so small graphs collapses."""


def reconstruction_loss(output: VgaeOutput) -> Tensor:
    """Node, neighbour and id errors plus the weighted divergence (negative ELBO), ``[B]``."""
    errors = output.errors
    return errors.node + errors.neighbour + errors.identity + _DIVERGENCE_WEIGHT * output.divergence


class VgaeObjective:
    """Reconstruct benign windows (arXiv 1611.07308)."""

    def __init__(self, model: Vgae, dropout: float) -> None:
        self.module: nn.Module = model
        self.model = model
        self.num_edge_uniform = model.num_edge_uniform if dropout else 0
        self.num_node_normal = model.num_node_normal

    def losses(self, batch: GraphBatch, graphs: NDArray[np.int64]) -> Tensor:
        """Loss of each graph ``[B]``."""
        del graphs
        return reconstruction_loss(self.model(batch))


class GatObjective:
    """Tell attack windows from benign ones.

    Args:
        model: The classifier.
        y: int64 ``[G]`` labels of the whole store, on the device.
        dropout: Share of attention weights dropped.
    """

    num_node_normal = 0

    def __init__(self, model: Gat, y: Tensor, dropout: float) -> None:
        self.module: nn.Module = model
        self.model, self.y = model, y
        self.num_edge_uniform = model.num_edge_uniform if dropout else 0

    def losses(self, batch: GraphBatch, graphs: NDArray[np.int64]) -> Tensor:
        """Loss of each graph ``[B]``."""
        return self.losses_of_logits(self.model(batch).logits, graphs)

    def losses_of_logits(self, logits: Tensor, graphs: NDArray[np.int64]) -> Tensor:
        """Cross-entropy of each graph ``[B]``, given its logits ``[B, 2]``."""
        return functional.cross_entropy(logits, self.y[_index(graphs, self.y)], reduction="none")


class GatDistillationObjective(GatObjective):
    """``alpha T^2 KL(teacher/T || student/T) + (1 - alpha) cross-entropy`` (arXiv 1503.02531, 2507.19686).

    The divergence is taken over the classes of each graph. The teacher is frozen, so its logits are computed
    once for the whole store and looked up.

    Args:
        model: The student.
        y: int64 ``[G]`` labels of the whole store, on the device.
        dropout: Share of attention weights dropped.
        teacher_logits: float32 ``[G, 2]``, on the device.
        distillation: Temperature and alpha.
    """

    def __init__(
        self,
        model: Gat,
        y: Tensor,
        dropout: float,
        teacher_logits: Tensor,
        distillation: DistillationSettings,
    ) -> None:
        super().__init__(model, y, dropout)
        self.teacher_logits, self.distillation = teacher_logits, distillation

    def losses_of_logits(self, logits: Tensor, graphs: NDArray[np.int64]) -> Tensor:
        """Loss of each graph ``[B]``, given the student's logits ``[B, 2]``."""
        index = _index(graphs, self.y)
        task = functional.cross_entropy(logits, self.y[index], reduction="none")
        soft = distillation_loss(logits, self.teacher_logits[index], self.distillation.temperature)
        alpha = self.distillation.alpha
        return alpha * soft + (1 - alpha) * task


def distillation_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """``T^2 KL(softmax(teacher / T) || softmax(student / T))`` over classes.

    Args:
        student_logits: ``[B, classes]``.
        teacher_logits: ``[B, classes]``.
        temperature: T.

    Returns:
        ``[B]``.
    """
    student = functional.log_softmax(student_logits / temperature, dim=1)
    teacher = functional.log_softmax(teacher_logits / temperature, dim=1)
    return temperature**2 * functional.kl_div(student, teacher, reduction="none", log_target=True).sum(1)


class VgaeDistillationObjective:
    """``0.5 * latent MSE + 0.5 * reconstruction``: the student's latent, projected, follows the teacher's.

    Args:
        model: The student.
        dropout: Share of attention weights dropped.
        teacher_latents: The frozen teacher's latent means, nodes in store order.
    """

    def __init__(self, model: Vgae, dropout: float, teacher_latents: "TeacherLatents") -> None:
        self.model, self.teacher_latents = model, teacher_latents
        self.projection = nn.Linear(model.latent, teacher_latents.width)
        self.module: nn.Module = nn.ModuleDict({"student": model, "projection": self.projection})
        self.num_edge_uniform = model.num_edge_uniform if dropout else 0
        self.num_node_normal = model.num_node_normal

    def losses(self, batch: GraphBatch, graphs: NDArray[np.int64]) -> Tensor:
        """Loss of each graph ``[B]``."""
        output = self.model(batch)
        target = self.teacher_latents.of(graphs, batch.x.device)
        distance = (self.projection(output.mean).float() - target).square().mean(1, keepdim=True)
        latent = segment_mean(distance, batch.graph, batch.node_ptr).squeeze(1)
        return 0.5 * latent + 0.5 * reconstruction_loss(output)


class TeacherLatents:
    """Latent means of a frozen teacher for the nodes of some graphs, computed once (float16 to halve memory).

    Args:
        graphs: int64 ``[K]`` rising; the graphs there are latents for.
        num_nodes: int64 ``[K]`` their nodes.
        latents: float16 ``[sum(num_nodes), width]``.
    """

    def __init__(self, graphs: NDArray[np.int64], num_nodes: NDArray[np.int64], latents: Tensor) -> None:
        self.graphs, self.num_nodes, self.latents = graphs, num_nodes, latents
        self.width = latents.shape[1]
        self._first = np.cumsum(num_nodes) - num_nodes

    def of(self, graphs: NDArray[np.int64], device: torch.device) -> Tensor:
        """Latents of the nodes of some graphs, in batch order: float32 ``[N, width]``."""
        place = np.searchsorted(self.graphs, graphs)
        counts = self.num_nodes[place]
        shift = self._first[place] - (np.cumsum(counts) - counts)
        rows = np.repeat(shift, counts) + np.arange(counts.sum())
        home = self.latents.device
        chosen = self.latents.index_select(0, torch.from_numpy(rows).to(home, non_blocking=True))
        return chosen.to(device, non_blocking=True).float()


def _index(graphs: NDArray[np.int64], like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(graphs)).to(like.device, non_blocking=True)
