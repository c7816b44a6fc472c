"""Seeds: everything random is a pure function of the settings' seed and of where it is used."""

import random
from collections.abc import Callable
from typing import Any, TypeVar, cast

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


def random_states() -> dict[str, Any]:
    """States of the global generators of Python, numpy and torch, as tensors and primitives.

    Training draws from none of them; libraries below it may.
    """
    name, keys, *rest = cast("tuple[Any, ...]", np.random.get_state(legacy=True))
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if in_use else [],
    }


def remember_random_states() -> Callable[[], None]:
    """Take note of what `random_states` tells, at the cost of microseconds.

    Returns:
        Brings the generators back to where they are now.
    """
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = torch.cuda.get_rng_state() if in_use else None

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda)

    return restore


def restore_random_states(states: dict[str, Any]) -> None:
    """The inverse of `random_states`; those of GPUs that are not there are left out."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, device)
