"""Batch and pack sizes: the smallest that is nearly as fast as any, or the next one worth trying."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.analytics.advice.evidence import Advice, Evidence, Finding, models_of, point, rests_on
from core.analytics.advice.measures import GRAPHS_PER_S, MEASURES, Part, format_measure
from core.analytics.advice.memory import MICRO_BATCH_SIZE, has_room, out_of_memory
from core.analytics.histograms import DecayingHistogram
from core.analytics.observations import PlanRecord

NEARLY_BEST = 0.95
BUSY_PERCENT = 60.0
BATCH_SIZE = "training.batch_size"
_EXPERIMENT = 0.3
"""Most confidence in what nobody has measured yet."""

_AT_WORK = ("compute_bound", "memory_bound")
"""Verdicts after which a larger batch has nothing to fill."""

Curve = Mapping[int, float]
"""Median graphs/s by graphs of a pack, in powers of two."""


@dataclass(frozen=True)
class Knee:
    """Where larger packs stop paying.

    Attributes:
        graphs: The smallest pack that gives nearly the best throughput measured.
        seen: Whether a larger one was measured too: only then it is the knee.
        gain: Throughput there as a multiple of that with packs as they are; 1 where those were not measured.
        spread: Relative difference of that multiple between models.
    """

    graphs: int
    seen: bool
    gain: float
    spread: float


def throughput(evidence: Evidence) -> Iterator[Finding]:
    """The batch or pack size with which throughput is nearly the best that was measured."""
    if evidence.last is None:
        return
    if evidence.waits:
        waited = evidence.wait_share or 0.0
        yield f"Training waited for data {waited:.0%} of the time: no batch size makes that faster."
        return
    records = evidence.alike()
    knee = find_knee(throughput_curves(evidence, records), _packs(evidence.last))
    if knee is None or not knee.seen:
        yield from _experiment(evidence, records)
    elif knee.gain > 1 / NEARLY_BEST and knee.graphs > evidence.pack_limit:
        yield _to_knee(evidence, records, knee)
    else:
        yield (
            f"Packs of {knee.graphs} graphs reach {NEARLY_BEST:.0%} of the best throughput measured: larger "
            f"batches than now are not faster. Based on {_observed(records)}."
        )


def throughput_curves(evidence: Evidence, records: Sequence[PlanRecord]) -> dict[Part, Curve]:
    """What each model made of packs of each size, over plans; the newest weigh most."""
    seen: dict[Part, dict[int, DecayingHistogram]] = defaultdict(dict)
    for record in records:
        for (dataset, phase), _, name, model in models_of(record):
            graphs, speed = record.pack_graphs(dataset, model), model.graphs_per_s
            if graphs and speed:
                sizes, size = seen[Part(dataset, phase, name)], _power(graphs)
                sizes[size] = sizes.get(size, DecayingHistogram(0.01)).add(speed, record.ended_s)
    return {part: {size: h.percentile(0.5) for size, h in sorted(s.items())} for part, s in seen.items()}


def find_knee(curves: Mapping[Part, Curve], packs: Mapping[Part, int]) -> Knee | None:
    """The smallest pack that is nearly the best for every model.

    Args:
        curves: Throughput by pack size, a power of two, for every model.
        packs: Graphs of each model's packs as they are.

    Returns:
        None where no model was measured with several sizes.
    """
    knees, gains = [], []
    for part, curve in curves.items():
        if len(curve) < 2:
            continue
        best = max(curve.values())
        graphs = min(size for size, speed in curve.items() if speed >= NEARLY_BEST * best)
        knees.append((graphs, graphs < max(curve)))
        if part in packs and (now := curve.get(_power(packs[part]))):
            gains.append(curve[graphs] / now)
    if not knees:
        return None
    return Knee(
        graphs=max(graphs for graphs, _ in knees),
        seen=all(seen for _, seen in knees),
        gain=statistics.geometric_mean(gains) if gains else 1.0,
        spread=max(MEASURES[GRAPHS_PER_S].noise, statistics.stdev(gains) if len(gains) > 1 else 0.0),
    )


def _to_knee(evidence: Evidence, records: Sequence[PlanRecord], knee: Knee) -> Finding:
    """Towards a larger size that was measured to be faster, as far as memory and the floor of steps allow."""
    training = evidence.settings.training
    if evidence.pack_limit < evidence.step_limit:
        setting, now, limit = MICRO_BATCH_SIZE, evidence.pack_limit, evidence.step_limit
        before = training.micro_batch_size
    else:
        setting, now, limit = BATCH_SIZE, evidence.step_limit, evidence.batch_cap
        before = training.batch_size
    value = min(knee.graphs, limit)
    if value <= now:
        return (
            f"Packs of {knee.graphs} graphs were {knee.gain:.2f} times as fast, but the largest dataset "
            f"allows no batch above {evidence.batch_cap} graphs at {training.min_steps_per_epoch} steps an "
            "epoch."
        )
    if not has_room(evidence, value, now):
        return (
            f"Packs of {knee.graphs} graphs were faster, but {evidence.memory_name} leaves no room for such."
        )
    speed = _speed(evidence)
    return Advice(
        setting=setting,
        value=value,
        before=before,
        reason=f"Packs of {knee.graphs} graphs reach {NEARLY_BEST:.0%} of the best throughput measured, "
        f"those of {now} do not: {setting.partition('.')[2]} {value} instead of {before}.",
        rests_on=_observed(records),
        num_observations=_num_observed(records),
        confidence=evidence.confidence(records, setting),
        metric=GRAPHS_PER_S,
        current=speed,
        expected=speed * knee.gain,
        low=speed * max(1.0, knee.gain - 2 * knee.spread),
        high=speed * (knee.gain + 2 * knee.spread),
        measured=_by_size(throughput_curves(evidence, records)),
        measured_as="Throughput by graphs per pack, of the models measured with all sizes",
    )


def _by_size(curves: Mapping[Part, Curve]) -> list[dict[str, Any]]:
    """Geometric mean over the models that were measured with most sizes, graphs/s."""
    most = max((len(curve) for curve in curves.values()), default=0)
    full = [curve for curve in curves.values() if len(curve) == most]
    sizes = sorted(set.intersection(*(set(curve) for curve in full))) if full else []
    means = {size: statistics.geometric_mean(curve[size] for curve in full) for size in sizes}
    return [
        point(f"{size} graphs", speed, format_measure(GRAPHS_PER_S, speed)) for size, speed in means.items()
    ]


def _experiment(evidence: Evidence, records: Sequence[PlanRecord]) -> Iterator[Finding]:
    """Too few sizes were tried to see a knee: the next power of two, where the GPU has time for it."""
    busy, training = evidence.gpu_percent, evidence.settings.training
    if not evidence.on_gpu or busy is None:
        return
    measured = f"GPU utilisation averaged {busy:.0f} %"
    at_work = [found for found in evidence.bottlenecks if found.bottleneck in _AT_WORK]
    if busy >= BUSY_PERCENT or 2 * len(at_work) > len(evidence.bottlenecks):
        why = f" and {len(at_work)} of {len(evidence.bottlenecks)} models were bound by it" if at_work else ""
        yield f"{measured}{why}: batch_size {training.batch_size} keeps it busy."
        return
    value = min(_power_above(training.batch_size), evidence.batch_cap)
    if value <= training.batch_size:
        yield (
            f"{measured}, but the largest dataset allows no batch above {evidence.batch_cap} graphs at "
            f"{training.min_steps_per_epoch} steps an epoch: to use the GPU better, let datasets share it."
        )
        return
    if any(out_of_memory(evidence)) or not has_room(evidence, value, training.batch_size):
        yield f"{measured}, but GPU memory leaves no room for larger batches."
        return
    speed = _speed(evidence)
    # Twice the batch gives at most twice the throughput, and no more than an idle GPU has left to give.
    most = min(value / training.batch_size, 100 / max(busy, 1.0))
    yield Advice(
        setting=BATCH_SIZE,
        value=value,
        before=training.batch_size,
        reason=f"{measured}, below {BUSY_PERCENT:.0f} %, and training hardly waited for data, but too few "
        f"batch sizes were tried to see where throughput stops rising: as an experiment batch_size {value} "
        f"instead of {training.batch_size}.",
        rests_on=_observed(records),
        num_observations=_num_observed(records),
        confidence=evidence.confidence(records, BATCH_SIZE, most=_EXPERIMENT),
        metric=GRAPHS_PER_S,
        current=speed,
        expected=speed * most**0.5,
        low=speed,
        high=speed * most,
    )


def _packs(record: PlanRecord) -> dict[Part, int]:
    return {
        Part(*key, name): graphs
        for key, _, name, model in models_of(record)
        if (graphs := record.pack_graphs(key[0], model))
    }


def _speed(evidence: Evidence) -> float:
    """Geometric mean over the models that were trained last, graphs/s."""
    speeds = [s for _, _, _, m in models_of(evidence.last or evidence.plan) if (s := m.graphs_per_s)]
    return statistics.geometric_mean(speeds) if speeds else 0.0


def _num_observed(records: Sequence[PlanRecord]) -> int:
    return sum(len(model.epochs) for record in records for *_, model in models_of(record))


def _observed(records: Sequence[PlanRecord]) -> str:
    return rests_on(records, _num_observed(records), "epoch")


def _power(graphs: int) -> int:
    """The nearest power of two: sizes that differ by less are taken for one."""
    return 1 << max(0, round(math.log2(graphs)))


def _power_above(graphs: int) -> int:
    return 1 << graphs.bit_length()
