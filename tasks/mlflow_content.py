"""What MLflow is to show of a plan: a pure fold of its events, with no MLflow in it."""

import hashlib
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from core.analytics.recommendations import config_yaml
from core.analytics.results import fold_results
from core.events.catalogue import (
    CapturesDigested,
    ChainFinished,
    ChainStarted,
    EpochFinished,
    Fact,
    GraphsBuilt,
    ModelEvaluated,
    ModelSaved,
    PhaseFailed,
    PhaseFinished,
    PhaseSkipped,
    PhaseStarted,
    PlanCreated,
    PlanFinished,
    PlanResumed,
    ThresholdCalibrated,
    to_fact,
)
from core.events.event import Event
from core.events.resource_facts import (
    ConfigRecommended,
    InputAdjusted,
    PackLimitChanged,
    PackLimitChosen,
    RecommendationJudged,
    StorePlaced,
)
from tasks.mlflow_notes import run_note

RECOMMENDED = "recommended."
"""Begins the names of tags with recommended settings."""
_SOURCE = "mlflow.source."
_STATUS = {"completed": "FINISHED", "failed": "FAILED"}
_LEARNING = {
    "train_loss": "train_loss",
    "val_loss": "val_loss",
    "val_metric": "val_mcc",
    "learning_rate": "learning_rate",
}
"""Curves of an epoch that say how a model learned; what MLflow shows them as."""
_SPEED = (
    "graphs_per_s",
    "duration_s",
    "validation_s",
    "data_wait_s",
    "data_load_s",
    "num_packs",
    "num_workers",
    "prefetch_factor",
    "num_adjustments",
    "gpu_percent",
    "ram_percent",
)
"""Curves of an epoch that say how fast, and with what; a group of their own in MLflow."""
_OPTIMUM = ("num_workers", "prefetch_factor")
"""What the adaptive optimizer arrived at by the end of a phase."""
_ADJUSTMENT = (
    "epoch",
    "num_workers",
    "prefetch_factor",
    "gpu_percent",
    "ram_percent",
    "data_wait_s",
    "data_load_s",
    "compute_s",
)
_MAX_PART, _MAX_TEXT = 100, 5000


@dataclass(frozen=True)
class Point:
    """One value of one metric.

    Attributes:
        name: The metric.
        value: Its value.
        at_ms: When it was measured, in milliseconds since the epoch.
        step: Its place on the curve.
        position: Of the event that holds it.
    """

    name: str
    value: float
    at_ms: int
    step: int
    position: int = -1


@dataclass(frozen=True)
class Captures:
    """What a run learned from or was tested on.

    Attributes:
        name: The dataset.
        digest: Of its captures.
        folder: Where they were.
        num_captures: How many there were.
        num_bytes: Their size.
        used_for: ``training``, or ``evaluation`` by a run that only tests.
    """

    name: str
    digest: str
    folder: str
    num_captures: int
    num_bytes: int
    used_for: str = "training"


@dataclass
class RunContent:
    """What one MLflow run is to hold.

    Attributes:
        name: Shown name.
        parent: Key of the run it is nested in; empty for the plan's.
        began_ms: Start, in milliseconds since the epoch.
        status: ``RUNNING``, ``FINISHED`` or ``FAILED``.
        ended_ms: End; None while it is running.
        params: Parameters; they never change.
        tags: Tags; these may.
        points: Curves and metrics, in the log's order.
        note: What it is, in words.
        texts: Artifacts made from events: file name -> content.
        model: The last model file that was saved.
        captures: What it read.
    """

    name: str
    parent: str
    began_ms: int
    status: str = "RUNNING"
    ended_ms: int | None = None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    note: str = ""
    texts: dict[str, str] = field(default_factory=dict)
    model: ModelSaved | None = None
    captures: tuple[Captures, ...] = ()

    def say(self, **tags: object) -> None:
        """Set tags of our own."""
        self.tags.update({f"can_retrain.{name}": str(value)[:_MAX_TEXT] for name, value in tags.items()})

    def measure(self, event: Event, step: int, values: Mapping[str, float | int | None]) -> None:
        """Add metrics of one event; those without a value are left out."""
        self.points += [
            Point(name, float(value), ms(event), step, event.position)
            for name, value in values.items()
            if value is not None
        ]

    def end(self, status: str, event: Event) -> None:
        """End the run with an event."""
        self.status, self.ended_ms = status, ms(event)

    def go_on(self) -> None:
        """Begin the run again."""
        self.status, self.ended_ms = "RUNNING", None


def fold_content(events: Iterable[Event]) -> dict[str, RunContent]:
    """Say what MLflow is to show of one plan.

    Args:
        events: All events of the plan, in order.

    Returns:
        Runs by key ``plan``, ``plan/dataset`` and ``plan/dataset/phase``, parents first.

    Raises:
        UnknownEventError: A newer release wrote one of them.
    """
    events = list(events)
    runs: dict[str, RunContent] = {}
    for event in events:
        _apply(runs, event)
    results = fold_results(events)
    for run in runs.values():
        above = runs.get(run.parent, run)
        levels = _levels(runs, run)
        used_for = "evaluation" if levels[1:] == ["evaluation"] else "training"
        run.captures = run.captures or tuple(replace(c, used_for=used_for) for c in above.captures)
        run.tags |= {name: value for name, value in above.tags.items() if name.startswith(_SOURCE)}
        run.note = run_note(results, *levels)
    for plan in (run for run in runs.values() if not run.parent):
        plan.captures = tuple(
            read for run in runs.values() if runs.get(run.parent) is plan for read in run.captures
        )
    return runs


def _levels(runs: Mapping[str, RunContent], run: RunContent) -> list[str]:
    """The dataset and the phase of a run, as far as it has them."""
    return [*_levels(runs, runs[run.parent]), run.name] if run.parent else []


def ms(event: Event) -> int:
    """When an event happened, in milliseconds since the epoch."""
    return int(event.occurred_at.timestamp() * 1000)


def _run(runs: dict[str, RunContent], event: Event, *levels: str) -> RunContent:
    """The run that an event belongs to, begun by it if it is the first."""
    parts = [event.stream, *(str(event.payload[level]) for level in levels if level in event.payload)]
    for depth in range(1, len(parts) + 1):
        key, parent = "/".join(parts[:depth]), "/".join(parts[: depth - 1])
        runs.setdefault(key, RunContent(parts[depth - 1], parent, ms(event)))
    return runs["/".join(parts)]


def _apply(runs: dict[str, RunContent], event: Event) -> None:
    fact = to_fact(event)
    if isinstance(fact, PhaseSkipped):  # it never ran: no run of its own
        _run(runs, event, "dataset").say(**{f"not_reached.{fact.phase}": fact.reason})
        return
    run = _run(runs, event, "dataset", "phase")
    _apply_course(run, fact, event)
    _apply_results(run, fact, event)
    _apply_resources(run, fact, event)


def _apply_course(run: RunContent, fact: Fact, event: Event) -> None:
    """How plans, chains and phases begin, go on and end."""
    match fact:
        case PlanCreated():
            run.params = {name: str(value)[:_MAX_TEXT] for name, value in flat(fact.settings)}
            run.say(plan=event.stream, forced=fact.force)
            run.say(**{f"machine.{name}": value for name, value in fact.machine.items()})
            run.tags |= _source(fact.machine.get("code_commit", ""))
        case PlanResumed() | ChainStarted():
            run.go_on()
        case PhaseStarted():
            run.go_on()
            run.say(device=fact.device, precision=fact.precision, micro_batch_size=fact.micro_batch_size)
            run.say(attempts=fact.attempt, retries=fact.attempt - 1)
            run.say(begun_with_num_workers=fact.num_workers, begun_with_prefetch_factor=fact.prefetch_factor)
            run.say(choices="\n".join(fact.choices or ()))
        case PhaseFailed():
            run.end("FAILED", event)
            run.say(failure=fact.kind, failure_message=fact.message)
        case PhaseFinished():
            run.end("FINISHED", event)
            values = {"duration_s": fact.duration_s, "peak_memory_mib": fact.peak_memory_mib}
            run.measure(event, fact.attempt, values)
        case PlanFinished() | ChainFinished():
            run.end(_STATUS[fact.status], event)
            run.measure(event, 0, {"duration_s": fact.duration_s})
        case _:
            pass


def _apply_results(run: RunContent, fact: Fact, event: Event) -> None:
    """What was measured, made and learned."""
    match fact:
        case CapturesDigested():
            run.say(data_digest=fact.data_digest)
            run.captures = (_captures(fact),)
        case GraphsBuilt():
            run.say(graphs_digest=fact.graphs_digest, split_digest=fact.split_digest)
            counts = {name: getattr(fact, name) for name in ("num_frames", "num_graphs", "num_attack_graphs")}
            run.measure(event, 0, counts)
        case EpochFinished():
            run.measure(
                event,
                fact.epoch,
                {metric_name(fact.model, shown): getattr(fact, name) for name, shown in _LEARNING.items()}
                | {metric_name(fact.model, "speed", name): getattr(fact, name) for name in _SPEED},
            )
            arrived = {metric_name(fact.model, name): getattr(fact, name) for name in _OPTIMUM}
            run.say(**{name: value for name, value in arrived.items() if value is not None})
        case ModelSaved():
            run.model = fact
            run.say(model_file=fact.path, model_sha256=fact.sha256, parent_sha256=fact.parent_sha256)
            run.say(data_digest=fact.data_digest, settings_digest=fact.settings_digest)
            sizes = {
                metric_name(model, "summary", "num_parameters"): n for model, n in fact.num_parameters.items()
            }
            run.measure(event, 0, sizes)
        case ThresholdCalibrated():
            run.measure(
                event,
                0,
                {
                    metric_name(fact.model, "summary", "threshold"): fact.threshold,
                    metric_name(fact.model, "summary", "calibrated_val_mcc"): fact.val_mcc,
                },
            )
        case ModelEvaluated():
            named = {metric_name(fact.model, fact.folder, name): v for name, v in fact.metrics.items()}
            run.measure(event, 0, named)
        case ConfigRecommended():
            run.tags = {name: v for name, v in run.tags.items() if not name.startswith(RECOMMENDED)}
            run.tags |= {f"{RECOMMENDED}{name}": str(v)[:_MAX_TEXT] for name, v in flat(fact.settings)}
            run.texts["recommended_settings.yaml"] = config_yaml(fact, event.stream)
        case _:
            pass


def _apply_resources(run: RunContent, fact: Fact, event: Event) -> None:
    """How memory and input were dealt with."""
    match fact:
        case StorePlaced():
            run.say(placement=fact.placement)
        case PackLimitChosen(limit=limit) | PackLimitChanged(after=limit):
            run.say(**{metric_name(fact.model, "pack_limit"): json.dumps(limit, sort_keys=True)})
        case InputAdjusted():
            # Curves by the number of the adjustment: several may fall into one epoch.
            names = {name: metric_name(fact.model, "adjustment", name) for name in _ADJUSTMENT}
            number = sum(point.name == names["epoch"] for point in run.points)
            run.measure(event, number, {shown: getattr(fact, name) for name, shown in names.items()})
        case RecommendationJudged():
            verdict = "helped" if fact.helped else "did not help"
            measured = f"{fact.metric} {fact.before} -> {fact.after}"
            run.say(**{f"judged.{fact.setting}": f"{fact.value} {verdict}: {measured}"})
        case _:
            pass


def _captures(fact: CapturesDigested) -> Captures:
    folders = [str(PurePosixPath(row["path"]).parent) for row in fact.captures]
    try:
        folder = posixpath.commonpath(folders)
    except ValueError:  # none, or some absolute and some not
        folder = ""
    num_bytes = sum(row["num_bytes"] for row in fact.captures)
    return Captures(fact.dataset, fact.data_digest, folder, len(fact.captures), num_bytes)


def _source(commit: str) -> dict[str, str]:
    """What MLflow shows as a run's source."""
    tags = {f"{_SOURCE}name": "flows.retrain", f"{_SOURCE}type": "LOCAL"}
    if commit:
        tags[f"{_SOURCE}git.commit"] = commit.removesuffix("-dirty")
        tags[f"{_SOURCE}git.dirty"] = str(commit.endswith("-dirty"))
    return tags


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings by dotted name."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def metric_name(*parts: str) -> str:
    """A metric's name from parts that may hold anything, such as folders: MLflow allows few characters.

    A part that had to be changed ends in a digest of what it was, so that no two become one.
    """
    return "/".join(allowed_name(part) for part in parts)


def allowed_name(part: str) -> str:
    """A text as part of a name in MLflow; see `metric_name`."""
    allowed = re.sub(r"[^\w.\- ]", "_", part)[:_MAX_PART]
    if allowed == part and allowed.strip("."):
        return part
    return f"{allowed.strip('.')}_{hashlib.sha256(part.encode()).hexdigest()[:8]}"
