"""How a plan is: what needs attention, the most important first, and how far its disk will reach."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import polars as pl

from core.analytics.board import Dashboard
from core.analytics.metrics import format_memory, format_number
from core.analytics.results import PhaseResult

Level: TypeAlias = Literal["bad", "warn", "note"]
_LEVELS: tuple[Level, ...] = ("bad", "warn", "note")
TIGHT = 0.9
"""Share of memory from which on headroom is small."""
LEAST_DISK_MIB = 5 * 1024.0
_FEW_PLANS = 5.0
NOT_MEASURED = "Not measured:"
_WORTH_A_LOOK = frozenset({"data_wait", "idle", "memory_bound", "launch_bound"})


@dataclass(frozen=True)
class Finding:
    """Something that a user should know: in a few words, and in full."""

    level: Level
    title: str
    text: str = ""


@dataclass(frozen=True)
class Overall:
    """All findings, the most important first."""

    findings: tuple[Finding, ...]

    @property
    def level(self) -> Level | Literal["good"]:
        """The worst of them; ``good`` where nothing needs attention."""
        return next((level for level in _LEVELS[:2] if any(f.level == level for f in self.findings)), "good")

    @property
    def sentence(self) -> str:
        """How the plan is, in one line."""
        urgent = [finding for finding in self.findings if finding.level in _LEVELS[:2]]
        if not urgent:
            return "All well: nothing needs attention."
        more = f", and {len(urgent) - 1} more" if len(urgent) > 1 else ""
        return f"Needs attention: {urgent[0].title}{more}."


@dataclass(frozen=True)
class DiskOutlook:
    """How far the disk that outputs go to will reach.

    Attributes:
        free_mib: At the end.
        used_mib: Less than at the beginning; negative where it was emptied.
        num_more: Plans that take as much and still fit; None where this one took nothing.
    """

    free_mib: float
    used_mib: float
    num_more: float | None


def disk_outlook(curve: pl.DataFrame | None) -> DiskOutlook | None:
    """Judge free disk space over time.

    Args:
        curve: Of ``disk_free_mib`` as of ``core.analytics.buckets.curve``; None where it was not measured.
    """
    if curve is None or curve.is_empty():
        return None
    free = curve.sort("occurred_at")["mean"]
    free_mib, used_mib = float(free[-1]), float(free[0] - free[-1])
    return DiskOutlook(free_mib, used_mib, free_mib / used_mib if used_mib > 0 else None)


def overall(dashboard: Dashboard) -> Overall:
    """Judge a plan."""
    found = [
        *_phases(dashboard),
        *_disk(dashboard),
        *_machine(dashboard.telemetry.notes),
        *_memory(dashboard),
        *_speed(dashboard),
        *_data(dashboard),
    ]
    return Overall(tuple(sorted(found, key=lambda finding: _LEVELS.index(finding.level))))


def _phases(dashboard: Dashboard) -> Iterator[Finding]:
    results = dashboard.results
    phases = [
        (name, phase, result) for name, d in results.datasets.items() for phase, result in d.phases.items()
    ]
    for name, phase, result in phases:
        if result.status == "failed":
            failure = result.failures[-1]
            yield Finding("bad", f"{name} {phase} failed ({failure.kind})", failure.message)
    blocked = [f"{name} {phase}" for name, phase, result in phases if result.status == "blocked"]
    if blocked:
        yield Finding("bad", f"{_many(len(blocked), 'phase')} not reached", ", ".join(blocked))
    for name, phase, result in phases:
        if result.failures and result.status != "failed":
            yield Finding("warn", *_cured(f"{name} {phase}", result))
    if results.num_resumes:
        yield Finding("note", f"resumed {_many(results.num_resumes, 'time')}")
    if results.status == "unfinished" and dashboard.spans:
        yield Finding("note", "the plan has not finished", "It is under way, or it was interrupted.")


def _cured(what: str, result: PhaseResult) -> tuple[str, str]:
    kinds = ", ".join(f"{kind} {n} ×" for kind, n in Counter(f.kind for f in result.failures).items())
    outcome = "recovered" if result.status == "completed" else "being retried"
    return f"{what} failed and {outcome}", f"{kinds}; {outcome} in attempt {result.attempts}."


def _disk(dashboard: Dashboard) -> Iterator[Finding]:
    outlook = disk_outlook(dashboard.telemetry.curves.get("disk_free_mib"))
    if outlook is None:
        return
    num_more = float("inf") if outlook.num_more is None else outlook.num_more
    text = f"{format_memory(outlook.free_mib)} are free; {format_memory(outlook.used_mib)} went meanwhile."
    if outlook.free_mib < LEAST_DISK_MIB or num_more < 1:
        yield Finding("bad", "the disk is nearly full", text)
    elif num_more < _FEW_PLANS:
        yield Finding("warn", f"the disk has room for {int(num_more)} more plans like this", text)


def _machine(notes: Iterable[str]) -> Iterator[Finding]:
    for note in notes:
        missing = note.startswith(NOT_MEASURED)
        yield Finding(
            "note" if missing else "warn", "not everything was measured" if missing else "the GPU", note
        )


def _memory(dashboard: Dashboard) -> Iterator[Finding]:
    for use in dashboard.memory:
        if use.share is not None and use.share >= TIGHT:
            yield Finding(
                "warn",
                f"{use.dataset} {use.phase} took {use.share:.0%} of memory",
                f"Peak {format_memory(use.peak_mib)} of {format_memory(use.total_mib)}.",
            )
    if smaller := sum(mark.kind == "memory" for mark in dashboard.marks):
        text = (
            "Memory ran short within a step; the step was done with smaller packs, so results are the same."
        )
        yield Finding("note", f"packs were made smaller {_many(smaller, 'time')}", text)


def _speed(dashboard: Dashboard) -> Iterator[Finding]:
    held: dict[str, list[str]] = {}
    for found in dashboard.results.bottlenecks:
        if found.bottleneck in _WORTH_A_LOOK and found.change:
            held.setdefault(found.bottleneck, []).append(f"{found.dataset} {found.model}")
    for bottleneck, models in held.items():
        yield Finding(
            "warn", f"{_many(len(models), 'model')} {bottleneck.replace('_', ' ')}", ", ".join(models)
        )


def _data(dashboard: Dashboard) -> Iterator[Finding]:
    for name, dataset in dashboard.results.datasets.items():
        if dataset.refused_captures:
            count = _many(len(dataset.refused_captures), "capture")
            yield Finding("warn", f"{name}: {count} refused", ", ".join(sorted(dataset.refused_captures)))
        if rows := sum(q.num_rows for q in dataset.quarantine.values()):
            yield Finding("note", f"{name}: {format_number(rows)} rows quarantined")


def _many(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
