"""Drift of scores: few false alarms where nothing changed, and found where something did."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.analytics.drift import Drift, design_effect, measure_drift, quantile_edges, stability_index
from core.analytics.drift_markdown import drift_markdown
from core.events.catalogue import ScoresMeasured
from core.training.score_curves import measure_scores
from settings.drift import DriftSettings

SETTINGS = DriftSettings()
Floats = NDArray[np.float64]


def simulate(rng: np.random.Generator, num: int, correlation: float = 0.0, shift: float = 0.0) -> Floats:
    """Scores of windows that resemble their neighbours: a logistic transform of an AR(1) process."""
    noise = rng.normal(size=num) * np.sqrt(1 - correlation**2)
    state, values = rng.normal(), np.empty(num)
    for place in range(num):
        state = correlation * state + noise[place]
        values[place] = state
    return 1 / (1 + np.exp(2 - values - shift))


def reference(score: Floats) -> ScoresMeasured:
    return measure_scores("d", "fusion", None, score, np.zeros(len(score), bool), 0.5)


def alarms(num_reference: int, num: int, correlation: float, shift: float, times: int = 200) -> float:
    """Share of simulated looks that find drift."""
    rng = np.random.default_rng(num + round(100 * correlation))
    found = []
    for _ in range(times):
        before = reference(simulate(rng, num_reference, correlation))
        found.append(measure_drift(before, simulate(rng, num, correlation, shift), SETTINGS).is_drift)
    return float(np.mean(found))


@pytest.mark.parametrize(
    ("num_reference", "num", "correlation"),
    [(200, 200, 0.0), (267, 900, 0.0), (200, 200, 0.5), (267, 900, 0.5), (2000, 5000, 0.9)],
)
def test_traffic_that_has_not_drifted_hardly_ever_alarms(
    num_reference: int, num: int, correlation: float
) -> None:
    assert alarms(num_reference, num, correlation, shift=0.0) <= 0.01


@pytest.mark.parametrize(
    ("num_reference", "num", "correlation"), [(200, 200, 0.0), (267, 900, 0.5), (2000, 5000, 0.9)]
)
def test_traffic_that_has_drifted_by_a_standard_deviation_is_found(
    num_reference: int, num: int, correlation: float
) -> None:
    assert alarms(num_reference, num, correlation, shift=1.0, times=50) >= 0.9


def test_a_small_change_is_no_drift_however_certain_it_is() -> None:
    rng = np.random.default_rng(0)
    found = measure_drift(reference(simulate(rng, 20_000)), simulate(rng, 20_000, shift=0.15), SETTINGS)
    assert found.p_value < SETTINGS.false_alarm_rate
    assert found.psi < SETTINGS.max_psi
    assert not found.is_drift


def test_a_model_whose_benign_scores_are_all_alike_shows_drift_when_they_leave() -> None:
    before = reference(np.full(1000, 0.001))
    assert not measure_drift(before, np.full(500, 0.002), SETTINGS).is_drift
    left = np.where(np.arange(500) % 2 == 0, 0.001, 0.9)
    assert measure_drift(before, left, SETTINGS).is_drift


@pytest.mark.parametrize("num", [0, 1, 39, 40, 199])
def test_too_few_windows_are_no_evidence(num: int) -> None:
    rng = np.random.default_rng(1)
    found = measure_drift(reference(simulate(rng, 1000)), simulate(rng, num, shift=5.0), SETTINGS)
    assert not found.is_enough
    assert not found.is_drift


def test_without_validation_windows_there_is_no_evidence() -> None:
    found = measure_drift(reference(np.empty(0)), np.full(500, 0.9), SETTINGS)
    assert not found.is_drift
    assert found.p_value == 1.0


def test_attack_windows_of_validation_do_not_count() -> None:
    rng = np.random.default_rng(2)
    score = np.concatenate([simulate(rng, 600), np.full(600, 0.99)])
    measured = measure_scores("d", "fusion", None, score, np.arange(1200) >= 600, 0.5)
    found = measure_drift(measured, simulate(rng, 600), SETTINGS)
    assert found.num_reference == 600
    assert not found.is_drift


@given(st.lists(st.integers(0, 50), min_size=50, max_size=50), st.integers(2, 50))
def test_bins_cover_all_scores_and_hold_about_equally_many_windows(counts: list[int], num_bins: int) -> None:
    histogram = np.array(counts)
    edges = quantile_edges(histogram, num_bins)
    assert edges[0] == 0
    assert edges[-1] == len(counts)
    assert (np.diff(edges) > 0).all()
    assert len(edges) - 1 <= num_bins
    merged = np.add.reduceat(histogram, edges[:-1])
    assert merged.sum() == histogram.sum()
    # What makes a bin larger than its share is a single bin of the histogram.
    assert merged.max() <= histogram.sum() / num_bins + histogram.max()


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=20))
def test_the_index_is_symmetric_never_negative_and_0_for_equal_shares(pairs: list[tuple[int, int]]) -> None:
    before, now = (np.array(counts) for counts in zip(*pairs, strict=True))
    assert stability_index(before, now) >= 0
    assert stability_index(before, now) == pytest.approx(stability_index(now, before))
    assert stability_index(before, before) == pytest.approx(0)


def test_windows_that_resemble_their_neighbours_count_less() -> None:
    rng = np.random.default_rng(3)
    independent = rng.integers(0, 5, 1000)
    repeated = np.repeat(rng.integers(0, 5, 50), 20)
    assert design_effect(independent, 5, 20) < 3
    assert design_effect(repeated, 5, 10) > 8
    assert design_effect(np.zeros(100, np.int64), 5, 10) == 1.0


DRIFT = Drift(
    psi=0.5,
    p_value=1e-5,
    num_windows=300,
    num_reference=400,
    edges=[0.0, 0.2, 1.0],
    recent=[0.4, 0.6],
    reference=[0.9, 0.1],
    alarm_share=0.1,
    is_enough=True,
    is_drift=True,
)


def test_what_was_seen_is_shown_as_it_is() -> None:
    hostile = "a|b</td><script>"
    shown = drift_markdown(hostile, "drifted", "PSI 0.5 <b>", "fusion version 1", DRIFT)
    assert "<script>" not in shown
    assert "0.20 to 1.00" in shown
    assert "90.0%" in shown
    assert "data:image/svg+xml" in shown
    assert drift_markdown(hostile, "no model", "never trained", "no model", None).count("\n\n") == 1
