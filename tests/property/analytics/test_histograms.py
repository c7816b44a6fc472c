"""Decaying histograms: order and pieces do not matter, age does."""

import functools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.analytics.histograms import HALF_LIFE_DAYS, RATIO, DecayingHistogram, decay

DAY_S = 86_400.0
EMPTY = DecayingHistogram(1.0)
VALUES = st.floats(0, 1e6)
SAMPLES = st.lists(st.tuples(VALUES, st.floats(0, 100 * DAY_S)), min_size=1, max_size=20)
SHARES = st.floats(0, 1)


def histogram(samples: list[tuple[float, float]]) -> DecayingHistogram:
    return functools.reduce(lambda found, sample: found.add(*sample), samples, EMPTY)


def assert_same(one: DecayingHistogram, other: DecayingHistogram) -> None:
    assert (one.num, one.newest_s, one.oldest_s) == (other.num, other.newest_s, other.oldest_s)
    assert one.weights == pytest.approx(other.weights)
    assert one.squares == pytest.approx(other.squares)


@given(SAMPLES, SAMPLES)
def test_the_order_of_measurements_is_free(
    a: list[tuple[float, float]], b: list[tuple[float, float]]
) -> None:
    assert_same(histogram(a + b), histogram(b + a))


@given(SAMPLES, st.integers(0, 20))
def test_going_on_from_a_snapshot_equals_beginning_anew(samples: list[tuple[float, float]], cut: int) -> None:
    snapshot = histogram(samples[:cut])
    rest = functools.reduce(lambda found, sample: found.add(*sample), samples[cut:], snapshot)
    assert rest == histogram(samples)


@given(SAMPLES)
def test_decay_is_reweighting(samples: list[tuple[float, float]]) -> None:
    newest_s = max(at_s for _, at_s in samples)
    weighted = functools.reduce(
        lambda found, sample: found.add(sample[0], newest_s, decay(newest_s - sample[1])), samples, EMPTY
    )
    assert histogram(samples).weights == pytest.approx(weighted.weights)
    assert histogram(samples).num_effective == pytest.approx(weighted.num_effective)


@given(SAMPLES, st.floats(0, 1000 * DAY_S))
def test_the_passing_of_time_alone_changes_no_percentile(
    samples: list[tuple[float, float]], later_s: float
) -> None:
    moved = [(value, at_s + later_s) for value, at_s in samples]
    assert histogram(moved).percentile(0.5) == pytest.approx(
        histogram(samples).percentile(0.5), rel=RATIO - 1
    )


@given(SAMPLES, SHARES, SHARES)
def test_percentiles_rise_with_their_share_and_stay_among_the_values(
    samples: list[tuple[float, float]], one: float, other: float
) -> None:
    found = histogram(samples)
    low, high = sorted((one, other))
    assert found.percentile(low) <= found.percentile(high)
    largest = max(value for value, _ in samples)
    assert found.percentile(1.0) <= max(1.0, largest * RATIO * (1 + 1e-9))
    assert found.percentile(1.0) >= largest * (1 - 1e-9)
    bounds = found.range(low, (low + high) / 2, high)
    assert bounds.low <= bounds.middle <= bounds.high


@given(SAMPLES)
def test_the_effective_number_is_at_most_the_number(samples: list[tuple[float, float]]) -> None:
    assert 1 - 1e-9 <= histogram(samples).num_effective <= len(samples) + 1e-6


def test_a_new_measurement_weighs_twice_one_of_a_half_life_ago() -> None:
    found = EMPTY.add(10.0, 0.0).add(1000.0, HALF_LIFE_DAYS * DAY_S)
    assert sorted(found.weights.values()) == [0.5, 1.0]
    assert found.percentile(0.3) == pytest.approx(10.0, rel=0.06)
    assert found.percentile(0.5) == pytest.approx(1000.0, rel=0.06)


def test_bounds_are_wide_with_little_data_and_close_in() -> None:
    few, many = histogram([(100.0, 0.0)]), histogram([(100.0, 0.0)] * 50)
    assert few.range().high == pytest.approx(2 * few.range().middle)
    assert few.range().low == pytest.approx(few.range().middle / 2)
    assert many.range().high == pytest.approx(many.range().middle, rel=0.03)
    assert EMPTY.range().high == math.inf
    assert few.range(margin=0.15).middle == pytest.approx(1.15 * few.range().middle)
