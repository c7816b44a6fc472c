"""A machine whose answer to workers and prefetch is known: what an interval of training would show on it."""

import math
from dataclasses import dataclass

from core.resources.adaptive import Interval, Level

NUM_STEPS = 50


@dataclass(frozen=True)
class SimulatedMachine:
    """Steps of one pack each.

    Attributes:
        compute_s: Time to process a pack.
        latency_s: Time to gather a pack, whatever else is gathered.
        most_packs_per_s: What the disk gives, however many threads read.
        jitter_s: Waiting that only packs held ready help against.
        contention: Share by which each worker slows processing: they use the same cores.
        base_percent: RAM in use by others.
        percent_per_pack: RAM that a pack held ready takes.
        room_packs: Packs that there is RAM for in all, as far as is known.
        busy_percent: GPU utilisation while a pack is processed; None without a GPU.
    """

    compute_s: float = 0.05
    latency_s: float = 0.01
    most_packs_per_s: float = math.inf
    jitter_s: float = 0.0
    contention: float = 0.0
    base_percent: float = 30.0
    percent_per_pack: float = 0.01
    busy_percent: float | None = None
    room_packs: int | None = None

    def interval(self, level: Level) -> Interval:
        """What is measured at a level."""
        workers, depth = level.num_workers, level.num_packs
        compute_s = self.compute_s * (1 + self.contention * workers)
        if workers:
            gather_s = max(self.latency_s / workers, 1 / self.most_packs_per_s)
            wait_s = max(0.0, gather_s - compute_s) + self.jitter_s / depth
        else:
            wait_s = max(self.latency_s, 1 / self.most_packs_per_s) + self.jitter_s
        elapsed_s = compute_s + wait_s
        # Where the disk is the limit threads share it: each takes longer.
        load_s = max(self.latency_s, min(workers / self.most_packs_per_s, elapsed_s * workers))
        busy = self.busy_percent
        return Interval(
            num_steps=NUM_STEPS,
            elapsed_s=NUM_STEPS * elapsed_s,
            wait_s=NUM_STEPS * wait_s,
            load_s=NUM_STEPS * load_s,
            gpu_percent=None if busy is None else busy * compute_s / elapsed_s,
            ram_percent=min(100.0, self.base_percent + self.percent_per_pack * depth),
            room_packs=None if self.room_packs is None else max(0, self.room_packs - depth),
        )

    def step_s(self, level: Level) -> float:
        """Time that a step takes at a level."""
        return self.interval(level).elapsed_s / NUM_STEPS
