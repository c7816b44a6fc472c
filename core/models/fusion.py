"""The network of the fusion agent and of its plain baseline (arXiv 2508.04845)."""

import itertools

from torch import Tensor, nn

from settings.models import FusionSettings

NUM_STATE = 15
_NUM_HIDDEN_LAYERS = 3


class FusionNetwork(nn.Module):
    """MLP of three hidden layers with LayerNorm and ReLU.

    Args:
        settings: Width of the hidden layers.
        num_outputs: Actions of the agent, or 1 for the baseline.
    """

    def __init__(self, settings: FusionSettings, num_outputs: int) -> None:
        super().__init__()
        widths = [NUM_STATE] + [settings.hidden] * _NUM_HIDDEN_LAYERS
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            layers += [nn.Linear(a, b), nn.LayerNorm(b), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(settings.hidden, num_outputs))

    def forward(self, state: Tensor) -> Tensor:
        """States ``[B, 15]`` in [0, 1] -> ``[B, num_outputs]``."""
        values: Tensor = self.layers(state)
        return values
