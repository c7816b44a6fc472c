"""What phases took in past plans: the means and spreads that predictions rest on."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from core.analytics.results import fold_plan
from core.analytics.timeline import Span, fold_spans
from core.events.event import Event


class PhaseKey(NamedTuple):
    """What makes two runs of a phase comparable."""

    dataset: str
    phase: str
    device_name: str
    preset: str


@dataclass(frozen=True)
class PhaseEstimate:
    """Means over past runs of a phase, and sample standard deviations: None after a single run.

    Attributes:
        num: Runs that ended well.
        duration_mean_s: All attempts of the phase in its plan together.
        duration_std_s: Spread of that.
        peak_memory_mean_mib: VRAM allocated on a GPU, resident memory on a CPU.
        peak_memory_std_mib: Spread of that.
    """

    num: int
    duration_mean_s: float
    duration_std_s: float | None
    peak_memory_mean_mib: float
    peak_memory_std_mib: float | None


def phase_history(streams: Iterable[Sequence[Event]]) -> dict[PhaseKey, PhaseEstimate]:
    """Fold many plans into what each phase takes on each kind of device.

    Only phases that ended well count; one that needed several attempts counts with all their time.

    Args:
        streams: The events of each plan.

    Returns:
        Estimates by dataset, phase, device name and model preset.
    """
    runs: dict[PhaseKey, list[tuple[float, float]]] = defaultdict(list)
    for events in streams:
        plan = fold_plan(events)
        if plan is None:
            continue
        phases: dict[tuple[str, str], list[Span]] = defaultdict(list)
        for span in fold_spans(events):
            phases[span.dataset, span.phase].append(span)
        device, preset = plan.machine["device_name"], plan.settings["models"]["preset"]
        for (dataset, phase), spans in phases.items():
            if (peak_mib := spans[-1].peak_memory_mib) is not None:
                duration_s = sum(span.duration_s for span in spans)
                runs[PhaseKey(dataset, phase, device, preset)].append((duration_s, peak_mib))
    return {key: _estimate(*zip(*values, strict=True)) for key, values in sorted(runs.items())}


def _estimate(durations_s: Sequence[float], peaks_mib: Sequence[float]) -> PhaseEstimate:
    several = len(durations_s) > 1
    return PhaseEstimate(
        num=len(durations_s),
        duration_mean_s=statistics.fmean(durations_s),
        duration_std_s=statistics.stdev(durations_s) if several else None,
        peak_memory_mean_mib=statistics.fmean(peaks_mib),
        peak_memory_std_mib=statistics.stdev(peaks_mib) if several else None,
    )
