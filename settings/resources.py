"""What is sampled of the machine while training runs, and what the machine costs."""

from pydantic import Field

from settings.group import Group

LONGEST_LEASE_S = 86400.0
"""No sign of life, whoever left it, makes others wait for longer."""


class ResourceSettings(Group):
    """Resource sampling and price."""

    sample_interval_s: float = Field(default=1.0, ge=0.05, description="Seconds between resource samples.")
    flush_interval_s: float = Field(
        default=10.0, ge=0.1, description="Seconds of samples per telemetry file; the most a crash can lose."
    )
    hang_timeout_s: float = Field(
        default=600.0,
        gt=0.0,
        description="Seconds without progress (a step, a pack scored, a chunk read) after which a training "
        "process counts as hanging: its stacks are kept, it is killed and the phase tried again.",
    )
    lease_s: float = Field(
        default=60.0,
        gt=0.0,
        le=LONGEST_LEASE_S,
        description="Seconds after which the dataset of a process that gives no sign of life (its machine is "
        "lost, it is stopped, or it cannot reach the storage) is free for another; it gives up its own work "
        "somewhat earlier.",
    )
    stop_grace_s: float = Field(
        default=8.0,
        ge=0.0,
        description="Seconds that training has for a last checkpoint when a run is stopped (Ctrl-C, SIGTERM, "
        "cancelled); then it is killed.",
    )
    memory_limit_mib: int = Field(
        default=0,
        ge=0,
        description="Most memory a training process may allocate, MiB; beyond it allocations fail and are "
        "recovered from, where else the kernel would kill it. 0 is no limit.",
    )
    vram_limit_mib: int = Field(
        default=0, ge=0, description="Most VRAM a training process may take of its GPU, MiB; 0 is all of it."
    )
    cost_per_hour: float = Field(
        default=0.0, ge=0.0, description="Price of an hour of this machine, in your currency; 0 hides costs."
    )
