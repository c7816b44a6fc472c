"""What phases took in past plans: the estimates, with their bounds, that predictions rest on."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from core.analytics.advice.memory import FIRST_MIB, needed_mib, peak_range
from core.analytics.histograms import DecayingHistogram, Range, decay
from core.analytics.observations import PhaseRun, PlanRecord, record_plan
from core.events.event import Event

_FIRST_S = 0.01


class PhaseKey(NamedTuple):
    """What makes two runs of a phase comparable."""

    dataset: str
    phase: str
    device_name: str
    preset: str


@dataclass(frozen=True)
class PhaseEstimate:
    """What a phase took in past plans; the newest weigh most.

    Attributes:
        num: Runs that ended well.
        since: Day of the oldest of them.
        duration_mean_s: All attempts of the phase in its plan together.
        duration_std_s: Sample standard deviation of that; None after a single run.
        duration: Median, and bounds that are wide after few runs, seconds.
        peak_memory_mean_mib: VRAM allocated on a GPU, resident memory on a CPU.
        peak_memory_std_mib: Sample standard deviation of that; None after a single run.
        peak_memory: What to expect of the next peak, MiB: a safety margin is in it, and where memory ran out
            more than there was.
    """

    num: int
    since: str
    duration_mean_s: float
    duration_std_s: float | None
    duration: Range
    peak_memory_mean_mib: float
    peak_memory_std_mib: float | None
    peak_memory: Range


def phase_history(streams: Iterable[Sequence[Event]]) -> dict[PhaseKey, PhaseEstimate]:
    """Fold many plans into what each phase takes on each kind of device.

    Only phases that ended well count; one that needed several attempts counts with all their time.

    Args:
        streams: The events of each plan.

    Returns:
        Estimates by dataset, phase, device name and model preset.
    """
    runs: dict[PhaseKey, list[tuple[PlanRecord, PhaseRun]]] = defaultdict(list)
    for record in filter(None, map(record_plan, streams)):
        for (dataset, phase), run in record.phases.items():
            if run.completed and run.peak_mib is not None:
                device_name = run.device_name or record.device_name
                key = PhaseKey(dataset, phase, device_name, record.conditions[0])
                runs[key].append((record, run))
    return {key: _estimate(values) for key, values in sorted(runs.items())}


def _estimate(runs: Sequence[tuple[PlanRecord, PhaseRun]]) -> PhaseEstimate:
    newest_s = max(record.ended_s for record, _ in runs)
    weights = [decay(newest_s - record.ended_s) for record, _ in runs]
    durations, peaks = DecayingHistogram(_FIRST_S), DecayingHistogram(FIRST_MIB)
    for record, run in runs:
        durations = durations.add(run.duration_s, record.ended_s)
        peaks = peaks.add(needed_mib(run, run.peak_mib or 0.0) or 0.0, record.ended_s)
    duration_mean_s, duration_std_s = _weighted([run.duration_s for _, run in runs], weights)
    peak_mean_mib, peak_std_mib = _weighted([run.peak_mib or 0.0 for _, run in runs], weights)
    return PhaseEstimate(
        num=len(runs),
        since=min(record.day for record, _ in runs),
        duration_mean_s=duration_mean_s,
        duration_std_s=duration_std_s,
        duration=durations.range(),
        peak_memory_mean_mib=peak_mean_mib,
        peak_memory_std_mib=peak_std_mib,
        peak_memory=peak_range(peaks),
    )


def _weighted(values: Sequence[float], weights: Sequence[float]) -> tuple[float, float | None]:
    """Weighted mean and, of several values, the sample standard deviation (reliability weights)."""
    total = sum(weights)
    mean = sum(v * w for v, w in zip(values, weights, strict=True)) / total
    freedom = total - sum(w * w for w in weights) / total
    if len(values) < 2 or freedom <= 0:
        return mean, None
    squares = sum(w * (v - mean) ** 2 for v, w in zip(values, weights, strict=True))
    return mean, float((squares / freedom) ** 0.5)
