"""How graphs are fed to training; none of it changes a result."""

from typing import Literal

from pydantic import Field

from settings.group import Group


class DatasetSettings(Group):
    """Where graphs lie, and who gathers them into packs ahead of training."""

    placement: Literal["auto", "resident", "pinned", "mapped"] = Field(
        default="auto",
        description="Where the graph store is read from: `resident` where training computes, `pinned` in "
        "RAM, `mapped` from disk; `auto` takes the first that fits.",
    )
    num_workers: int = Field(
        default=6,
        ge=0,
        description="Threads that gather packs ahead, to begin with; 0 gathers in the training thread. A "
        "resident store needs none.",
    )
    max_workers: int = Field(default=24, ge=0, description="Most such threads.")
    prefetch_factor: int = Field(default=2, ge=1, description="Packs held ready per thread, to begin with.")
    max_prefetch_factor: int = Field(default=8, ge=1, description="Most packs held ready per thread.")
