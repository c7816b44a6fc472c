"""What supervision did: hangs, restarts, silence, and the memory that phases took; pure folds of events."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.analytics.canonical import finite
from core.events.catalogue import (
    CheckpointRefused,
    PhaseFailed,
    PhaseFinished,
    PhaseStarted,
    PlanCreated,
    PlanResumed,
    TrainingResumed,
)
from core.events.event import Event
from core.events.resource_facts import PackLimitChosen


@dataclass(frozen=True)
class Silence:
    """Longest time in which a running phase told nothing."""

    dataset: str
    phase: str
    began_at: datetime
    duration_s: float


@dataclass(frozen=True)
class Watch:
    """What supervision did for a plan.

    Attributes:
        num_hangs: Attempts that were stopped for lack of progress.
        num_restarts: Attempts after the first, of any phase.
        num_resumes: Times the whole plan was taken up again.
        num_continued: Times training went on from a checkpoint.
        num_refused: Checkpoints that were found damaged.
        hang_timeout_s: Time without progress after which an attempt is stopped; None where the log does not
            tell it.
        longest: Longest silence of a phase; None where no phase ran.
        reports: Dataset, phase, attempt and file of each report in ``process_logs``.
    """

    num_hangs: int = 0
    num_restarts: int = 0
    num_resumes: int = 0
    num_continued: int = 0
    num_refused: int = 0
    hang_timeout_s: float | None = None
    longest: Silence | None = None
    reports: tuple[tuple[str, str, int, str], ...] = ()


@dataclass(frozen=True)
class MemoryUse:
    """Memory that a phase took at most, and what there was.

    Attributes:
        dataset: Whose.
        phase: Which.
        device: ``cpu`` (resident memory against RAM) or ``cuda`` (VRAM allocated against that of the GPU).
        peak_mib: Of the training process.
        total_mib: None where the log does not tell it.
        room_mib: What was free for packs before training; None where nothing was measured.
    """

    dataset: str
    phase: str
    device: str
    peak_mib: float
    total_mib: float | None
    room_mib: float | None

    @property
    def share(self) -> float | None:
        """Peak as a share of the total."""
        return self.peak_mib / self.total_mib if self.total_mib else None


def fold_watch(events: Iterable[Event]) -> Watch:
    """Fold a plan's events into what supervision did for it."""
    counts = dict.fromkeys(("num_hangs", "num_restarts", "num_resumes", "num_continued", "num_refused"), 0)
    reports: list[tuple[str, str, int, str]] = []
    heard: dict[str, tuple[str, datetime]] = {}  # running phase and last word, by dataset
    longest: Silence | None = None
    hang_timeout_s: float | None = None
    for event in events:
        fact, dataset = event.payload, event.payload.get("dataset")
        if event.type == PlanResumed.TYPE:
            heard.clear()
        if dataset in heard:
            phase, at = heard[dataset]
            silence = Silence(dataset, phase, at, (event.occurred_at - at).total_seconds())
            if event.type != PhaseStarted.TYPE and (not longest or silence.duration_s > longest.duration_s):
                longest = silence
            heard[dataset] = phase, event.occurred_at
        if event.type == PlanCreated.TYPE:
            hang_timeout_s = fact["settings"].get("resources", {}).get("hang_timeout_s")
        elif event.type == PhaseStarted.TYPE:
            heard[fact["dataset"]] = fact["phase"], event.occurred_at
            counts["num_restarts"] += fact["attempt"] > 1
        elif event.type == PhaseFinished.TYPE:
            heard.pop(fact["dataset"], None)
        elif event.type == PhaseFailed.TYPE:
            heard.pop(fact["dataset"], None)
            counts["num_hangs"] += fact["kind"] == "hang"
            if report := fact.get("report"):
                reports.append((fact["dataset"], fact["phase"], fact["attempt"], report))
        elif name := _COUNTED.get(event.type):
            counts[name] += 1
    return Watch(**counts, hang_timeout_s=hang_timeout_s, longest=longest, reports=tuple(reports))


_COUNTED = {
    PlanResumed.TYPE: "num_resumes",
    TrainingResumed.TYPE: "num_continued",
    CheckpointRefused.TYPE: "num_refused",
}


def fold_memory(events: Iterable[Event]) -> list[MemoryUse]:
    """Fold a plan's events into the memory that its finished phases took, in order of their beginning."""
    totals: dict[str, float | None] = {}
    devices: dict[tuple[str, str], str] = {}
    rooms: dict[tuple[str, str], float] = {}
    peaks: dict[tuple[str, str], float] = {}
    for event in events:
        if event.type == PlanCreated.TYPE:
            totals = _totals(event.payload["machine"])
        elif event.type == PhaseStarted.TYPE:
            devices[event.payload["dataset"], event.payload["phase"]] = event.payload["device"]
        elif event.type == PackLimitChosen.TYPE:
            key = (event.payload["dataset"], event.payload["phase"])
            if (room := finite(event.payload)["memory"].get("room_mib")) is not None:
                rooms[key] = min(room, rooms.get(key, room))
        elif event.type == PhaseFinished.TYPE:
            peak = finite(event.payload)["peak_memory_mib"]
            if peak is not None:
                peaks[event.payload["dataset"], event.payload["phase"]] = peak
    return [
        MemoryUse(*key, device, peaks[key], totals.get(device), rooms.get(key))
        for key, device in devices.items()
        if key in peaks
    ]


def _totals(machine: Mapping[str, Any]) -> dict[str, float | None]:
    gpus = machine.get("gpus") or [{}]
    return {"cpu": machine.get("ram_total_mib"), "cuda": gpus[0].get("vram_total_mib")}
