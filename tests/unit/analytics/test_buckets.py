"""Measured quantities in few points."""

from datetime import UTC, datetime, timedelta
from random import Random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.analytics.buckets import MAX_BUCKETS, curve, fold_buckets, num_buckets, read_clock, total_mean
from core.events.telemetry import TELEMETRY_SCHEMA

START = datetime(2026, 11, 3, tzinfo=UTC)


def samples(seconds: list[float], num_gpus: int = 1) -> pl.DataFrame:
    rows = [
        {
            "occurred_at": START + timedelta(seconds=second),
            "cpu_percent": float(second % 100),
            "gpu_index": gpu,
            "vram_used_mib": float(1000 * gpu + second),
        }
        for second in seconds
        for gpu in range(num_gpus)
    ]
    return pl.DataFrame(rows, schema=TELEMETRY_SCHEMA)


def bucket(rows: pl.DataFrame, metric: str, max_buckets: int = MAX_BUCKETS) -> pl.DataFrame:
    clock = read_clock(rows.lazy())
    assert clock is not None
    buckets = fold_buckets(rows.lazy(), [metric], clock, max_buckets)
    return curve(buckets, metric, per_gpu=metric.startswith(("gpu_", "vram_")))


def test_buckets_are_few_and_keep_extremes() -> None:
    points = bucket(samples([*range(20_000)]), "cpu_percent")
    assert len(points) <= MAX_BUCKETS
    assert (points["min"].min(), points["max"].max()) == (0.0, 99.0)
    assert points["mean"].mean() == pytest.approx(49.5, abs=0.1)


def test_fewer_samples_than_buckets_stay_as_they_are() -> None:
    points = bucket(samples([*range(10)]), "cpu_percent")
    assert points["mean"].to_list() == [float(number) for number in range(10)]
    assert points["occurred_at"].to_list() == [START + timedelta(seconds=second) for second in range(10)]


def test_gpus_are_series_of_their_own_and_the_machine_is_one() -> None:
    rows = samples([*range(50)], num_gpus=2)
    assert sorted(set(bucket(rows, "vram_used_mib")["gpu_index"])) == [0, 1]
    assert set(bucket(rows, "cpu_percent")["gpu_index"]) == {None}


def test_what_was_not_measured_has_no_buckets() -> None:
    assert bucket(samples([*range(5)]), "gpu_power_w").is_empty()
    assert read_clock(TELEMETRY_SCHEMA.to_frame().lazy()) is None


def test_what_is_not_finite_counts_as_not_measured() -> None:
    rows = samples([0, 1, 2]).with_columns(cpu_percent=pl.Series([1.0, float("inf"), float("nan")]))
    assert bucket(rows, "cpu_percent").select("min", "mean", "max").rows() == [(1.0, 1.0, 1.0)]


def test_a_pause_of_days_takes_no_points_from_what_was_measured_before_and_after_it() -> None:
    hour, days = [*range(3600)], 3 * 86_400
    rows = samples([*hour, *(days + second for second in hour)])
    points = bucket(rows, "cpu_percent")
    assert MAX_BUCKETS * 0.9 < len(points) <= MAX_BUCKETS + 1
    steps = points["occurred_at"].diff().drop_nulls().sort()
    assert steps[-1] > timedelta(days=2), "nothing stands where nothing was measured"
    assert steps[-2] < timedelta(minutes=1)


def test_points_are_fewer_where_there_are_many_gpus() -> None:
    assert [num_buckets(num) for num in (0, 1, 4, 8, 64)] == [500, 500, 500, 250, 200]


VALUES = st.none() | st.floats(-1e9, 1e9) | st.sampled_from([float("inf"), float("nan")])
ROWS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 2), VALUES), min_size=1, max_size=60)


@settings(deadline=None, max_examples=60)
@given(ROWS, st.integers(1, 20), st.randoms(use_true_random=False))
def test_peaks_of_every_gpu_survive_and_means_lie_between_them_in_whatever_order(
    rows: list[tuple[int, int, float | None]], max_buckets: int, random: Random
) -> None:
    def points_of(rows: list[tuple[int, int, float | None]]) -> pl.DataFrame:
        times = [
            {"occurred_at": START + timedelta(seconds=s), "gpu_index": g, "gpu_power_w": v}
            for s, g, v in rows
        ]
        return bucket(pl.DataFrame(times, schema=TELEMETRY_SCHEMA), "gpu_power_w", max_buckets)

    points = points_of(rows)
    for gpu in range(3):
        measured = [v for _, g, v in rows if g == gpu and v is not None and abs(v) < float("inf")]
        series = points.filter(gpu_index=gpu)
        assert series["min"].min() == min(measured, default=None)
        assert series["max"].max() == max(measured, default=None)
        assert series["occurred_at"].is_sorted()
        tolerance = 1e-6
        inside = (series["mean"] >= series["min"] - tolerance) & (series["mean"] <= series["max"] + tolerance)
        assert inside.all()
    random.shuffle(rows)
    assert points_of(rows).equals(points)


def test_mean_of_all_is_exact_where_floats_would_depend_on_their_order() -> None:
    rows = samples([*range(1000)]).with_columns(cpu_percent=pl.Series([0.1, 0.2, 0.3, 0.4] * 250))
    clock = read_clock(rows.lazy())
    assert clock is not None
    assert total_mean(fold_buckets(rows.lazy(), ["cpu_percent"], clock, 7), "cpu_percent") == 0.25
