"""What a recommendation may improve, and how it is read off a plan."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from core.analytics.metrics import format_memory, format_number
from core.analytics.observations import ModelRun, PlanRecord, wait_share

TRAINED_BY_EPOCHS = ("teacher", "student")
"""Phases whose models ``training.epochs`` bounds."""


class Part(NamedTuple):
    """What is compared between plans: a model's training, or a whole phase where the model is empty."""

    dataset: str
    phase: str
    model: str = ""


@dataclass(frozen=True)
class Measure:
    """One quantity.

    Attributes:
        values: Reads it off a plan, by part.
        higher_is_better: Which way is better.
        relative: Whether a change of it counts as a share of what it was.
        noise: What it differs by between plans that differ in nothing: a share where relative.
        unit: Follows the number, for people.
    """

    values: Callable[[PlanRecord], Mapping[Part, float]]
    higher_is_better: bool
    relative: bool
    noise: float
    unit: str


def _of_models(read: Callable[[ModelRun], float | None]) -> Callable[[PlanRecord], Mapping[Part, float]]:
    def values(record: PlanRecord) -> dict[Part, float]:
        return {
            Part(*key, model): value
            for key, run in record.trained.items()
            for model, trained in run.models.items()
            if (value := read(trained)) is not None
        }

    return values


def _peaks(record: PlanRecord) -> dict[Part, float]:
    return {Part(*key): run.peak_mib for key, run in record.trained.items() if run.peak_mib is not None}


def _num_ooms(record: PlanRecord) -> dict[Part, float]:
    """Of phases that ended badly, too: some of them for that reason."""
    return {Part(*key): float(len(run.ooms)) for key, run in record.phases.items() if key[1] != "graphs"}


def _best_losses(record: PlanRecord) -> dict[Part, float]:
    """Of what trains by epochs: fusion's loss is that of scores which change with the models before it."""
    best = _of_models(lambda model: min(model.losses.values(), default=None))(record)
    return {part: loss for part, loss in best.items() if part.phase in TRAINED_BY_EPOCHS}


GRAPHS_PER_S = "graphs_per_s"
DATA_WAIT_SHARE = "data_wait_share"
PEAK_MEMORY_MIB = "peak_memory_mib"
NUM_OOMS = "num_ooms"
BEST_VAL_LOSS = "best_val_loss"

MEASURES: Mapping[str, Measure] = {
    GRAPHS_PER_S: Measure(_of_models(lambda m: m.graphs_per_s), True, True, 0.05, "graphs/s"),
    # All epochs, not the settled ones: better values to begin with pay in the first.
    DATA_WAIT_SHARE: Measure(
        _of_models(lambda m: wait_share(m.epochs.values())), False, False, 0.01, "of the time"
    ),
    PEAK_MEMORY_MIB: Measure(_peaks, False, True, 0.05, "MiB"),
    NUM_OOMS: Measure(_num_ooms, False, False, 0.25, "times out of memory"),
    BEST_VAL_LOSS: Measure(_best_losses, False, True, 0.02, "validation loss"),
}

_NAMES = {
    GRAPHS_PER_S: "Throughput",
    DATA_WAIT_SHARE: "Time spent waiting for data",
    PEAK_MEMORY_MIB: "Peak memory",
    NUM_OOMS: "Times out of memory",
    BEST_VAL_LOSS: "Lowest validation loss",
}


def measure_name(metric: str) -> str:
    """What people call a measure; one of another release by its own name."""
    return _NAMES.get(metric, metric)


def format_measure(metric: str, value: float) -> str:
    """A measured value with its unit, as people write it."""
    if metric == DATA_WAIT_SHARE:
        return f"{100 * value:.0f} %" if value >= 0.0995 or value == 0 else f"{100 * value:.1f} %"
    if metric == PEAK_MEMORY_MIB:
        return format_memory(value)
    if metric == NUM_OOMS:
        return f"{value:.1f}".removesuffix(".0")
    if metric == GRAPHS_PER_S:
        return f"{format_number(float(f'{value:.3g}'))} graphs/s"
    return format_number(value)
