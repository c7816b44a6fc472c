"""The plain baseline of fusion: the agent's network on the agent's state, trained as a classifier."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from core.models.fusion import FusionNetwork
from core.training.dqn import Windows
from core.training.passes import Pass, run_passes
from core.training.seeds import seeded
from settings.models import FusionSettings
from settings.training import TrainingSettings


def train_mlp(
    train: Windows,
    val: Windows,
    fusion: FusionSettings,
    training: TrainingSettings,
    on_pass: Callable[[Pass], None],
) -> FusionNetwork:
    """Train by binary cross-entropy; arguments as in ``core.training.dqn.train_agent``."""
    network = seeded(lambda: FusionNetwork(fusion, 1), training.seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=training.lr)

    def learn(batch: NDArray[np.int64]) -> Tensor:
        windows = train[torch.from_numpy(batch.copy())]
        loss = functional.binary_cross_entropy_with_logits(network(windows.state).squeeze(1), windows.y)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def validate() -> tuple[float, NDArray[np.float64]]:
        logits = network(val.state).squeeze(1)
        loss = float(functional.binary_cross_entropy_with_logits(logits, val.y))
        return loss, logits.double().sigmoid().numpy()

    run_passes(network, len(train.y), learn, validate, training, on_pass)
    return network


@torch.no_grad()
def mlp_probability(network: FusionNetwork, state: Tensor) -> NDArray[np.float64]:
    """Attack probability of states ``[K, 15]``: float64 ``[K]``."""
    probability: NDArray[np.float64] = network(state).squeeze(1).double().sigmoid().numpy()
    return probability
