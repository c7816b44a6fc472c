"""Memory: packs that did not fit, peaks to expect, and room that is left."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from core.analytics.advice.evidence import Advice, Evidence, Finding, models_of, point, rests_on
from core.analytics.advice.measures import NUM_OOMS
from core.analytics.histograms import DecayingHistogram, Range
from core.analytics.metrics import format_memory
from core.analytics.observations import PhaseRun, PlanRecord

VRAM_TARGET = 0.85
RAM_LIMIT = 0.80
SAFETY_MARGIN = 0.15
OOM_BUMP = 1.2
"""What did not fit is taken to need so many times what there was."""
RECURRING = 0.1
"""Share of plans, by weight, from which on running out of memory counts as something to expect."""
FIRST_MIB = 10.0
MICRO_BATCH_SIZE = "training.micro_batch_size"


def memory(evidence: Evidence) -> Iterator[Finding]:
    """Packs that fit; peaks that are to be expected."""
    yield from peaks_to_expect(evidence)
    if found := list(out_of_memory(evidence)):
        yield from found
        return
    yield from _fullness(evidence)


def out_of_memory(evidence: Evidence) -> Iterator[Finding]:
    """The largest packs that went through where others ran out of memory."""
    troubles = _troubles(evidence)
    if not troubles:
        return
    (dataset, phase), failed, fits, records = worst = min(troubles, key=lambda trouble: trouble.fits)
    times = sum(len(record.phases[worst.key].ooms) for record in records)
    cured = all(record.phases[worst.key].completed for record in records)
    yield Advice(
        setting=MICRO_BATCH_SIZE,
        value=fits,
        before=evidence.settings.training.micro_batch_size,
        phase=phase,
        reason=f"{dataset} {phase} ran out of {evidence.memory_name} with packs of {failed} graphs"
        f"{f', and went through with {fits}' if cured else ''}: micro_batch_size {fits}.",
        rests_on=rests_on(records, times, "memory shortage"),
        num_observations=times,
        confidence=evidence.confidence(records, MICRO_BATCH_SIZE),
        metric=NUM_OOMS,
        current=times / len(records),
        expected=0.0,
        low=0.0,
        high=times / len(records),
    )


class _Trouble(NamedTuple):
    """A dataset and phase that ran out of memory."""

    key: tuple[str, str]
    failed: int
    """Graphs of the largest pack that failed."""
    fits: int
    """Graphs of a pack that fits instead."""
    records: Sequence[PlanRecord]
    """The plans that saw it."""


def _troubles(evidence: Evidence) -> list[_Trouble]:
    """What is likely to run out of memory again.

    What this plan ran into counts. What an earlier one did counts if the next would try packs as large, and
    if enough of those that did since ran out of memory, too.
    """
    found = []
    runs: dict[tuple[str, str], list[PlanRecord]] = defaultdict(list)
    for record in evidence.history:
        for key in record.phases:
            runs[key].append(record)
    for key, records in runs.items():
        if key[1] == "graphs":
            continue
        failing = [record for record in records if record.phases[key].ooms]
        relevant = [
            record
            for record in failing
            if record is evidence.plan or _failed(record, key) <= evidence.pack_limit
        ]
        if not relevant:
            continue
        tried = sum(
            evidence.weight(record)
            for record in records
            if record in relevant or _largest(record, key) >= min(_failed(r, key) for r in relevant)
        )
        if evidence.plan in relevant or sum(map(evidence.weight, relevant)) >= RECURRING * tried:
            failed = max(_failed(record, key) for record in relevant)
            found.append(_Trouble(key, failed, min(_fits(record, key) for record in relevant), relevant))
    return found


def _held(record: PlanRecord, key: tuple[str, str], graphs: int) -> int:
    """Graphs that a pack of at most so many really held: no more than a step."""
    steps = [s for m in record.phases[key].models.values() if (s := record.step_graphs(key[0], m))]
    return min(graphs, max(steps, default=graphs))


def _failed(record: PlanRecord, key: tuple[str, str]) -> int:
    return max(_held(record, key, oom.failed_graphs) for oom in record.phases[key].ooms)


def _largest(record: PlanRecord, key: tuple[str, str]) -> int:
    run = record.phases[key]
    return _held(record, key, run.micro_batch_size) if run.completed else 0


def _fits(record: PlanRecord, key: tuple[str, str]) -> int:
    """What went through in the end; half of the smallest pack that did not, where nothing did."""
    run, failed = record.phases[key], _failed(record, key)
    tried = [_held(record, key, oom.fitted_graphs) for oom in run.ooms if oom.fitted_graphs is not None]
    if run.completed and run.micro_batch_size:
        tried.append(_held(record, key, run.micro_batch_size))
    if run.completed and tried and min(tried) < failed:
        return min(tried)
    return max(1, min(_held(record, key, oom.failed_graphs) for oom in run.ooms) // 2)


def peaks_to_expect(evidence: Evidence) -> Iterator[str]:
    """What each phase's peak will be about, with packs as they are."""
    records = evidence.alike("training.batch_size", MICRO_BATCH_SIZE)
    peaks = peak_histograms(evidence, records)
    if not peaks:
        return
    expected = {phase: peak_range(found) for phase, found in peaks.items()}
    listed = ", ".join(
        f"{phase} {format_memory(peak.middle)} ({format_memory(peak.low)} to {format_memory(peak.high)})"
        for phase, peak in expected.items()
    )
    num = sum(found.num for found in peaks.values())
    yield (
        f"With packs as they are, expect peaks of: {listed}, of {format_memory(evidence.memory_mib)} of "
        f"{evidence.memory_name}; that is what was measured plus {SAFETY_MARGIN:.0%}. "
        f"Based on {rests_on(records, num, 'peak')}."
    )


def peak_histograms(evidence: Evidence, records: Sequence[PlanRecord]) -> Mapping[str, DecayingHistogram]:
    """Peaks by phase, MiB, over datasets and plans."""
    phases: dict[str, DecayingHistogram] = {}
    for record in records:
        for (_, phase), run in record.trained.items():
            if (needed := needed_mib(run, evidence.memory_mib)) is not None:
                phases[phase] = phases.get(phase, DecayingHistogram(FIRST_MIB)).add(needed, record.ended_s)
    return phases


def needed_mib(run: PhaseRun, memory_mib: float) -> float | None:
    """What a phase needed: its peak, or more than it could have where memory ran out.

    Args:
        run: The phase.
        memory_mib: Memory there was where nobody looked at what was held.
    """
    if not run.ooms:
        return run.peak_mib
    held = [memory_mib if oom.held_mib is None else oom.held_mib for oom in run.ooms]
    return OOM_BUMP * max(run.peak_mib or 0.0, *held)


def peak_range(peaks: DecayingHistogram) -> Range:
    """What to expect of the next peak: nearly the highest, and the safety margin."""
    return peaks.range(low=0.1, middle=0.9, high=0.98, margin=SAFETY_MARGIN)


def peak_share(evidence: Evidence) -> float:
    """Highest peak of a phase in plans with packs as they are, as a share of memory; 0 without any."""
    records = evidence.alike("training.batch_size", MICRO_BATCH_SIZE)
    peaks = [peak.percentile(0.9) for peak in peak_histograms(evidence, records).values()]
    return max(peaks, default=0.0) / evidence.memory_mib


def has_room(evidence: Evidence, graphs: int, now: int) -> bool:
    """Whether packs of so many graphs can be expected to fit.

    Args:
        evidence: Peaks, and packs that ran out of memory not long ago.
        graphs: Graphs of the packs in question.
        now: Of packs as they are.
    """
    failed = [
        _failed(record, key)
        for record in evidence.history
        if evidence.weight(record) >= RECURRING
        for key, run in record.phases.items()
        if run.ooms and key[1] != "graphs"
    ]
    limit = VRAM_TARGET if evidence.on_gpu else RAM_LIMIT
    return graphs < min(failed, default=graphs + 1) and peak_share(evidence) * graphs / now <= limit


def _fullness(evidence: Evidence) -> Iterator[Finding]:
    if evidence.last is None:
        return
    training, pack = evidence.settings.training, evidence.pack_limit
    limit = VRAM_TARGET if evidence.on_gpu else RAM_LIMIT
    share, total = peak_share(evidence), format_memory(evidence.memory_mib)
    peak = f"Phases peak at {format_memory(share * evidence.memory_mib)} of {total} ({share:.0%})"
    records = evidence.alike("training.batch_size", MICRO_BATCH_SIZE)

    def change(value: int, reason: str) -> Advice:
        return Advice(
            setting=MICRO_BATCH_SIZE,
            value=value,
            before=training.micro_batch_size,
            reason=reason,
            rests_on=rests_on(records, len(records), "peak"),
            num_observations=len(records),
            confidence=evidence.confidence(records, MICRO_BATCH_SIZE),
            measured=[
                point(phase, found.percentile(0.9), format_memory(found.percentile(0.9)))
                for phase, found in peak_histograms(evidence, records).items()
            ],
            measured_as=f"Peak memory by phase, of {total}",
            measured_of=evidence.memory_mib,
        )

    if any(model.binds == "memory" for *_, model in models_of(evidence.last)):
        yield f"{peak}: packs were fitted to the memory by measurement."
        return
    ram = evidence.telemetry
    ram_share = (ram.ram_peak_mib or 0.0) / ram.ram_total_mib if ram.ram_total_mib else 0.0
    if share > limit or ram_share > RAM_LIMIT:
        if share <= limit:
            peak = f"The machine's RAM was used up to {ram_share:.0%}"
        lower = max(1, pack // 2)
        highest = limit if share > limit else RAM_LIMIT
        yield change(lower, f"{peak}, above {highest:.0%}: micro_batch_size {lower} instead of {pack}.")
    elif pack < evidence.step_limit and has_room(
        evidence, higher := min(pack * 2, training.batch_size), pack
    ):
        yield change(higher, f"{peak}: there is room for micro_batch_size {higher} instead of {pack}.")
    else:
        yield f"{peak}: packs of {pack} graphs fit."
