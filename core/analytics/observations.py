"""What one plan measured: the small record of it that estimates, advice and judgements rest on."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, NamedTuple

from core.analytics.timeline import Span, fold_spans
from core.events.catalogue import (
    CapturesDigested,
    EpochFinished,
    Fact,
    GraphsBuilt,
    PhaseFailed,
    PhaseFinished,
    PhaseStarted,
    PlanCreated,
    to_fact,
)
from core.events.event import Event
from core.events.resource_facts import (
    ConfigRecommended,
    InputAdjusted,
    PackLimitChanged,
    PackLimitChosen,
    PhaseAdmitted,
    RecommendationJudged,
    StorePlaced,
)
from core.resources.failures import OOM_KINDS

_Phase = tuple[str, str]
"""Dataset and phase."""
_Model = tuple[str, str, str]
"""Dataset, phase and model."""


class EpochNumbers(NamedTuple):
    """One epoch of one model, as of ``EpochFinished``; None where an earlier release did not say."""

    val_loss: float | None
    num_steps: int
    duration_s: float
    graphs_per_s: float
    data_wait_s: float
    num_packs: int | None
    num_workers: int | None
    prefetch_factor: int | None
    gpu_percent: float | None


_EPOCH_NUMBERS = attrgetter(*EpochNumbers._fields)


@dataclass(frozen=True)
class ModelRun:
    """One model's training in one plan.

    Attributes:
        epochs: By number; one that a retry repeated counts as it was last.
        binds: What keeps its packs from being larger; empty where unknown.
        adjustments: Of its input, in order.
    """

    epochs: Mapping[int, EpochNumbers] = field(default_factory=dict)
    binds: str = ""
    adjustments: Sequence[InputAdjusted] = ()

    @property
    def settled(self) -> list[EpochNumbers]:
        """The later half of its epochs: without warming up, and after most adjustments."""
        epochs = [self.epochs[number] for number in sorted(self.epochs)]
        return epochs[len(epochs) // 2 :]

    @property
    def graphs_per_s(self) -> float | None:
        """Median throughput once settled; None without epochs."""
        return statistics.median(epoch.graphs_per_s for epoch in self.settled) if self.epochs else None

    @property
    def losses(self) -> dict[int, float]:
        """Validation loss by epoch, in order, where it was finite."""
        found = {number: self.epochs[number].val_loss for number in sorted(self.epochs)}
        return {n: loss for n, loss in found.items() if loss is not None and math.isfinite(loss)}

    @property
    def gpu_percent(self) -> float | None:
        """Mean GPU utilisation once settled; None where it was not measured."""
        seen = [epoch.gpu_percent for epoch in self.settled if epoch.gpu_percent is not None]
        return statistics.fmean(seen) if seen else None

    @property
    def num_steps(self) -> int:
        """Steps of all its epochs."""
        return sum(epoch.num_steps for epoch in self.epochs.values())

    @property
    def input_needed(self) -> tuple[int, int] | None:
        """Workers and prefetch factor that it needed: of its last epoch, or those that it began with.

        A raise to stay fed is a precaution that every training takes anew: by itself it shows no need, and
        counted as one it would add up from plan to plan. None where an earlier release did not say.
        """
        if not self.epochs:
            return None
        last = self.epochs[max(self.epochs)]
        if last.num_workers is None or last.prefetch_factor is None:
            return None
        if self.adjustments and all(fact.reason == "stay_fed" for fact in self.adjustments):
            return self.adjustments[0].num_workers_before, self.adjustments[0].prefetch_factor_before
        return last.num_workers, last.prefetch_factor

    @property
    def ram_pressure(self) -> bool:
        """Whether it was for want of RAM that its input was last adjusted."""
        return bool(self.adjustments) and self.adjustments[-1].reason == "ram_pressure"


def wait_share(epochs: Iterable[EpochNumbers]) -> float | None:
    """Share of the time of epochs in which training stood still for its next pack; None without epochs."""
    waited_s = worked_s = 0.0
    for epoch in epochs:
        waited_s, worked_s = waited_s + epoch.data_wait_s, worked_s + epoch.duration_s
    return waited_s / worked_s if worked_s else None


class OutOfMemory(NamedTuple):
    """Memory ran out.

    Attributes:
        kind: Failure class, as ``cuda_oom``.
        failed_graphs: Graphs of the pack that did not fit.
        fitted_graphs: Of the one that did in its place; None where nothing was tried.
        held_mib: Memory that training held; None where nobody looked.
    """

    kind: str
    failed_graphs: int
    fitted_graphs: int | None = None
    held_mib: float | None = None


@dataclass(frozen=True)
class PhaseRun:
    """One phase of one dataset in one plan, all its attempts together.

    Attributes:
        models: By name.
        ooms: In order.
        duration_s: Time of all attempts.
        completed: Whether the last one ended well.
        peak_mib: Peak memory of that one; None where it was not reached.
        attempts: Attempts begun.
        micro_batch_size: Of the last attempt.
        placement: Where it read its graphs from; empty where unknown.
        device_name: The GPU that its last attempt was given; empty where that was the plan's own device.
    """

    models: Mapping[str, ModelRun] = field(default_factory=dict)
    ooms: Sequence[OutOfMemory] = ()
    duration_s: float = 0.0
    completed: bool = False
    peak_mib: float | None = None
    attempts: int = 0
    micro_batch_size: int = 0
    placement: str = ""
    device_name: str = ""


@dataclass(frozen=True)
class PlanRecord:
    """One plan.

    Attributes:
        plan_id: The plan.
        began_s: When it was made, seconds since the epoch.
        ended_s: When anything was last measured.
        machine: As in ``PlanCreated``.
        settings: As in ``PlanCreated``.
        phases: By dataset and phase, those that were begun.
        data_digests: By dataset.
        num_train: Training graphs by dataset.
        advice: Of its last recommendation.
        judged: Effects of earlier recommendations that were found after it.
    """

    plan_id: str
    began_s: float
    ended_s: float
    machine: Mapping[str, Any]
    settings: Mapping[str, Any]
    phases: Mapping[tuple[str, str], PhaseRun]
    data_digests: Mapping[str, str]
    num_train: Mapping[str, int]
    advice: Sequence[Mapping[str, Any]] = ()
    judged: Sequence[RecommendationJudged] = ()

    @property
    def device_name(self) -> str:
        """The device it was made for."""
        return str(self.machine["device_name"])

    @property
    def day(self) -> str:
        """Day of its beginning, for people."""
        return f"{datetime.fromtimestamp(self.began_s, UTC):%Y-%m-%d}"

    @property
    def conditions(self) -> tuple[Any, ...]:
        """What measurements hold for: models, number format and torch."""
        preset = self.settings["models"]["preset"]
        return preset, self.machine["precision"], self.machine["torch_version"]

    @property
    def trained(self) -> dict[tuple[str, str], PhaseRun]:
        """Phases beyond the graphs that ended well."""
        return {key: run for key, run in self.phases.items() if key[1] != "graphs" and run.completed}

    def setting(self, name: str) -> Any:
        """A setting by its dotted name; None in plans of releases that did not have it."""
        value: Any = self.settings
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def step_graphs(self, dataset: str, model: ModelRun) -> int | None:
        """Graphs of a training step, about: models that see a part of the training graphs have fewer."""
        steps = max((epoch.num_steps for epoch in model.settled), default=0)
        num_train = self.num_train.get(dataset)
        return -(-num_train // steps) if steps and num_train else None

    def pack_graphs(self, dataset: str, model: ModelRun) -> int | None:
        """Graphs of a pack, about; as ``step_graphs``."""
        step = self.step_graphs(dataset, model)
        packs = max((epoch.num_packs or epoch.num_steps for epoch in model.settled), default=0)
        steps = max((epoch.num_steps for epoch in model.settled), default=0)
        return -(-step * steps // packs) if step and packs else None


def record_plan(events: Sequence[Event]) -> PlanRecord | None:
    """Fold a plan's events into what it measured; None where the log does not say what it set out to do."""
    found = _Builder()
    for event in events:
        if event.type in _RELEVANT:
            found.hear(event)
    if found.created is None:
        return None
    spans: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for span in fold_spans(events):
        spans[span.dataset, span.phase].append(span)
    return PlanRecord(
        plan_id=events[0].stream,
        began_s=found.began_at.timestamp(),
        ended_s=found.ended_at.timestamp(),
        machine=found.created.machine,
        settings=found.created.settings,
        phases={key: found.phase(key, attempts) for key, attempts in sorted(spans.items())},
        data_digests=found.data_digests,
        num_train=found.num_train,
        advice=found.advice,
        judged=tuple(found.judged),
    )


@dataclass
class _Builder:
    """What was heard so far."""

    created: PlanCreated | None = None
    began_at: datetime = datetime.min
    ended_at: datetime = datetime.min
    data_digests: dict[str, str] = field(default_factory=dict)
    num_train: dict[str, int] = field(default_factory=dict)
    advice: Sequence[Mapping[str, Any]] = ()
    judged: list[RecommendationJudged] = field(default_factory=list)
    started: dict[_Phase, PhaseStarted] = field(default_factory=dict)
    placements: dict[_Phase, str] = field(default_factory=dict)
    devices: dict[_Phase, str] = field(default_factory=dict)
    ooms: dict[_Phase, list[OutOfMemory]] = field(default_factory=lambda: defaultdict(list))
    epochs: dict[_Model, dict[int, EpochNumbers]] = field(default_factory=lambda: defaultdict(dict))
    binds: dict[_Model, str] = field(default_factory=dict)
    adjustments: dict[_Model, list[InputAdjusted]] = field(default_factory=lambda: defaultdict(list))

    def hear(self, event: Event) -> None:
        """Take note of one event."""
        match to_fact(event):
            case ConfigRecommended(advice=advice):
                self.advice = advice
                return
            case RecommendationJudged() as fact:
                self.judged.append(fact)
                return
            case PlanCreated() as fact:
                self.created, self.began_at = fact, event.occurred_at
            case CapturesDigested() as fact:
                self.data_digests[fact.dataset] = fact.data_digest
            case GraphsBuilt() as fact:
                self.num_train[fact.dataset] = fact.splits.get("train", 0)
            case PhaseStarted() as fact:
                self.started[fact.dataset, fact.phase] = fact
            case fact:
                self._measure(fact)
        self.ended_at = event.occurred_at

    def _measure(self, fact: Fact) -> None:
        match fact:
            case EpochFinished():
                numbers = EpochNumbers._make(_EPOCH_NUMBERS(fact))
                self.epochs[fact.dataset, fact.phase, fact.model][fact.epoch] = numbers
            case PhaseAdmitted() if fact.gpu_uuid:
                self.devices[fact.dataset, fact.phase] = fact.device_name
            case StorePlaced():
                self.placements[fact.dataset, fact.phase] = fact.placement
            case PackLimitChosen():
                self.binds[fact.dataset, fact.phase, fact.model] = fact.binds
            case InputAdjusted():
                self.adjustments[fact.dataset, fact.phase, fact.model].append(fact)
            case PackLimitChanged(reason=kind) if kind in OOM_KINDS:
                self.ooms[fact.dataset, fact.phase].append(_out_of_memory(fact))
            case PhaseFailed(kind=kind) if kind in OOM_KINDS:
                self.ooms[fact.dataset, fact.phase].append(OutOfMemory(kind, fact.micro_batch_size))
            case _:
                pass

    def phase(self, key: _Phase, attempts: Sequence[Span]) -> PhaseRun:
        """Everything about one phase."""
        started = self.started[key]
        return PhaseRun(
            models={
                name[2]: ModelRun(epochs, self.binds.get(name, ""), self.adjustments.get(name, ()))
                for name, epochs in self.epochs.items()
                if name[:2] == key
            },
            ooms=tuple(self.ooms.get(key, ())),
            duration_s=sum(span.duration_s for span in attempts),
            completed=attempts[-1].outcome == "completed",
            peak_mib=attempts[-1].peak_memory_mib,
            attempts=len(attempts),
            micro_batch_size=started.micro_batch_size,
            placement=self.placements.get(key, ""),
            device_name=self.devices.get(key, ""),
        )


def _out_of_memory(fact: PackLimitChanged) -> OutOfMemory:
    """A limit may count nodes or edges: what the new one means in graphs is its share of the old one."""
    shares = [
        fact.after[name] / before for name, before in fact.before.items() if before and name in fact.after
    ]
    share = min(shares, default=1.0)
    graphs = fact.before.get("graphs", 1)
    held_mib = max((v for v in (fact.allocated_mib, fact.reserved_mib) if v is not None), default=None)
    return OutOfMemory(fact.reason, graphs, max(1, int(graphs * share)), held_mib)


_RELEVANT = {
    fact.TYPE
    for fact in (
        PlanCreated,
        CapturesDigested,
        GraphsBuilt,
        PhaseStarted,
        PhaseFailed,
        PhaseFinished,
        PhaseAdmitted,
        StorePlaced,
        PackLimitChosen,
        PackLimitChanged,
        EpochFinished,
        InputAdjusted,
        ConfigRecommended,
        RecommendationJudged,
    )
}
