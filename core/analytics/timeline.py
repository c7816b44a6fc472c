"""What happened when: attempts of phases, epochs and what befell them, as rows for charts and estimates."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from core.analytics.canonical import finite
from core.events.catalogue import (
    EpochFinished,
    PhaseFailed,
    PhaseFinished,
    PhaseStarted,
    PlanFinished,
    PlanResumed,
    to_fact,
)
from core.events.event import Event
from core.events.resource_facts import InputAdjusted, PackLimitChanged, PackLimitChosen


@dataclass(frozen=True)
class Span:
    """One attempt of a phase.

    Attributes:
        dataset: Whose.
        phase: A phase of the chain.
        attempt: 1 for the first.
        device: ``cpu`` or ``cuda``.
        started_at: UTC.
        ended_at: UTC; of the last word heard where the end is not in the log.
        outcome: ``interrupted`` where a resume or a new attempt shows that it was cut off.
        error: Failure class and message; empty where nothing failed.
        peak_memory_mib: Of a finished attempt.
    """

    dataset: str
    phase: str
    attempt: int
    device: str
    started_at: datetime
    ended_at: datetime
    outcome: Literal["completed", "failed", "running", "interrupted"]
    error: str = ""
    peak_memory_mib: float | None = None

    @property
    def duration_s(self) -> float:
        """Seconds from start to end."""
        return (self.ended_at - self.started_at).total_seconds()


@dataclass(frozen=True)
class EpochPoint:
    """One epoch of one model; None where a number was not finite, or is not in an older log.

    Attributes:
        dataset: Whose.
        model: Which.
        epoch: 0 for the first.
        train_loss: Mean over its steps.
        val_loss: On validation.
        phase: The phase that trained it.
        ended_at: UTC.
        duration_s: Training and validation.
        wait_s: Part of it in which training stood still for its next pack.
        validation_s: Part of it that was validation.
        val_metric: MCC on validation, for supervised models.
        graphs_per_s: Of training.
    """

    dataset: str
    model: str
    epoch: int
    train_loss: float | None
    val_loss: float | None
    phase: str
    ended_at: datetime
    duration_s: float
    wait_s: float
    validation_s: float | None
    val_metric: float | None
    graphs_per_s: float | None

    @property
    def started_at(self) -> datetime:
        """UTC."""
        return self.ended_at - timedelta(seconds=self.duration_s)


MarkKind: TypeAlias = Literal["failure", "retry", "resume", "memory", "room", "input"]


@dataclass(frozen=True)
class Mark:
    """Something that befell a plan at one moment.

    Attributes:
        at: UTC.
        dataset: Whose; empty where it befell the whole plan.
        phase: Which phase; empty likewise.
        kind: ``memory`` and ``room`` are packs made smaller and larger, ``input`` is how they are gathered.
        text: What, in one line.
    """

    at: datetime
    dataset: str
    phase: str
    kind: MarkKind
    text: str


@dataclass(frozen=True)
class LimitPoint:
    """How many graphs one forward/backward of a model may hold, from a moment on."""

    at: datetime
    dataset: str
    phase: str
    model: str
    num_graphs: int
    reason: str


_SPANNING = {fact.TYPE for fact in (PhaseStarted, PhaseFinished, PhaseFailed, PlanResumed, PlanFinished)}


def fold_spans(events: Iterable[Event]) -> list[Span]:
    """Fold a plan's events into attempts, in order of their beginning."""
    done: list[Span] = []
    open_spans: dict[tuple[str, str], Span] = {}
    now: datetime | None = None

    def close(key: tuple[str, str], **changes: object) -> None:
        if span := open_spans.pop(key, None):
            done.append(dataclasses.replace(span, **changes))  # type: ignore[arg-type]

    for event in events:
        before, now = now or event.occurred_at, event.occurred_at
        if event.type not in _SPANNING:  # nearly all of them
            continue
        match to_fact(event):
            case PhaseStarted() as fact:
                key = (fact.dataset, fact.phase)
                close(key, ended_at=before, outcome="interrupted")
                open_spans[key] = Span(*key, fact.attempt, fact.device, now, now, "running")
            case PhaseFinished() as fact:
                close(
                    (fact.dataset, fact.phase),
                    ended_at=now,
                    outcome="completed",
                    peak_memory_mib=finite(fact.peak_memory_mib),
                )
            case PhaseFailed() as fact:
                error = f"{fact.kind}: {fact.message}"
                close((fact.dataset, fact.phase), ended_at=now, outcome="failed", error=error)
            case PlanResumed() | PlanFinished():
                for key in list(open_spans):
                    close(key, ended_at=before, outcome="interrupted")
            case _:
                pass
    for key in list(open_spans):
        close(key, ended_at=now)
    # A clock that was set back must not make an attempt end before it began.
    forward = [dataclasses.replace(span, ended_at=max(span.started_at, span.ended_at)) for span in done]
    return sorted(forward, key=lambda span: (span.started_at, span.dataset, span.phase))


def fold_epochs(events: Iterable[Event]) -> list[EpochPoint]:
    """Fold a plan's events into its epochs; one that a retry repeats counts as it was last."""
    points: dict[tuple[str, str, int], EpochPoint] = {}
    for event in events:
        if event.type != EpochFinished.TYPE:
            continue
        epoch = finite(event.payload)
        key = (epoch["dataset"], epoch["model"], epoch["epoch"])
        points[key] = EpochPoint(
            *key,
            epoch["train_loss"],
            epoch["val_loss"],
            epoch["phase"],
            event.occurred_at,
            duration_s=epoch["duration_s"] or 0.0,
            wait_s=epoch["data_wait_s"] or 0.0,
            validation_s=epoch["validation_s"],
            val_metric=epoch["val_metric"],
            graphs_per_s=epoch["graphs_per_s"],
        )
    return [points[key] for key in sorted(points)]


def fold_marks(events: Iterable[Event]) -> list[Mark]:
    """Fold a plan's events into what befell it, in order of time."""
    marks = []
    for event in events:
        if event.type in _MARKING and (mark := _mark(event)):
            marks.append(mark)
    return sorted(marks, key=lambda mark: mark.at)


_MARKING = {fact.TYPE for fact in (PhaseStarted, PhaseFailed, PlanResumed, PackLimitChanged, InputAdjusted)}


def _mark(event: Event) -> Mark | None:
    match to_fact(event):
        case PhaseFailed() as fact:
            text = f"attempt {fact.attempt} failed: {fact.kind}"
            return Mark(event.occurred_at, fact.dataset, fact.phase, "failure", text)
        case PhaseStarted() as fact if fact.attempt > 1:
            text = "; ".join([f"attempt {fact.attempt} began", *fact.choices])
            return Mark(event.occurred_at, fact.dataset, fact.phase, "retry", text)
        case PlanResumed():
            return Mark(event.occurred_at, "", "", "resume", "the plan was resumed")
        case PackLimitChanged() as fact:
            sizes = f"{_size(fact.before)} → {_size(fact.after)}"
            text = f"{fact.model}: packs {sizes} ({fact.reason.replace('_', ' ')}, {fact.stage})"
            kind: MarkKind = "room" if fact.reason == "room" else "memory"
            return Mark(event.occurred_at, fact.dataset, fact.phase, kind, text)
        case InputAdjusted() as fact:
            text = (
                f"{fact.model}: {fact.num_workers_before} → {fact.num_workers} workers, "
                f"prefetch {fact.prefetch_factor_before} → {fact.prefetch_factor} "
                f"({fact.reason.replace('_', ' ')})"
            )
            return Mark(event.occurred_at, fact.dataset, fact.phase, "input", text)
        case _:
            return None


def _size(limit: dict[str, int]) -> str:
    name = "graphs" if "graphs" in limit else next(iter(limit), "")
    return f"{limit[name]} {name}" if name else "no limit"


def gather_marks(marks: Iterable[Mark], most: int) -> list[tuple[Mark, int]]:
    """Put marks of one kind, dataset and phase together where a chart could not tell them apart.

    Args:
        marks: In order of time.
        most: Places that the chart has over the time of all marks.

    Returns:
        The first mark of each place, and how many are there.
    """
    listed = list(marks)
    if not listed:
        return []
    first = listed[0].at
    width_s = max((mark.at - first).total_seconds() for mark in listed) / most or 1.0
    gathered: dict[tuple[str, str, str, int], tuple[Mark, int]] = {}
    for mark in listed:
        place = (mark.kind, mark.dataset, mark.phase, int((mark.at - first).total_seconds() // width_s))
        before, count = gathered.get(place, (mark, 0))
        gathered[place] = (before, count + 1)
    return list(gathered.values())


def fold_limits(events: Iterable[Event]) -> dict[tuple[str, str], Sequence[LimitPoint]]:
    """How large packs might be over time, by dataset and model; only of models where that changed."""
    points: dict[tuple[str, str], list[LimitPoint]] = {}
    changed = set()
    for event in events:
        if event.type not in (PackLimitChosen.TYPE, PackLimitChanged.TYPE):
            continue
        fact = event.payload
        key = (fact["dataset"], fact["model"])
        chosen = event.type == PackLimitChosen.TYPE
        if (num_graphs := fact["limit" if chosen else "after"].get("graphs")) is not None:
            reason = "chosen" if chosen else fact["reason"]
            point = LimitPoint(event.occurred_at, key[0], fact["phase"], key[1], num_graphs, reason)
            points.setdefault(key, []).append(point)
            if not chosen:
                changed.add(key)
    return {key: points[key] for key in sorted(changed)}
