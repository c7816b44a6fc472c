"""Seeds: everything random is a pure function of the settings' seed and of where it is used."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

T = TypeVar("T")


def step_seed(seed: int, epoch: int, step: int) -> int:
    """Seed of one training step's random numbers."""
    return int(np.random.SeedSequence([seed, epoch, step]).generate_state(1, np.uint64)[0] >> 1)


def seeded(build: Callable[[], T], seed: int) -> T:
    """Build a module with weights that depend on the seed alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
