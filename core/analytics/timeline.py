"""What happened when: attempts of phases and epochs, as rows for charts and estimates."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

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
    """The losses of one epoch; None where a loss was not finite."""

    dataset: str
    model: str
    epoch: int
    train_loss: float | None
    val_loss: float | None


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
    return sorted(done, key=lambda span: (span.started_at, span.dataset, span.phase))


def fold_epochs(events: Iterable[Event]) -> list[EpochPoint]:
    """Fold a plan's events into its losses; an epoch that a retry repeats counts as it was last."""
    points: dict[tuple[str, str, int], EpochPoint] = {}
    for event in events:
        if event.type != EpochFinished.TYPE:
            continue
        epoch = finite(event.payload)
        key = (epoch["dataset"], epoch["model"], epoch["epoch"])
        points[key] = EpochPoint(*key, epoch["train_loss"], epoch["val_loss"])
    return [points[key] for key in sorted(points)]
