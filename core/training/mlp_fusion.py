"""The plain baseline of fusion: the agent's network on the agent's state, trained as a classifier."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from core.models.fusion import FusionNetwork
from core.training.calibration import mcc_at_half
from core.training.dqn import Windows
from core.training.passes import WindowLearner, in_packs, run_passes
from core.training.run import Run
from core.training.seeds import seeded
from settings.models import FusionSettings
from settings.training import TrainingSettings


class _MlpLearner(WindowLearner):
    def __init__(self, run: Run, network: FusionNetwork, train: Windows, training: TrainingSettings) -> None:
        super().__init__(run, network, training)
        self.train = train

    def examples(self, windows: Tensor) -> tuple[Tensor, ...]:
        chosen = self.train[windows]
        return chosen.state, chosen.y

    def loss(self, *examples: Tensor) -> Tensor:
        state, y = examples
        logits = self.module(state).squeeze(1)
        return functional.binary_cross_entropy_with_logits(logits, y, reduction="sum")


def train_mlp(
    run: Run, train: Windows, val: Windows, fusion: FusionSettings, training: TrainingSettings
) -> FusionNetwork:
    """Train by binary cross-entropy; arguments as in ``core.training.dqn.train_agent``."""
    network = seeded(lambda: FusionNetwork(fusion, 1), training.seed)

    @torch.no_grad()
    def validate() -> tuple[float, float | None]:
        logits = in_packs(run, network, val.state).squeeze(1)
        loss = float(functional.binary_cross_entropy_with_logits(logits, val.y))
        return loss, mcc_at_half(logits.double().sigmoid().numpy(), val.y.numpy())

    run_passes(run, _MlpLearner(run, network, train, training), len(train.y), validate, training)
    return network


@torch.no_grad()
def mlp_probability(network: FusionNetwork, state: Tensor) -> NDArray[np.float64]:
    """Attack probability of states ``[K, 15]``: float64 ``[K]``."""
    probability: NDArray[np.float64] = network(state).squeeze(1).double().sigmoid().numpy()
    return probability
