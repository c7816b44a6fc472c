"""One plan in a few numbers: what the page of all plans needs of each, a pure fold of its events.

GPU utilisation and memory peaks come from events (epochs and phases measure them), so nobody has to read the
resource samples of a thousand plans to compare devices.
"""

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from core.analytics.canonical import finite
from core.events.catalogue import (
    ChainFinished,
    ChainStarted,
    EpochFinished,
    GraphsBuilt,
    ModelEvaluated,
    PhaseFailed,
    PhaseFinished,
    PhaseSkipped,
    PhaseStarted,
    PlanCreated,
    PlanFinished,
    PlanResumed,
    to_fact,
)
from core.events.event import Event
from core.events.resource_facts import ConfigRecommended, PackLimitChanged, RecommendationJudged
from core.resources.failures import OOM_KINDS

DETECTORS = ("student_vgae", "student_gat", "fusion")
"""Models that are meant for use in a vehicle."""

PlanStatus = Literal["completed", "failed", "interrupted", "unfinished"]
AFTERWARDS = {ConfigRecommended.TYPE, RecommendationJudged.TYPE}
"""Said of a plan, not work on it."""


@dataclass(frozen=True, kw_only=True)
class PlanSummary:
    """One plan; None is what its log does not tell.

    Attributes:
        plan_id: The plan.
        status: ``unfinished`` while its end is not in the log.
        began_at: When it was made, UTC.
        ended_at: When anything last happened in it, UTC.
        worked_s: Time worked on it, without the pauses before it was taken up again.
        machine: As in ``PlanCreated``.
        preset: Which models it trains.
        cost_per_hour: Price of an hour of its machine; 0 where none is set.
        datasets: Status by dataset: ``pending``, ``running``, ``completed``, ``failed`` or ``up_to_date``.
        num_phases: Phases it set out to do.
        num_done: Those that ended well.
        num_attempts: Attempts of phases.
        num_resumes: Times it was taken up again.
        recovered: Failed attempts by class that a later one made good.
        lost: Failed attempts by class of phases that failed for good.
        num_shortages: Times memory ran out within a step, which was done again with less.
        num_frames: Frames read.
        num_graphs: Graphs built or found.
        graphs_per_s: Median throughput by model.
        mcc: By dataset: of its best student or fusion model, mean over labelled test folders.
        gpu_percent: Mean GPU utilisation in training.
        peak_memory_mib: Highest peak of a training process: of VRAM on a GPU.
        num_advised: Settings that were recommended to change after it.
        num_judged: Earlier recommendations that it went by and that were judged.
        num_helped: Those among them that helped.
    """

    plan_id: str
    status: PlanStatus
    began_at: datetime
    ended_at: datetime
    worked_s: float
    machine: Mapping[str, Any]
    preset: str
    cost_per_hour: float
    datasets: Mapping[str, str]
    num_phases: int
    num_done: int
    num_attempts: int
    num_resumes: int
    recovered: Mapping[str, int]
    lost: Mapping[str, int]
    num_shortages: int
    num_frames: int
    num_graphs: int
    graphs_per_s: Mapping[str, float]
    mcc: Mapping[str, float]
    gpu_percent: float | None
    peak_memory_mib: float | None
    num_advised: int
    num_judged: int
    num_helped: int

    @property
    def device_name(self) -> str:
        """The device it was made for."""
        return str(self.machine.get("device_name") or "unknown device")

    @property
    def cost(self) -> float | None:
        """What its time cost; None where no price is set."""
        return self.worked_s / 3600 * self.cost_per_hour if self.cost_per_hour > 0 else None

    @property
    def failures(self) -> Mapping[str, int]:
        """Failed attempts by class, got over or not."""
        return Counter(self.recovered) + Counter(self.lost)

    @property
    def memory_total_mib(self) -> float | None:
        """Memory that its peak is to be held against."""
        gpus = self.machine.get("gpus") or ()
        owner, name = (
            (gpus[0], "vram_total_mib")
            if self.machine.get("device") == "cuda" and gpus
            else (self.machine, "ram_total_mib")
        )
        total = owner.get(name)
        return float(total) if total else None


def summarize_plan(events: Sequence[Event]) -> PlanSummary | None:
    """Fold a plan's events, in order, into a summary; an unfinished plan folds too.

    Returns:
        None where there are no events at all.

    Raises:
        UnknownEventError: A newer release wrote one of the events.
        DamagedLogError: An event has other fields than its type.
    """
    if not events:
        return None
    plan = _Plan(events[0].occurred_at)
    for event in events:
        if event.type not in AFTERWARDS:
            plan.hear(event)
        if step := _STEPS.get(event.type):
            step(plan, to_fact(event))
    return plan.summary(events[0].stream)


@dataclass
class _Phase:
    status: str = "pending"
    kinds: list[str] = field(default_factory=list)
    attempts: int = 0


@dataclass
class _Plan:
    """What was heard so far."""

    began_at: datetime
    ended_at: datetime = field(init=False)
    worked_s: float = 0.0
    status: PlanStatus = "unfinished"
    machine: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    phases: dict[tuple[str, str], _Phase] = field(default_factory=lambda: defaultdict(_Phase))
    chains: dict[str, str] = field(default_factory=dict)
    graphs: dict[str, tuple[int, int]] = field(default_factory=dict)
    speeds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    mcc: dict[str, dict[str, dict[str, float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(dict))
    )
    busy: list[tuple[float, float]] = field(default_factory=list)  # GPU percent and seconds
    peaks_mib: list[float] = field(default_factory=list)
    num_resumes: int = 0
    num_shortages: int = 0
    num_advised: int = 0
    num_judged: int = 0
    num_helped: int = 0

    def __post_init__(self) -> None:
        self.ended_at = self.began_at

    def hear(self, event: Event) -> None:
        """Note the time."""
        if event.type != PlanResumed.TYPE:  # nobody worked on it before that
            # A clock that was set back has measured nothing.
            self.worked_s += max(0.0, (event.occurred_at - self.ended_at).total_seconds())
        self.ended_at = event.occurred_at

    def summary(self, plan_id: str) -> PlanSummary:
        """All of it."""
        phases = self.phases.values()
        due = [phase for phase in phases if phase.status != "skipped"]
        models = self.settings.get("models") or {}
        resources = self.settings.get("resources") or {}
        weight_s = sum(seconds for _, seconds in self.busy)
        return PlanSummary(
            plan_id=plan_id,
            status=self.status,
            began_at=self.began_at,
            ended_at=max(self.began_at, self.ended_at),
            worked_s=self.worked_s,
            machine=self.machine,
            preset=str(models.get("preset") or ""),
            cost_per_hour=float(resources.get("cost_per_hour") or 0.0),
            datasets=self._datasets(),
            num_phases=len(due),
            num_done=sum(phase.status == "completed" for phase in due),
            num_attempts=sum(phase.attempts for phase in phases),
            num_resumes=self.num_resumes,
            recovered=_kinds(phase for phase in phases if phase.status == "completed"),
            lost=_kinds(phase for phase in phases if phase.status != "completed"),
            num_shortages=self.num_shortages,
            num_frames=sum(frames for frames, _ in self.graphs.values()),
            num_graphs=sum(graphs for _, graphs in self.graphs.values()),
            graphs_per_s={model: statistics.median(speeds) for model, speeds in sorted(self.speeds.items())},
            mcc={
                dataset: max(statistics.fmean(folders.values()) for folders in models.values())
                for dataset, models in self.mcc.items()
            },
            gpu_percent=sum(p * s for p, s in self.busy) / weight_s if weight_s else None,
            peak_memory_mib=max(self.peaks_mib, default=None),
            num_advised=self.num_advised,
            num_judged=self.num_judged,
            num_helped=self.num_helped,
        )

    def _datasets(self) -> dict[str, str]:
        skipped: dict[str, bool] = {}
        for (dataset, _), phase in self.phases.items():
            skipped[dataset] = skipped.get(dataset, True) and phase.status == "skipped"
        names = dict.fromkeys([*skipped, *self.chains])
        return {
            name: self.chains.get(name, "up_to_date" if skipped.get(name) else "pending") for name in names
        }


def _kinds(phases: Iterable[_Phase]) -> dict[str, int]:
    return dict(sorted(Counter(kind for phase in phases for kind in phase.kinds).items()))


def _created(plan: _Plan, fact: PlanCreated) -> None:
    plan.machine, plan.settings = fact.machine, fact.settings
    for step in fact.steps:
        skipped = step.get("action") == "skip"
        plan.phases[step["dataset"], step["phase"]].status = "skipped" if skipped else "pending"


def _resumed(plan: _Plan, fact: PlanResumed) -> None:
    plan.status, plan.num_resumes = "unfinished", plan.num_resumes + 1


def _finished(plan: _Plan, fact: PlanFinished) -> None:
    plan.status = "completed" if fact.status == "completed" else "failed"


def _chain_started(plan: _Plan, fact: ChainStarted) -> None:
    plan.chains[fact.dataset] = "running"


def _chain_finished(plan: _Plan, fact: ChainFinished) -> None:
    plan.chains[fact.dataset] = fact.status


def _built(plan: _Plan, fact: GraphsBuilt) -> None:
    plan.graphs[fact.dataset] = fact.num_frames, fact.num_graphs


def _phase(plan: _Plan, fact: PhaseStarted | PhaseSkipped | PhaseFinished | PhaseFailed) -> _Phase:
    return plan.phases[fact.dataset, fact.phase]


def _phase_started(plan: _Plan, fact: PhaseStarted) -> None:
    phase = _phase(plan, fact)
    phase.status, phase.attempts = "running", phase.attempts + 1


def _phase_skipped(plan: _Plan, fact: PhaseSkipped) -> None:
    _phase(plan, fact).status = "blocked"


def _phase_finished(plan: _Plan, fact: PhaseFinished) -> None:
    _phase(plan, fact).status = "completed"
    if peak_mib := finite(fact.peak_memory_mib):
        plan.peaks_mib.append(peak_mib)


def _phase_failed(plan: _Plan, fact: PhaseFailed) -> None:
    phase = _phase(plan, fact)
    phase.status = "failed"
    phase.kinds.append(fact.kind)


def _epoch(plan: _Plan, fact: EpochFinished) -> None:
    if speed := finite(fact.graphs_per_s):
        plan.speeds[fact.model].append(speed)
    if (percent := finite(fact.gpu_percent)) is not None:
        plan.busy.append((percent, finite(fact.duration_s) or 0.0))


def _evaluated(plan: _Plan, fact: ModelEvaluated) -> None:
    mcc = finite(fact.metrics.get("mcc"))
    if fact.model in DETECTORS and mcc is not None:
        plan.mcc[fact.dataset][fact.model][fact.folder] = mcc


def _pack_limit(plan: _Plan, fact: PackLimitChanged) -> None:
    plan.num_shortages += fact.reason in OOM_KINDS


def _recommended(plan: _Plan, fact: ConfigRecommended) -> None:
    plan.num_advised = sum(item["value"] != item["before"] for item in fact.advice)


def _judged(plan: _Plan, fact: RecommendationJudged) -> None:
    plan.num_judged += 1
    plan.num_helped += bool(fact.helped)


_STEPS: Mapping[str, Callable[[_Plan, Any], None]] = {
    PlanCreated.TYPE: _created,
    PlanResumed.TYPE: _resumed,
    PlanFinished.TYPE: _finished,
    ChainStarted.TYPE: _chain_started,
    ChainFinished.TYPE: _chain_finished,
    GraphsBuilt.TYPE: _built,
    PhaseStarted.TYPE: _phase_started,
    PhaseSkipped.TYPE: _phase_skipped,
    PhaseFinished.TYPE: _phase_finished,
    PhaseFailed.TYPE: _phase_failed,
    EpochFinished.TYPE: _epoch,
    ModelEvaluated.TYPE: _evaluated,
    PackLimitChanged.TYPE: _pack_limit,
    ConfigRecommended.TYPE: _recommended,
    RecommendationJudged.TYPE: _judged,
}
