"""Bottlenecks of a plan: which samples and events count for which model."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from core.analytics.board import fold_dashboard
from core.analytics.bottlenecks import fold_bottlenecks
from core.analytics.canonical import to_json
from core.analytics.dashboard import render_html
from core.analytics.results import ModelBottleneck
from core.events.catalogue import EpochFinished, Fact, PhaseStarted, PlanCreated, to_event
from core.events.event import Event
from core.events.resource_facts import PackLimitChanged, PackLimitChosen, StorePlaced
from core.events.telemetry import TELEMETRY_SCHEMA, read_telemetry
from tests.sample_log import MACHINES, PLAN_ID, sample_events, write_telemetry

START = datetime(2026, 11, 3, tzinfo=UTC)
NO_SAMPLES = pl.DataFrame(schema=TELEMETRY_SCHEMA)
LIMIT = {"graphs": 512, "nodes": 1000, "edges": 2000}
MODEL = {"dataset": "a", "phase": "teacher", "model": "vgae"}
CHANGE: dict[str, Any] = {
    **MODEL,
    "epoch": 0,
    "step": 3,
    "before": LIMIT,
    "after": LIMIT,
    "allocated_mib": None,
    "reserved_mib": None,
}


def at(second: float, fact: Fact) -> Event:
    return to_event("p", fact)._replace(occurred_at=START + timedelta(seconds=second))


def epoch(model: str, ended_s: float, duration_s: float = 10.0, **fields: Any) -> Event:
    values: dict[str, Any] = {
        "dataset": "a",
        "phase": "teacher",
        "epoch": 0,
        "train_loss": 1.0,
        "val_loss": 1.0,
        "val_metric": None,
        "learning_rate": 1e-3,
        "num_steps": 50,
        "graphs_per_s": 100.0,
        "data_wait_s": 0.0,
        **fields,
    }
    return at(ended_s, EpochFinished(model=model, duration_s=duration_s, **values))


def plan(*, gpu: bool = True, num_threads: int = 0) -> list[Event]:
    settings = {"training": {"num_threads": num_threads}}
    created = PlanCreated(steps=[], settings=settings, machine=MACHINES[gpu], force=False, previous=[])
    started = PhaseStarted(
        dataset="a",
        phase="teacher",
        attempt=1,
        device="cuda" if gpu else "cpu",
        precision="bf16" if gpu else "fp32",
        micro_batch_size=0,
    )
    return [at(0, created), at(0, started)]


def samples(*rows: dict[str, Any]) -> pl.DataFrame:
    """One row per second from the start on, unless it says otherwise."""
    filled = [
        {
            "plan": "p",
            "dataset": "a",
            "occurred_at": START + timedelta(seconds=row.pop("second", number)),
            "num_cpus": 16,
            "training_cpu_percent": 100.0,
            **row,
        }
        for number, row in enumerate(dict(row) for row in rows)
    ]
    return pl.DataFrame(filled, schema=TELEMETRY_SCHEMA)


def verdicts(events: Sequence[Event], rows: pl.DataFrame) -> dict[str, ModelBottleneck]:
    return {found.model: found for found in fold_bottlenecks(events, rows)}


def test_samples_count_for_the_model_whose_epochs_they_fall_into() -> None:
    events = [*plan(), epoch("vgae", 12.0), epoch("gat", 25.0), epoch("vgae", 40.0)]
    busy, idle = {"gpu_sm_activity_percent": 90.0}, {"gpu_sm_activity_percent": 10.0}
    rows = [busy if 2 <= second <= 12 or 30 <= second <= 40 else idle for second in range(45)]
    found = verdicts(events, samples(*rows))
    assert (found["vgae"].bottleneck, found["vgae"].numbers["sm_activity"]) == ("compute_bound", 0.9)
    assert (found["gat"].bottleneck, found["gat"].numbers["sm_activity"]) == ("launch_bound", 0.1)
    assert found["vgae"].numbers["duration_s"] == 20.0


def test_datasets_that_train_at_once_are_told_apart() -> None:
    events = [*plan(), epoch("vgae", 12.0), epoch("vgae", 12.0, dataset="b")]
    rows = samples(*({"gpu_sm_activity_percent": 90.0, "training_cpu_percent": 50.0} for _ in range(13)))
    others = rows.with_columns(dataset=pl.lit("b"), training_cpu_percent=pl.lit(200.0))
    found = fold_bottlenecks(events, pl.concat([rows, others]).sort("occurred_at"))
    assert [(f.dataset, f.numbers["training_cpus"]) for f in found] == [("a", 0.5), ("b", 2.0)]


def test_training_is_on_the_first_gpu_that_cuda_sees() -> None:
    on_first = {"cuda_index": 0, "gpu_index": 3, "gpu_sm_activity_percent": 90.0}
    beside = {"cuda_index": 1, "gpu_index": 0, "gpu_sm_activity_percent": 0.0}
    rows = samples(*({**row, "second": s} for s in range(13) for row in (beside, on_first)))
    assert verdicts([*plan(), epoch("vgae", 12.0)], rows)["vgae"].numbers["sm_activity"] == 0.9
    # Releases before had no such column: the first by the driver's count.
    old = rows.with_columns(cuda_index=pl.lit(None, pl.Int64))
    assert verdicts([*plan(), epoch("vgae", 12.0)], old)["vgae"].numbers["sm_activity"] == 0.0


def test_power_counts_where_nothing_better_is_measured_but_not_of_a_slice() -> None:
    drawn = {"gpu_power_w": 300.0, "gpu_power_limit_w": 400.0, "gpu_throttle_reasons": "power_cap"}
    events = [*plan(), epoch("vgae", 12.0)]
    whole = verdicts(events, samples(*({**drawn, "gpu_uuid": "GPU-1"} for _ in range(13))))["vgae"]
    assert (whole.bottleneck, whole.cause, whole.numbers["power_share"]) == (
        "compute_bound",
        "power_limit",
        0.75,
    )
    piece = verdicts(events, samples(*({**drawn, "gpu_uuid": "MIG-1"} for _ in range(13))))["vgae"]
    assert (piece.bottleneck, piece.missing) == ("unknown", ("sm_activity or power_share",))


def test_what_the_log_tells_of_input_and_memory_is_weighed() -> None:
    changed = PackLimitChanged(stage="forward", reason="cuda_oom", **CHANGE)
    placed = StorePlaced(
        dataset="a", phase="teacher", placement="pinned", num_bytes=1, room_bytes=0, reason="it does not fit"
    )
    events = [
        *plan(num_threads=4),
        at(1, placed),
        at(1, changed)._replace(type=PackLimitChosen.TYPE, payload={**MODEL, "binds": "memory"}),
        at(1, changed),
        epoch(
            "vgae", 12.0, data_wait_s=0.5, data_load_s=12.0, num_packs=200, num_workers=6, prefetch_factor=3
        ),
        epoch(
            "vgae", 24.0, data_wait_s=1.5, data_load_s=24.0, num_packs=200, num_workers=8, prefetch_factor=4
        ),
    ]
    found = verdicts(events, samples(*({"gpu_sm_activity_percent": 30.0} for _ in range(25))))["vgae"]
    assert (found.bottleneck, found.cause) == ("memory_bound", "small_packs")
    wanted = {
        "data_wait_share": 0.1,
        "data_load_share": 36.0 / (8 * 20.0),
        "num_workers": 8,
        "prefetch_factor": 4,
        "placement": "pinned",
        "num_packs_per_step": 4.0,
        "pack_ms": 45.0,
        "pack_limit_binds": "memory",
        "num_memory_events": 1,
        "num_threads": 4,
    }
    assert {name: found.numbers[name] for name in wanted} == wanted


def test_room_found_again_is_no_lack_of_memory() -> None:
    events = [*plan(), epoch("vgae", 12.0)]
    room = PackLimitChanged(stage="between", reason="room", **CHANGE)
    assert verdicts([*events, at(3, room)], NO_SAMPLES)["vgae"].numbers["num_memory_events"] == 0


def test_a_cpu_machine_gets_a_verdict_too() -> None:
    rows = samples(*({"training_cpu_percent": 760.0, "num_cpus": 8, "cpu_percent": 96.0} for _ in range(13)))
    found = verdicts([*plan(gpu=False), epoch("vgae", 12.0)], rows)["vgae"]
    assert (found.bottleneck, found.numbers["training_cpus"]) == ("compute_bound", 7.6)


def test_without_samples_only_what_events_tell_is_judged() -> None:
    events = [*plan(), epoch("vgae", 12.0), epoch("gat", 24.0, data_wait_s=5.0)]
    found = verdicts(events, NO_SAMPLES)
    assert (found["vgae"].bottleneck, found["gat"].bottleneck) == ("unknown", "data_wait")
    assert found["vgae"].missing
    assert fold_bottlenecks([], NO_SAMPLES) == ()


@pytest.mark.parametrize("gpu", [True, False])
def test_a_plans_results_and_page_tell_its_bottlenecks(tmp_path: Path, gpu: bool) -> None:
    events = sample_events(gpu=gpu)
    write_telemetry(tmp_path, events, gpu=gpu)
    rows = read_telemetry(tmp_path, PLAN_ID)
    dashboard = fold_dashboard(PLAN_ID, {PLAN_ID: events}, rows)
    found = dashboard.results.bottlenecks
    assert {f.model for f in found} >= {"teacher_vgae", "student_gat", "fusion"}
    assert {f.bottleneck for f in found} <= {"compute_bound", "launch_bound", "unknown"}
    assert "compute_bound" in {f.bottleneck for f in found}
    page = render_html(dashboard)
    assert all(f.reason in page for f in found if "'" not in f.reason)
    again = fold_dashboard(PLAN_ID, {PLAN_ID: list(events)}, rows.clone())
    assert to_json(again.results) == to_json(dashboard.results)
    assert render_html(again) == page
