"""Where the graph store is read from: a ladder of places, the first that it fits into."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, TypeVar

import torch

from core.resources.failures import OOM_KINDS, classify
from core.resources.memory import free_ram_bytes

Rung: TypeAlias = Literal["resident", "pinned", "mapped"]
Wanted: TypeAlias = Literal["auto", "resident", "pinned", "mapped"]

LADDER: tuple[Rung, ...] = ("resident", "pinned", "mapped")
"""Fastest first. On a CPU the first two are the same memory, read by the training thread or by workers."""

_SHARE = 0.4
"""Largest share of the free memory that the store may take; the rest is for activations and packs."""

T = TypeVar("T")


@dataclass(frozen=True)
class Placement:
    """Where a store is read from.

    Attributes:
        rung: ``resident`` where training computes, ``pinned`` in RAM, or ``mapped`` from disk.
        num_bytes: Size of the arrays that batches are gathered from.
        room_bytes: Memory that was free for them where they would be resident.
        reason: Why this rung.
    """

    rung: Rung
    num_bytes: int
    room_bytes: int
    reason: str


def choose_placement(wanted: Wanted, num_bytes: int, free_bytes: int, free_ram_bytes: int) -> Placement:
    """Choose the first rung that a store fits into.

    Args:
        wanted: A rung, which is then the answer, or ``auto``.
        num_bytes: Size of the store's arrays.
        free_bytes: Free memory where training computes.
        free_ram_bytes: Free RAM.
    """
    room, ram_room = (int(_SHARE * free) for free in (free_bytes, free_ram_bytes))
    if wanted != "auto":
        return Placement(wanted, num_bytes, room, "set by dataset.placement")
    if num_bytes <= room:
        return Placement("resident", num_bytes, room, f"fits into {_SHARE:.0%} of the free memory")
    if num_bytes <= ram_room:
        reason = f"larger than {_SHARE:.0%} of the free memory of the device, fits into that of the free RAM"
        return Placement("pinned", num_bytes, room, reason)
    return Placement("mapped", num_bytes, room, f"larger than {_SHARE:.0%} of the free memory and RAM")


def measure_placement(wanted: Wanted, num_bytes: int, device: torch.device) -> Placement:
    """Choose by the memory that is free right now; as `choose_placement`."""
    return choose_placement(wanted, num_bytes, free_bytes(device), free_ram_bytes())


def climb_down(placement: Placement, read: Callable[[Rung], T]) -> tuple[Placement, T]:
    """Read a store on its rung, or on a lower one where memory runs out after all.

    Args:
        placement: Where to begin.
        read: Reads the arrays on a rung; ``mapped`` takes no memory.

    Returns:
        Where it is in the end, and what `read` gave.
    """
    while True:
        try:
            return placement, read(placement.rung)
        except (MemoryError, RuntimeError) as error:
            if classify(error) not in OOM_KINDS or placement.rung == LADDER[-1]:
                raise
        lower = LADDER[LADDER.index(placement.rung) + 1]
        placement = replace(placement, rung=lower, reason=f"memory ran out when {placement.rung}")


def free_bytes(device: torch.device) -> int:
    """Memory that this process can still allocate on a device.

    Of a GPU what its own limit leaves, and what it holds unused; of a CPU see ``free_ram_bytes``.
    """
    if device.type != "cuda":
        return free_ram_bytes()
    free, total = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device)
    limit = torch.cuda.get_per_process_memory_fraction(device) * total
    return int(min(free, limit - reserved)) + reserved - torch.cuda.memory_allocated(device)
