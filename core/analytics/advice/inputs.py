"""Workers and prefetch: what the adaptive optimizer arrived at is what the next plan begins with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.analytics.advice.evidence import Advice, Evidence, Finding, models_of, rests_on
from core.analytics.advice.measures import DATA_WAIT_SHARE
from core.analytics.observations import PlanRecord, wait_share

NUM_WORKERS, PREFETCH_FACTOR = "dataset.num_workers", "dataset.prefetch_factor"
MAX_WORKERS = "dataset.max_workers"


@dataclass(frozen=True)
class Converged:
    """Where the adaptive optimizer came to rest in one phase.

    Attributes:
        num_workers: Worker threads.
        prefetch_factor: Packs held ready per thread.
        records: The plans that it is known from, oldest first.
        num: Trainings among them that ran long enough to be adjusted.
        ram_pressure: Whether RAM ran short in the newest of them, which then decides alone.
    """

    num_workers: int
    prefetch_factor: int
    records: Sequence[PlanRecord]
    num: int
    ram_pressure: bool


def inputs(evidence: Evidence) -> Iterator[Finding]:
    """Values to begin with, and what to do where training still waits for data."""
    if evidence.last is None:
        return
    names = dict.fromkeys(phase for record in evidence.history for _, phase in record.trained)
    phases = {phase: found for phase in names if (found := converged(evidence, phase))}
    placements = {run.placement for _, run, _, _ in models_of(evidence.last)}
    if phases:
        yield from _start_values(evidence, phases)
    elif placements == {"resident"}:
        yield (
            "Graphs lay where training computes (placement resident): num_workers and prefetch_factor make "
            "no difference."
        )
        return
    if evidence.waits:
        yield from _more_workers(evidence, evidence.last)


def converged(evidence: Evidence, phase: str) -> Converged | None:
    """The median, by weight, of where trainings of a phase ended; None if none was ever adjusted.

    Only plans that left the adjusting to the optimizer count, and trainings long enough for it.

    Args:
        evidence: All plans on the device.
        phase: The phase.
    """
    ends: list[tuple[PlanRecord, int, int, bool]] = []
    for record in evidence.history:
        interval = record.setting("training.adaptive_adjustment_interval")
        if not interval or not record.setting("training.adaptive_optimization"):
            continue
        for (_, name), run, _, model in models_of(record):
            needed = model.input_needed
            if name == phase and run.placement != "resident" and needed and model.num_steps >= interval:
                ends.append((record, *needed, model.ram_pressure))
    ends = [end for end in ends if end[1] > 0]  # without workers there is nothing to begin with
    if not ends:
        return None
    pressed = [end for end in ends if end[0] is ends[-1][0] and end[3]]
    considered = pressed or ends
    weights = [evidence.weight(record) for record, *_ in considered]
    settings = evidence.settings.dataset
    return Converged(
        num_workers=min(_median([end[1] for end in considered], weights), settings.max_workers),
        prefetch_factor=min(_median([end[2] for end in considered], weights), settings.max_prefetch_factor),
        records=list({record.plan_id: record for record, *_ in considered}.values()),
        num=len(considered),
        ram_pressure=bool(pressed),
    )


def _start_values(evidence: Evidence, phases: dict[str, Converged]) -> Iterator[Finding]:
    """One value for all phases: of the one that needs most, unless RAM ran short."""
    pressed = {phase: found for phase, found in phases.items() if found.ram_pressure}
    current = evidence.settings.dataset
    for setting, before in ((NUM_WORKERS, current.num_workers), (PREFETCH_FACTOR, current.prefetch_factor)):
        name = setting.partition(".")[2]
        values = {phase: getattr(found, name) for phase, found in (pressed or phases).items()}
        choose = min if pressed else max
        phase = choose(values, key=lambda phase: values[phase])
        value, found = values[phase], phases[phase]
        based_on = rests_on(found.records, found.num, "training")
        if value == before:
            yield f"{name} {value} is where {phase} came to rest: begin with it again. Based on {based_on}."
            continue
        waited, settled = _waited(found.records[-1], phase)
        lowered = "RAM ran short" if pressed else "the adaptive optimizer came to rest"
        yield Advice(
            setting=setting,
            value=value,
            before=before,
            phase=phase,
            reason=f"In {phase} {lowered} at {name} {value}: begin with it instead of {before}.",
            rests_on=based_on,
            num_observations=found.num,
            confidence=evidence.confidence(found.records, setting),
            # Fewer of them are to save RAM, not time.
            metric=DATA_WAIT_SHARE if value > before else None,
            current=waited,
            expected=min(settled, waited),
            low=0.0,
            high=waited,
        )


def _more_workers(evidence: Evidence, last: PlanRecord) -> Iterator[Advice]:
    """Raise the most workers there may be, where all of them were not enough and there are CPUs left."""
    most, num_cpus = evidence.settings.dataset.max_workers, int(evidence.plan.machine["num_cpus"])
    free = num_cpus - 1  # one is left to the training thread
    models = [model for *_, model in models_of(last)]
    at_most = any((end := model.input_needed) and end[0] >= most for model in models)
    if not at_most or most >= free:
        return
    waited, value = evidence.wait_share or 0.0, min(free, 2 * most)
    num = sum(len(model.epochs) for model in models)
    yield Advice(
        setting=MAX_WORKERS,
        value=value,
        before=most,
        reason=f"Training waited for data {waited:.0%} of the time even once it had settled, with as many "
        f"workers as allowed: max_workers {value} of {num_cpus} CPUs.",
        rests_on=rests_on([last], num, "epoch"),
        num_observations=num,
        confidence=evidence.confidence([last], MAX_WORKERS),
        metric=DATA_WAIT_SHARE,
        current=waited,
        expected=waited / 2,
        low=0.0,
        high=waited,
    )


def _waited(record: PlanRecord, phase: str) -> tuple[float, float]:
    """Share of the time of a phase spent waiting for data: over all epochs, and once it had settled."""
    models = [model for (_, name), _, _, model in models_of(record) if name == phase]
    everything = wait_share(epoch for model in models for epoch in model.epochs.values())
    settled = wait_share(epoch for model in models for epoch in model.settled)
    return everything or 0.0, settled or 0.0


def _median(values: Sequence[int], weights: Sequence[float]) -> int:
    """The weighted median; where it lies between two values, the one nearer to the newest, which is last."""
    order = sorted(zip(values, weights, strict=True))
    total, below, medians = sum(weights), 0.0, []
    for value, weight in order:
        # From a half before it to a half after it: two values where the weights split evenly.
        if below <= total / 2 <= below + weight:
            medians.append(value)
        below += weight
    return min(max(values[-1], medians[0]), medians[-1])
