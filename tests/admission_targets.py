"""A greedy neighbour: fills all the VRAM that it may take; called in the training process by tests."""

import time
from pathlib import Path

import torch

from core.events.catalogue import Emit
from core.resources.memory import limit_memory
from settings.resources import ResourceSettings

_BLOCK_MIB = 16


def fill_vram(resources: ResourceSettings, full: Path, done: Path, emit: Emit) -> int:
    """Allocate until nothing is left, say so by making a file, and hold it until another file is there.

    Returns:
        How much it was, MiB.
    """
    del emit
    torch.zeros(1, device="cuda")
    limit_memory(resources)
    held = []
    try:
        while True:
            held.append(torch.empty(_BLOCK_MIB * 2**20, dtype=torch.uint8, device="cuda"))
    except torch.OutOfMemoryError:
        full.touch()
    while not done.exists():
        time.sleep(0.05)
    return len(held) * _BLOCK_MIB
