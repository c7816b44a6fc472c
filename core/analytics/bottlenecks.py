"""What kept each model of a plan from being trained faster: its events and resource samples, judged."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import polars as pl

from core.analytics.buckets import mean, whole
from core.analytics.results import ModelBottleneck
from core.events.catalogue import EpochFinished, PhaseStarted, PlanCreated
from core.events.event import Event
from core.events.resource_facts import PackLimitChanged, PackLimitChosen, StorePlaced
from core.events.telemetry import Samples
from core.resources.verdict import Signals, judge

Key: TypeAlias = tuple[str, str, str]
"""Dataset, phase and model."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DATASET = 2**53
"""More microseconds than any time has."""
_DIGITS = 4  # of the numbers that are kept: more would be noise, and differ with the number of threads


@dataclass
class _Trained:
    """What the log tells of one model's training, all attempts together."""

    spans: list[tuple[datetime, datetime]] = field(default_factory=list)
    duration_s: float = 0.0  # without validation, where the log tells it
    wait_s: float = 0.0
    load_s: float | None = None
    num_steps: int = 0
    num_packs: int | None = None
    num_workers: int | None = None
    prefetch_factor: int | None = None
    num_memory_events: int = 0
    pack_limit_binds: str | None = None


@dataclass
class _Log:
    """What the log tells of all of it."""

    models: dict[Key, _Trained] = field(default_factory=lambda: defaultdict(_Trained))
    phases: dict[tuple[str, str], dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))
    num_cpus: int | None = None
    num_cores: int | None = None
    num_threads: int | None = None


def fold_bottlenecks(events: Iterable[Event], samples: Samples) -> tuple[ModelBottleneck, ...]:
    """Judge the training of every model that finished an epoch.

    Args:
        events: A plan's events, in order; a plan that is not finished folds too.
        samples: Its resource samples in any order, perhaps too many to collect; those within the epochs of a
            model are its own. Without any the verdict rests on the events, or is ``unknown``.

    Returns:
        One per dataset, phase and model, in the order in which they were first trained.
    """
    log = _Log()
    for event in events:
        if apply := _STEPS.get(event.type):
            apply(log, event)
    trained = {key: model for key, model in log.models.items() if model.spans}
    measured = _measure(trained, samples)
    found = []
    for key, model in trained.items():
        verdict = judge(_signals(log, key, model, measured.get(key, {})))
        numbers = {k: round(v, _DIGITS) if isinstance(v, float) else v for k, v in verdict.numbers.items()}
        found.append(
            ModelBottleneck(
                **dict(zip(("dataset", "phase", "model"), key, strict=True)),
                bottleneck=verdict.bottleneck,
                cause=verdict.cause,
                reason=verdict.reason,
                change=verdict.change,
                settings=verdict.settings,
                numbers=numbers,
                missing=verdict.missing,
            )
        )
    return tuple(found)


def _signals(log: _Log, key: Key, model: _Trained, measured: Mapping[str, Any]) -> Signals:
    about = {"device": "cpu", **log.phases[key[:2]]}
    loading_s = model.duration_s * max(1, model.num_workers or 0)
    return Signals(
        **{"num_cpus": log.num_cpus, **about, **measured},
        duration_s=model.duration_s,
        data_wait_share=model.wait_s / model.duration_s if model.duration_s else None,
        data_load_share=model.load_s / loading_s if model.load_s is not None and loading_s else None,
        num_workers=model.num_workers,
        prefetch_factor=model.prefetch_factor,
        num_packs_per_step=model.num_packs / model.num_steps if model.num_packs and model.num_steps else None,
        pack_ms=1000 * (model.duration_s - model.wait_s) / model.num_packs if model.num_packs else None,
        pack_limit_binds=model.pack_limit_binds,
        num_memory_events=model.num_memory_events,
        num_cores=log.num_cores,
        num_threads=log.num_threads,
    )


def _measure(trained: Mapping[Key, _Trained], samples: Samples) -> dict[Key, dict[str, Any]]:
    """Means of the samples within the epochs of each model, without those that were not measured."""
    epochs = _Epochs(trained)
    power = pl.when(~pl.col("gpu_uuid").fill_null("").str.starts_with("MIG-")).then("gpu_power_w")
    throttled = pl.col("gpu_throttle_reasons").str
    values = {
        "gpu_utilization": pl.col("gpu_utilization_percent") / 100,
        "sm_activity": pl.col("gpu_sm_activity_percent") / 100,
        "power_share": power / pl.col("gpu_power_limit_w"),
        "dram_activity": pl.col("gpu_dram_activity_percent") / 100,
        "vram_busy_share": pl.col("gpu_memory_utilization_percent") / 100,
        "throttled_thermal": throttled.contains("thermal", literal=True).cast(pl.Float64),
        "throttled_power": throttled.contains("power", literal=True).cast(pl.Float64),
        "training_cpus": pl.col("training_cpu_percent") / 100,
        "machine_cpu_share": pl.col("cpu_percent") / 100,
        "ram_share": pl.col("ram_used_mib") / pl.col("ram_total_mib"),
        "swap_bytes_per_s": pl.col("swap_in_bytes_per_s") + pl.col("swap_out_bytes_per_s"),
        "major_faults_per_s": pl.col("training_major_faults_per_s"),
    }
    means = (
        samples.lazy()
        .filter(_is_first_gpu(samples))
        .select(epochs.owner().alias("owner"), "num_cpus", *(v.alias(name) for name, v in values.items()))
        .drop_nulls("owner")
        .select("owner", "num_cpus", *(whole(name, pl.col(name)).alias(name) for name in values))
        .group_by("owner")
        .agg(pl.col("num_cpus").max(), pl.col(*values).sum(), pl.col(*values).count().name.suffix("_num"))
        .collect(engine="streaming")
        .select(
            "owner",
            "num_cpus",
            *(mean(name, pl.col(name), pl.col(f"{name}_num")).alias(name) for name in values),
        )
    )
    rows = [{name: v for name, v in row.items() if v is not None} for row in means.iter_rows(named=True)]
    return {epochs.keys[row.pop("owner")]: row for row in rows}


def _is_first_gpu(samples: Samples) -> pl.Expr:
    """Whether a sample is of the GPU that training uses: CUDA's first; in old releases the driver's."""
    lowest = samples.lazy().group_by("dataset").agg(pl.col("gpu_index").min()).collect(engine="streaming")
    first = _of_dataset(dict(lowest.drop_nulls().iter_rows()))
    by_driver = pl.when(pl.col("gpu_index") != first).then(1).otherwise(0)
    return pl.coalesce("cuda_index", by_driver) == 0


def _of_dataset(numbers: Mapping[str, int]) -> pl.Expr:
    """A number by the dataset of a sample; unlike ``replace_strict`` it needs no whole column in memory."""
    known = [pl.when(pl.col("dataset") == name).then(number) for name, number in numbers.items()]
    return pl.coalesce(*known, pl.lit(None, pl.Int64))


class _Epochs:
    """Tells whose epochs samples fall into.

    A chain trains one model at a time: a sample belongs to the epoch of its dataset that began last.
    """

    def __init__(self, trained: Mapping[Key, _Trained]) -> None:
        self.keys = list(trained)
        self._datasets = {
            name: n for n, name in enumerate(dict.fromkeys(dataset for dataset, *_ in self.keys))
        }
        spans = sorted(
            (self._place(key, began), self._place(key, ended), owner)
            for owner, (key, model) in enumerate(trained.items())
            for began, ended in model.spans
        )
        columns = zip(*spans, strict=True) if spans else ((), (), ())
        self._began, self._ended, self._owners = (pl.Series(column, dtype=pl.Int64) for column in columns)

    def owner(self) -> pl.Expr:
        """The index in ``keys`` of the model that a sample belongs to; null of none."""
        place = _of_dataset(self._datasets).cast(pl.Int64) * _DATASET + pl.col("occurred_at").dt.epoch("us")
        return place.map_batches(self._find, return_dtype=pl.Int64, is_elementwise=True)

    def _place(self, key: Key, at: datetime) -> int:
        """A time as a whole number that is apart from those of other datasets."""
        return self._datasets[key[0]] * _DATASET + (at - _EPOCH) // timedelta(microseconds=1)

    def _find(self, places: pl.Series) -> pl.Series:
        last_begun = self._began.search_sorted(places, side="right").cast(pl.Int64) - 1
        found = pl.DataFrame({"place": places, "span": last_begun}).select(
            pl.when((pl.col("span") >= 0) & (pl.col("place") <= _at(self._ended))).then(_at(self._owners))
        )
        return found.to_series()


def _at(values: pl.Series) -> pl.Expr:
    return pl.lit(values).gather(pl.col("span").clip(0), null_on_oob=True)


def _plan(log: _Log, event: Event) -> None:
    log.num_cpus = event.payload["machine"].get("num_cpus")
    log.num_cores = event.payload["machine"].get("num_cores")
    log.num_threads = event.payload["settings"].get("training", {}).get("num_threads") or None


def _phase(log: _Log, event: Event) -> None:
    fact = event.payload
    about = {"device": fact["device"], "precision": fact["precision"]}
    log.phases[fact["dataset"], fact["phase"]].update(about)


def _placed(log: _Log, event: Event) -> None:
    fact = event.payload
    log.phases[fact["dataset"], fact["phase"]]["placement"] = fact["placement"]


def _model(log: _Log, event: Event) -> _Trained:
    fact = event.payload
    return log.models[fact["dataset"], fact["phase"], fact["model"]]


def _chosen(log: _Log, event: Event) -> None:
    _model(log, event).pack_limit_binds = event.payload["binds"]


def _changed(log: _Log, event: Event) -> None:
    _model(log, event).num_memory_events += event.payload["reason"] != "room"


def _epoch(log: _Log, event: Event) -> None:
    fact, model = event.payload, _model(log, event)
    duration_s = fact["duration_s"] or 0.0
    model.spans.append((event.occurred_at - timedelta(seconds=duration_s), event.occurred_at))
    model.duration_s += duration_s - (fact["validation_s"] or 0.0)
    model.wait_s += fact["data_wait_s"] or 0.0
    model.num_steps += fact["num_steps"]
    for total, name in (("load_s", "data_load_s"), ("num_packs", "num_packs")):
        if fact[name] is not None:
            setattr(model, total, (getattr(model, total) or 0) + fact[name])
    model.num_workers = fact["num_workers"]
    model.prefetch_factor = fact["prefetch_factor"]


_STEPS: dict[str, Callable[[_Log, Event], None]] = {
    PlanCreated.TYPE: _plan,
    PhaseStarted.TYPE: _phase,
    StorePlaced.TYPE: _placed,
    PackLimitChosen.TYPE: _chosen,
    PackLimitChanged.TYPE: _changed,
    EpochFinished.TYPE: _epoch,
}
