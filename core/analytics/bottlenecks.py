"""What kept each model of a plan from being trained faster: its events and resource samples, judged."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import polars as pl

from core.analytics.results import ModelBottleneck
from core.events.catalogue import EpochFinished, PhaseStarted, PlanCreated
from core.events.event import Event
from core.events.resource_facts import PackLimitChanged, PackLimitChosen, StorePlaced
from core.resources.verdict import Signals, judge

Key: TypeAlias = tuple[str, str, str]
"""Dataset, phase and model."""

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


def fold_bottlenecks(events: Iterable[Event], samples: pl.DataFrame) -> tuple[ModelBottleneck, ...]:
    """Judge the training of every model that finished an epoch.

    Args:
        events: A plan's events, in order; a plan that is not finished folds too.
        samples: Its resource samples, as of ``core.events.telemetry.read_telemetry``; those within the epochs
            of a model are its own. Without any the verdict rests on the events, or is ``unknown``.

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


def _measure(trained: Mapping[Key, _Trained], samples: pl.DataFrame) -> dict[Key, dict[str, Any]]:
    """Means of the samples within the epochs of each model; None where nothing was measured."""
    spans = pl.DataFrame(
        [(*key, began, ended) for key, model in trained.items() for began, ended in model.spans],
        schema={
            **dict.fromkeys(("dataset", "phase", "model"), pl.String()),
            **dict.fromkeys(("began", "ended"), pl.Datetime("us", "UTC")),
        },
        orient="row",
    )
    first_gpu = pl.coalesce("cuda_index", pl.col("gpu_index").rank("dense").over("dataset") - 1)
    power = pl.when(~pl.col("gpu_uuid").fill_null("").str.starts_with("MIG-")).then("gpu_power_w")
    throttled = pl.col("gpu_throttle_reasons").str
    means = (
        samples.filter(first_gpu.fill_null(0) == 0)
        .sort("occurred_at", maintain_order=True)
        # A chain trains one model at a time: the epoch that began last is the one a sample belongs to.
        .join_asof(
            spans.sort("began"), left_on="occurred_at", right_on="began", by="dataset", check_sortedness=False
        )
        .filter(pl.col("occurred_at") <= pl.col("ended"))
        .group_by("dataset", "phase", "model")
        .agg(
            gpu_utilization=pl.col("gpu_utilization_percent").mean() / 100,
            sm_activity=pl.col("gpu_sm_activity_percent").mean() / 100,
            power_share=(power / pl.col("gpu_power_limit_w")).mean(),
            dram_activity=pl.col("gpu_dram_activity_percent").mean() / 100,
            vram_busy_share=pl.col("gpu_memory_utilization_percent").mean() / 100,
            throttled_thermal=throttled.contains("thermal").mean(),
            throttled_power=throttled.contains("power").mean(),
            num_cpus=pl.col("num_cpus").max(),
            training_cpus=pl.col("training_cpu_percent").mean() / 100,
            machine_cpu_share=pl.col("cpu_percent").mean() / 100,
            ram_share=(pl.col("ram_used_mib") / pl.col("ram_total_mib")).mean(),
            swap_bytes_per_s=(pl.col("swap_in_bytes_per_s") + pl.col("swap_out_bytes_per_s")).mean(),
            major_faults_per_s=pl.col("training_major_faults_per_s").mean(),
        )
    )
    rows = [{name: v for name, v in row.items() if v is not None} for row in means.iter_rows(named=True)]
    return {(row.pop("dataset"), row.pop("phase"), row.pop("model")): row for row in rows}


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
