"""Plans that train on a simulated machine: what the adaptive optimizer does there is what it really does."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from core.events.catalogue import (
    CapturesDigested,
    ChainFinished,
    ChainStarted,
    EpochFinished,
    Fact,
    GraphsBuilt,
    PhaseFailed,
    PhaseFinished,
    PhaseStarted,
    PlanCreated,
    PlanFinished,
    to_event,
)
from core.events.event import Event
from core.events.resource_facts import InputAdjusted, PackLimitChanged, StorePlaced
from core.resources.adaptive import AdaptiveOptimizer, Aims, Level
from settings.app import Settings
from tests.sample_log import MACHINES
from tests.simulated_input import NUM_STEPS, SimulatedMachine

STARVED = SimulatedMachine(compute_s=0.01, latency_s=0.1, busy_percent=98.0)
"""Needs ten workers and a prefetch of four."""
FIRST_DAY = datetime(2026, 6, 1, tzinfo=UTC)


@dataclass(frozen=True)
class SimulatedPlan:
    """One dataset's teacher and student in one plan.

    Attributes:
        plan_id: The plan.
        settings: Its settings; what they say about workers is what training begins with.
        day: When it ran, days after the first.
        input: How the machine answers to workers and prefetch.
        gpu: Whether it has a GPU.
        graphs_per_s: Of a settled epoch that waits for nothing; None for that of the simulated machine.
        num_steps: Steps of an epoch.
        num_train: Training graphs.
        num_epochs: Epochs of each model.
        placement: Where graphs are read from.
        peak_mib: Peak memory of each phase.
        data_digest: Of its captures.
        best_epoch: Epoch of the lowest validation loss.
        ooms: Packs that did not fit, and those that did, in the teacher's first epoch.
        fails: Failure class of its phases; empty where they end well.
    """

    plan_id: str
    settings: Settings = field(default_factory=Settings)
    day: float = 0.0
    input: SimulatedMachine = STARVED
    gpu: bool = True
    graphs_per_s: float | None = None
    num_steps: int = 200
    num_train: int = 204_800
    num_epochs: int = 6
    placement: str = "pinned"
    peak_mib: float = 8_000.0
    data_digest: str = "captures"
    best_epoch: int = 3
    ooms: Sequence[tuple[int, int]] = ()
    fails: str = ""

    def events(self) -> list[Event]:
        """The plan's events, in order, ready to be appended to a log."""
        began = FIRST_DAY + timedelta(days=self.day)
        return [
            to_event(self.plan_id, fact)._replace(
                event_id=f"{self.plan_id}-{number}",
                position=number,
                occurred_at=began + timedelta(seconds=number),
            )
            for number, fact in enumerate(self._facts())
        ]

    def _facts(self) -> Iterator[Fact]:
        dump = self.settings.model_dump(mode="json", exclude={"tracking"})
        yield PlanCreated(steps=[], settings=dump, machine=MACHINES[self.gpu], force=False, previous=[])
        yield ChainStarted(dataset="car")
        yield CapturesDigested(dataset="car", data_digest=self.data_digest, captures=[])
        yield GraphsBuilt(
            dataset="car", path="cache/car", graphs_digest="g", split_digest="s", num_frames=1_000_000,
            num_graphs=2 * self.num_train, num_nodes=20, num_edges=40, num_attack_graphs=5,
            splits={"train": self.num_train}, duration_s=1.0, cached=False,
        )  # fmt: skip
        for phase in ("teacher", "student"):
            yield from self._phase(phase)
        status = "failed" if self.fails else "completed"
        yield ChainFinished(dataset="car", status=status, duration_s=60.0)
        yield PlanFinished(status=status, duration_s=60.0)

    def _phase(self, phase: str) -> Iterator[Fact]:
        names: dict[str, Any] = {"dataset": "car", "phase": phase}
        dataset, training = self.settings.dataset, self.settings.training
        micro = training.micro_batch_size or training.batch_size
        yield PhaseStarted(
            **names, attempt=1, device=MACHINES[self.gpu]["device"],
            precision=MACHINES[self.gpu]["precision"], micro_batch_size=micro,
            num_workers=dataset.num_workers, prefetch_factor=dataset.prefetch_factor,
        )  # fmt: skip
        yield StorePlaced(
            **names, placement=self.placement, num_bytes=10, room_bytes=5, reason="too large for the device"
        )
        for failed, fitted in self.ooms if phase == "teacher" else ():
            yield PackLimitChanged(
                **names, model="teacher_gat", epoch=0, step=1, stage="forward", reason="cuda_oom",
                before={"graphs": failed, "nodes": 30 * failed},
                after={"graphs": failed, "nodes": 30 * fitted},
                allocated_mib=20_000.0, reserved_mib=24_000.0,
            )  # fmt: skip
        if self.fails:
            yield PhaseFailed(**names, attempt=1, kind=self.fails, message="no", micro_batch_size=micro)
            return
        yield from self._epochs({**names, "model": f"{phase}_gat"})
        yield PhaseFinished(**names, attempt=1, duration_s=50.0, peak_memory_mib=self.peak_mib)

    def _epochs(self, names: dict[str, Any]) -> Iterator[Fact]:
        dataset, training = self.settings.dataset, self.settings.training
        level = Level(dataset.num_workers, dataset.prefetch_factor)
        most = Level(dataset.max_workers, dataset.max_prefetch_factor)
        optimizer = AdaptiveOptimizer(Aims(85.0, 80.0, most), level)
        for epoch in range(self.num_epochs):
            intervals, num_adjustments = [], 0
            for done in range(NUM_STEPS, self.num_steps + 1, NUM_STEPS):
                level = optimizer.level
                measured = self.input.interval(level)
                intervals.append(measured)
                adjusts = training.adaptive_optimization and self.placement != "resident"
                if adjusts and (adjustment := optimizer.decide(measured)):
                    num_adjustments += 1
                    yield InputAdjusted(
                        **names, epoch=epoch, step=done, reason=adjustment.reason,
                        num_workers=adjustment.after.num_workers,
                        prefetch_factor=adjustment.after.prefetch_factor,
                        num_workers_before=level.num_workers,
                        prefetch_factor_before=level.prefetch_factor, gpu_percent=measured.gpu_percent,
                        ram_percent=measured.ram_percent, data_wait_s=measured.wait_s,
                        data_load_s=measured.load_s, compute_s=measured.compute_s,
                    )  # fmt: skip
            resident = self.placement == "resident"
            elapsed_s = sum(i.compute_s if resident else i.elapsed_s for i in intervals)
            last = intervals[-1]
            yield EpochFinished(
                **names, epoch=epoch, train_loss=0.5, val_loss=0.2 + 0.01 * abs(epoch - self.best_epoch),
                val_metric=None, learning_rate=1e-3, num_steps=self.num_steps, duration_s=elapsed_s,
                graphs_per_s=self.graphs_per_s or self.num_train / elapsed_s,
                data_wait_s=0.0 if resident else sum(i.wait_s for i in intervals),
                data_load_s=sum(i.load_s for i in intervals),
                num_packs=self._num_packs(), num_workers=0 if resident else optimizer.level.num_workers,
                prefetch_factor=optimizer.level.prefetch_factor, num_adjustments=num_adjustments,
                gpu_percent=last.gpu_percent if self.gpu else None, ram_percent=last.ram_percent,
            )  # fmt: skip

    def _num_packs(self) -> int:
        step = -(-self.num_train // self.num_steps)
        return self.num_steps * -(-step // (self.settings.training.micro_batch_size or step))


def settings_of(**groups: Any) -> Settings:
    """Settings with some groups given, on a machine that trains the published models."""
    return Settings(**{"models": {"preset": "published"}, **groups})
