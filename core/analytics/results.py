"""What a plan came to: a pure fold of its events, written as ``{plan_id}_results.json``.

Every number here comes from an event, so deleting the file and folding again gives the same bytes.
"""

import dataclasses
import functools
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.analytics.canonical import digest, finite
from core.events import catalogue as facts
from core.events import resource_facts
from core.events.catalogue import Fact, check_known
from core.events.event import Event
from core.events.projection import Projection

Metrics = dict[str, float | int | None]


class View(BaseModel):
    """Base of the projections' records."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Failure(View):
    """One failed attempt of a phase."""

    attempt: int
    kind: str = Field(description="Failure class, for example cuda_oom.")
    message: str
    occurred_at: datetime
    micro_batch_size: int = Field(description="Graphs per forward/backward of the attempt.")


class PhaseResult(View):
    """One phase of one dataset."""

    status: Literal["pending", "skipped", "running", "completed", "failed", "blocked"] = Field(
        default="pending", description="skipped: up to date; blocked: a phase it depends on failed."
    )
    attempts: int = 0
    device: str | None = None
    precision: str | None = None
    micro_batch_size: int | None = None
    duration_s: float | None = Field(default=None, description="Of the attempt that ended well.")
    peak_memory_mib: float | None = Field(
        default=None, description="VRAM on a GPU, resident memory on a CPU."
    )
    reason: str | None = Field(default=None, description="Why the phase runs or is skipped.")
    error: str | None = Field(
        default=None, description="Why the phase ended badly; null once a retry cured it."
    )
    failures: tuple[Failure, ...] = Field(default=(), description="Every failed attempt, cured or not.")


class TrainedModel(View):
    """How one model learned."""

    last_epoch: int
    best_epoch: int | None = Field(description="Epoch of the lowest validation loss.")
    best_val_loss: float | None
    graphs_per_s: float | None = Field(description="Throughput of the last epoch.")


class SavedModel(View):
    """The models file of one phase."""

    path: str
    sha256: str
    data_digest: str
    settings_digest: str
    parent_sha256: str
    num_parameters: dict[str, int]


class Threshold(View):
    """An alarm threshold, calibrated on validation data."""

    value: float | None
    val_mcc: float | None


class GraphsSummary(View):
    """The graph store of a dataset."""

    graphs_digest: str
    split_digest: str
    num_frames: int
    num_graphs: int
    num_nodes: int
    num_edges: int
    num_attack_graphs: int
    splits: dict[str, int]
    duration_s: float | None
    cached: bool


class Quarantine(View):
    """Rows of one capture that were put aside."""

    num_rows: int
    num_frames: int
    reasons: dict[str, int]


class DatasetResult(View):
    """One dataset's chain."""

    status: Literal["pending", "running", "completed", "failed", "up_to_date"] = "pending"
    duration_s: float | None = None
    data_digest: str | None = None
    graphs: GraphsSummary | None = None
    quarantine: dict[str, Quarantine] = Field(default={}, description="By capture.")
    refused_captures: dict[str, str] = Field(default={}, description="Reason by capture.")
    shared_captures: tuple[dict[str, Any], ...] = Field(
        default=(), description="Captures whose bytes serve training and test: results are not independent."
    )
    phases: dict[str, PhaseResult] = {}
    training: dict[str, TrainedModel] = Field(default={}, description="By model.")
    models: dict[str, SavedModel] = Field(default={}, description="By phase.")
    thresholds: dict[str, Threshold] = Field(default={}, description="By model.")
    metrics: dict[str, dict[str, Metrics]] = Field(
        default={}, description="By model and test folder; null where a metric is undefined."
    )


class Recommendation(View):
    """Settings for the next plan."""

    device_name: str
    settings: dict[str, Any]
    reasons: tuple[str, ...]
    advice: tuple[dict[str, Any], ...] = Field(
        default=(), description="Every setting to change: what was found, on what it rests, what it promises."
    )


class ModelBottleneck(View):
    """What kept the training of one model from being faster, as ``core.resources.verdict`` judges."""

    dataset: str
    phase: str
    model: str
    bottleneck: str = Field(
        description="data_wait, launch_bound, compute_bound, memory_bound, idle or unknown."
    )
    cause: str = Field(description="What exactly, in a word.")
    reason: str = Field(description="The measurements that led to it.")
    change: str = Field(description="What to change, naming settings; empty where nothing is known to help.")
    settings: tuple[str, ...] = Field(description="The settings that `change` names.")
    numbers: dict[str, float | int | str] = Field(description="What was measured, shares from 0 to 1.")
    missing: tuple[str, ...] = Field(description="What would have had to be measured for a verdict.")


class RetrainingResults(View):
    """What a plan came to."""

    plan_id: str = ""
    status: Literal["unfinished", "completed", "failed"] = "unfinished"
    started_at: datetime | None = None
    finished_at: datetime | None = None
    num_resumes: int = 0
    duration_s: float | None = None
    machine: dict[str, Any] = {}
    settings_digest: str | None = None
    datasets: dict[str, DatasetResult] = {}
    recommendation: Recommendation | None = None
    judged: tuple[dict[str, Any], ...] = Field(
        default=(), description="What earlier recommendations that the plan went by came to."
    )
    bottlenecks: tuple[ModelBottleneck, ...] = Field(
        default=(), description="By dataset, phase and model; needs the plan's resource samples."
    )


class RetrainingPlan(View):
    """What a plan set out to do, written as ``{plan_id}_plan.json``."""

    plan_id: str
    created_at: datetime
    force: bool
    steps: tuple[dict[str, Any], ...]
    machine: dict[str, Any]
    settings: dict[str, Any]
    settings_digest: str


def fold_results(events: Iterable[Event]) -> RetrainingResults:
    """Fold a plan's events, in order, into its results; a plan that is not finished folds too.

    Raises:
        UnknownEventError: An event is newer than this software.
    """
    return RESULTS.fold(events)


def fold_plan(events: Iterable[Event]) -> RetrainingPlan | None:
    """Find what the plan set out to do; None where the log holds no ``PlanCreated``."""
    for event in events:
        if event.type == facts.PlanCreated.TYPE:
            payload = finite(event.payload)
            return RetrainingPlan(
                plan_id=event.stream,
                created_at=event.occurred_at,
                settings_digest=digest(payload["settings"]),
                **{name: payload[name] for name in ("force", "steps", "machine", "settings")},
            )
    return None


def _apply(results: RetrainingResults, event: Event) -> RetrainingResults:
    cls = check_known(event.type, event.version, f"event {event.position} of plan {event.stream}")
    if results.plan_id != event.stream:
        results = results.model_copy(update={"plan_id": event.stream})
    if cls not in _step.registry:
        return results
    return _step(cls(**finite(event.payload)), results, event)


RESULTS = Projection(initial=RetrainingResults(), apply=_apply)


@functools.singledispatch
def _step(fact: Fact, results: RetrainingResults, event: Event) -> RetrainingResults:
    """One event's effect; most types have none."""
    return results


@_step.register
def _(fact: facts.PlanCreated, results: RetrainingResults, event: Event) -> RetrainingResults:
    for step in fact.steps:
        skipped = step.get("action") == "skip"
        phase = PhaseResult(status="skipped" if skipped else "pending", reason=step.get("reason"))
        results = _with_phase(results, step["dataset"], step["phase"], **dict(phase))
    for name, dataset in results.datasets.items():
        if all(phase.status == "skipped" for phase in dataset.phases.values()):
            results = _with_dataset(results, name, status="up_to_date")
    return results.model_copy(
        update={
            "started_at": event.occurred_at,
            "machine": fact.machine,
            "settings_digest": digest(fact.settings),
        }
    )


@_step.register
def _(fact: facts.PlanResumed, results: RetrainingResults, event: Event) -> RetrainingResults:
    return results.model_copy(
        update={
            "status": "unfinished",
            "finished_at": None,
            "duration_s": None,
            "num_resumes": results.num_resumes + 1,
        }
    )


@_step.register
def _(fact: facts.PlanFinished, results: RetrainingResults, event: Event) -> RetrainingResults:
    return results.model_copy(
        update={"status": fact.status, "finished_at": event.occurred_at, "duration_s": fact.duration_s}
    )


@_step.register
def _(fact: resource_facts.ConfigRecommended, results: RetrainingResults, event: Event) -> RetrainingResults:
    recommendation = Recommendation(
        device_name=fact.device_name,
        settings=fact.settings,
        reasons=tuple(fact.reasons),
        advice=tuple(fact.advice),
    )
    return results.model_copy(update={"recommendation": recommendation})


@_step.register
def _(
    fact: resource_facts.RecommendationJudged, results: RetrainingResults, event: Event
) -> RetrainingResults:
    return results.model_copy(update={"judged": (*results.judged, dataclasses.asdict(fact))})


@_step.register
def _(fact: facts.ChainStarted, results: RetrainingResults, event: Event) -> RetrainingResults:
    return _with_dataset(results, fact.dataset, status="running", duration_s=None)


@_step.register
def _(fact: facts.ChainFinished, results: RetrainingResults, event: Event) -> RetrainingResults:
    return _with_dataset(results, fact.dataset, status=fact.status, duration_s=fact.duration_s)


@_step.register
def _(fact: facts.CapturesDigested, results: RetrainingResults, event: Event) -> RetrainingResults:
    return _with_dataset(results, fact.dataset, data_digest=fact.data_digest)


@_step.register
def _(fact: facts.SharedCapturesFound, results: RetrainingResults, event: Event) -> RetrainingResults:
    return _with_dataset(results, fact.dataset, shared_captures=tuple(fact.captures))


@_step.register
def _(fact: facts.RowsQuarantined, results: RetrainingResults, event: Event) -> RetrainingResults:
    rows = Quarantine(num_rows=fact.num_rows, num_frames=fact.num_frames, reasons=fact.reasons)
    return _with_entry(results, fact.dataset, "quarantine", fact.path, rows)


@_step.register
def _(fact: facts.CaptureRefused, results: RetrainingResults, event: Event) -> RetrainingResults:
    return _with_entry(results, fact.dataset, "refused_captures", fact.path, fact.reason)


@_step.register
def _(fact: facts.GraphsBuilt, results: RetrainingResults, event: Event) -> RetrainingResults:
    graphs = GraphsSummary(**{name: getattr(fact, name) for name in GraphsSummary.model_fields})
    return _with_dataset(results, fact.dataset, graphs=graphs)


@_step.register
def _(fact: facts.PhaseStarted, results: RetrainingResults, event: Event) -> RetrainingResults:
    return _with_phase(
        results,
        fact.dataset,
        fact.phase,
        status="running",
        attempts=_phase(results, fact.dataset, fact.phase).attempts + 1,
        device=fact.device,
        precision=fact.precision,
        micro_batch_size=fact.micro_batch_size,
    )


@_step.register
def _(fact: facts.PhaseSkipped, results: RetrainingResults, event: Event) -> RetrainingResults:
    return _with_phase(results, fact.dataset, fact.phase, status="blocked", reason=fact.reason)


@_step.register
def _(fact: facts.PhaseFinished, results: RetrainingResults, event: Event) -> RetrainingResults:
    return _with_phase(
        results,
        fact.dataset,
        fact.phase,
        status="completed",
        duration_s=fact.duration_s,
        peak_memory_mib=fact.peak_memory_mib,
        error=None,
    )


@_step.register
def _(fact: facts.PhaseFailed, results: RetrainingResults, event: Event) -> RetrainingResults:
    failure = Failure(
        attempt=fact.attempt,
        kind=fact.kind,
        message=fact.message,
        occurred_at=event.occurred_at,
        micro_batch_size=fact.micro_batch_size,
    )
    return _with_phase(
        results,
        fact.dataset,
        fact.phase,
        status="failed",
        error=f"{fact.kind}: {fact.message}",
        failures=(*_phase(results, fact.dataset, fact.phase).failures, failure),
    )


@_step.register
def _(fact: facts.EpochFinished, results: RetrainingResults, event: Event) -> RetrainingResults:
    # A retry starts over or from a checkpoint: an epoch that comes again replaces what it was.
    before = results.datasets.get(fact.dataset, DatasetResult()).training.get(fact.model)
    if before is None or fact.epoch <= (before.best_epoch or 0):
        best_epoch, best_loss = None, None
    else:
        best_epoch, best_loss = before.best_epoch, before.best_val_loss
    val_loss: float | None = fact.val_loss
    if val_loss is not None and (best_loss is None or val_loss < best_loss):
        best_epoch, best_loss = fact.epoch, val_loss
    model = TrainedModel(
        last_epoch=fact.epoch, best_epoch=best_epoch, best_val_loss=best_loss, graphs_per_s=fact.graphs_per_s
    )
    return _with_entry(results, fact.dataset, "training", fact.model, model)


@_step.register
def _(fact: facts.ModelSaved, results: RetrainingResults, event: Event) -> RetrainingResults:
    saved = SavedModel(**{name: getattr(fact, name) for name in SavedModel.model_fields})
    return _with_entry(results, fact.dataset, "models", fact.phase, saved)


@_step.register
def _(fact: facts.ThresholdCalibrated, results: RetrainingResults, event: Event) -> RetrainingResults:
    threshold = Threshold(value=fact.threshold, val_mcc=fact.val_mcc)
    return _with_entry(results, fact.dataset, "thresholds", fact.model, threshold)


@_step.register
def _(fact: facts.ModelEvaluated, results: RetrainingResults, event: Event) -> RetrainingResults:
    folders = results.datasets.get(fact.dataset, DatasetResult()).metrics.get(fact.model, {})
    return _with_entry(
        results, fact.dataset, "metrics", fact.model, {**folders, fact.folder: dict(fact.metrics)}
    )


def _phase(results: RetrainingResults, dataset: str, phase: str) -> PhaseResult:
    return results.datasets.get(dataset, DatasetResult()).phases.get(phase, PhaseResult())


def _with_phase(results: RetrainingResults, dataset: str, phase: str, **changes: Any) -> RetrainingResults:
    changed = _phase(results, dataset, phase).model_copy(update=changes)
    return _with_entry(results, dataset, "phases", phase, changed)


def _with_entry(
    results: RetrainingResults, dataset: str, table: str, key: str, entry: Any
) -> RetrainingResults:
    entries = getattr(results.datasets.get(dataset, DatasetResult()), table)
    return _with_dataset(results, dataset, **{table: {**entries, key: entry}})


def _with_dataset(results: RetrainingResults, dataset: str, **changes: Any) -> RetrainingResults:
    changed = results.datasets.get(dataset, DatasetResult()).model_copy(update=changes)
    return results.model_copy(update={"datasets": {**results.datasets, dataset: changed}})
