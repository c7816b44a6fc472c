"""Thinned operating points and histograms tell what all the scores would."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from core.training.score_curves import MAX_POINTS, NUM_BINS, measure_scores, operating_points

AUROC_ERROR = 0.003
AVERAGE_PRECISION_ERROR = 0.005


@st.composite
def scored_windows(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores and labels of up to 5 000 windows: separable or not, with ties, heavy tails or outliers."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num = draw(st.integers(2, 5000))
    attack = rng.random(num) < draw(st.sampled_from([0.01, 0.1, 0.5, 0.9]))
    attack[:2] = True, False
    logit = rng.normal(size=num) + draw(st.sampled_from([0.0, 1.0, 2.0, 5.0])) * attack
    logit = np.where(rng.random(num) < draw(st.sampled_from([0.0, 0.2])), rng.standard_t(1.5, num), logit)
    score = 1 / (1 + np.exp(-np.clip(logit, -30, 30)))
    digits = draw(st.sampled_from([0, 1, 2, 16]))
    return np.round(score, digits), attack


def curve(
    score: NDArray[np.float64], attack: NDArray[np.bool_], threshold: float = 0.5
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Operating points with (0, 0) before them."""
    cuts, *counts = operating_points(score, attack, threshold)
    true_positives, false_positives = (np.insert(count, 0, 0) for count in counts)
    return np.insert(cuts, 0, np.inf), true_positives, false_positives


def average_precision(true_positives: NDArray[np.int64], false_positives: NDArray[np.int64]) -> float:
    """Mean precision over attacks in rank order; false positives between two points are spread evenly."""
    found = np.arange(1, true_positives[-1] + 1)
    rising = true_positives + 1e-9 * np.arange(len(true_positives))
    return float(np.mean(found / (found + np.interp(found, rising, false_positives.astype(np.float64)))))


@settings(max_examples=150, deadline=None)
@given(scored_windows())
def test_kept_points_are_true_and_begin_and_end_the_curve(
    windows: tuple[NDArray[np.float64], NDArray[np.bool_]],
) -> None:
    score, attack = windows
    cuts, true_positives, false_positives = operating_points(score, attack, 0.5)
    assert 1 <= len(cuts) <= MAX_POINTS
    assert np.all(np.diff(cuts) < 0)
    alarms = score[None, :] >= cuts[:, None]
    assert np.array_equal(true_positives, (alarms & attack).sum(1))
    assert np.array_equal(false_positives, (alarms & ~attack).sum(1))
    assert (true_positives[-1], false_positives[-1]) == (attack.sum(), (~attack).sum())


@settings(max_examples=150, deadline=None)
@given(scored_windows(), st.floats(0.0, 1.0))
def test_confusion_at_the_threshold_is_among_the_points(
    windows: tuple[NDArray[np.float64], NDArray[np.bool_]], threshold: float
) -> None:
    score, attack = windows
    alarm = score > threshold
    _, true_positives, false_positives = curve(score, attack, threshold)
    own = (int((alarm & attack).sum()), int((alarm & ~attack).sum()))
    assert own in set(zip(true_positives.tolist(), false_positives.tolist(), strict=True))


@settings(max_examples=150, deadline=None)
@given(scored_windows())
def test_areas_under_thinned_curves_are_those_of_scikit_learn(
    windows: tuple[NDArray[np.float64], NDArray[np.bool_]],
) -> None:
    score, attack = windows
    _, true_positives, false_positives = curve(score, attack)
    area = np.trapezoid(true_positives, false_positives) / true_positives[-1] / false_positives[-1]
    assert area == pytest.approx(roc_auc_score(attack, score), abs=AUROC_ERROR)
    if len(np.unique(score)) == len(score):  # with ties scikit-learn steps where the true curve is straight
        found = average_precision(true_positives, false_positives)
        assert found == pytest.approx(average_precision_score(attack, score), abs=AVERAGE_PRECISION_ERROR)


@settings(max_examples=100, deadline=None)
@given(scored_windows())
def test_a_short_curve_is_kept_whole(windows: tuple[NDArray[np.float64], NDArray[np.bool_]]) -> None:
    score, attack = windows[0][:MAX_POINTS], windows[1][:MAX_POINTS]
    if attack.all() or not attack.any():
        return
    _, true_positives, false_positives = curve(score, attack)
    false_rate, true_rate, _ = roc_curve(attack, score, drop_intermediate=False)
    np.testing.assert_allclose(true_positives / attack.sum(), true_rate)
    np.testing.assert_allclose(false_positives / (~attack).sum(), false_rate)


@settings(max_examples=100, deadline=None)
@given(scored_windows())
def test_every_window_is_in_one_bin(windows: tuple[NDArray[np.float64], NDArray[np.bool_]]) -> None:
    score, attack = windows
    fact = measure_scores("car", "fusion", "test_01", score, attack, 0.5)
    assert fact.num_attacks_by_score is not None
    assert len(fact.num_windows_by_score) == len(fact.num_attacks_by_score) == NUM_BINS
    assert (sum(fact.num_windows_by_score), sum(fact.num_attacks_by_score)) == (len(score), attack.sum())
    edges = np.linspace(0.0, 1.0, NUM_BINS + 1)
    for number in (0, 17, NUM_BINS - 2):
        within = (score >= edges[number]) & (score < edges[number + 1])
        assert (
            abs(fact.num_windows_by_score[number] - int(within.sum()))
            <= np.isclose(score[:, None], edges).any(1).sum()
        )


@pytest.mark.parametrize("attacks", [0.0, 1.0])
def test_one_class_has_points_of_that_class_only(attacks: float) -> None:
    score = np.linspace(0, 1, 1000)
    _, true_positives, false_positives = operating_points(score, np.full(1000, bool(attacks)), 0.9)
    assert (true_positives[-1], false_positives[-1]) == ((1000, 0) if attacks else (0, 1000))
    assert 100 in (true_positives + false_positives)


def test_unlabelled_windows_have_a_histogram_only() -> None:
    fact = measure_scores("car", "fusion", "test_05_suppress", np.array([0.0, 0.5, 1.0]), None, 0.5)
    assert (fact.num_windows_by_score[0], fact.num_windows_by_score[25], fact.num_windows_by_score[49]) == (
        1,
        1,
        1,
    )
    assert fact.num_attacks_by_score is None
    assert (fact.cuts, fact.true_positives, fact.false_positives) == ([], [], [])


def test_no_window_at_all_has_no_point() -> None:
    fact = measure_scores("car", "fusion", "test_01", np.empty(0), np.empty(0, bool), 0.5)
    assert (sum(fact.num_windows_by_score), fact.cuts) == (0, [])


def test_one_window_is_one_point() -> None:
    fact = measure_scores("car", "fusion", "test_01", np.array([0.7]), np.array([True]), 0.5)
    assert (fact.cuts, fact.true_positives, fact.false_positives) == ([0.7], [1], [0])
