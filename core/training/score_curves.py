"""How scores of windows lie, in few numbers: a histogram, and the operating points of the ROC that matter."""

import heapq
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from core.events.catalogue import ScoresMeasured

NUM_BINS = 50
MAX_POINTS = 100
"""Most operating points that are kept of a curve."""
_STRETCH = 1e-3
"""False-positive rates below this are on a linear scale, those above on a logarithmic one."""
_INVISIBLE = 5e-4
"""Deviation, as a share of the curve's height, that is not worth a point."""

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def measure_scores(
    dataset: str,
    model: str,
    folder: str | None,
    score: Floats,
    attack: NDArray[np.bool_] | None,
    threshold: float,
) -> ScoresMeasured:
    """Describe the scores of one model on one test folder, or on the validation windows.

    Args:
        dataset: Its name.
        model: The model's name.
        folder: The test folder; None for validation windows.
        score: float64 ``[K]`` in [0, 1].
        attack: bool ``[K]`` which windows are attacks; None where labels mean nothing.
        threshold: A score above it is an alarm.
    """
    cuts, true_positives, false_positives = (
        (np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))
        if attack is None
        else operating_points(score, attack, threshold)
    )
    return ScoresMeasured(
        dataset=dataset,
        model=model,
        folder=folder,
        threshold=threshold,
        num_windows_by_score=_histogram(score),
        num_attacks_by_score=None if attack is None else _histogram(score[attack]),
        cuts=cuts.tolist(),
        true_positives=true_positives.tolist(),
        false_positives=false_positives.tolist(),
    )


def operating_points(
    score: Floats, attack: NDArray[np.bool_], threshold: float
) -> tuple[Floats, Counts, Counts]:
    """The operating points that draw the ROC, at most `MAX_POINTS`, from the strictest to the loosest.

    Kept whole up to `MAX_POINTS`, a longer curve is thinned (Douglas and Peucker, 1973) in the plane in which
    it is looked at, recall over a false-positive rate that is stretched where it is small: the point furthest
    from the curve so far comes next, so corners stay. The threshold's own point is always kept.

    Args:
        score: float64 ``[K]``.
        attack: bool ``[K]``.
        threshold: A score above it is an alarm.

    Returns:
        Of ``P`` points: float64 ``[P]`` lowest score that alarms, int64 ``[P]`` attack windows and int64
        ``[P]`` benign windows that alarm.
    """
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    parted = np.append(np.diff(ranked) < 0, True)[: len(ranked)]  # equal scores cannot be
    last = np.flatnonzero(parted).astype(np.int64)
    true_positives = np.cumsum(attack[order].astype(np.int64))[last]
    false_positives = last + 1 - true_positives
    if len(last) > MAX_POINTS:
        rate = false_positives / max(1, int((~attack).sum()))
        recall = true_positives / max(1, int(attack.sum()))
        at_threshold = int((ranked[last] > threshold).sum()) - 1
        kept = _thin(np.log1p(rate / _STRETCH) / np.log1p(1 / _STRETCH), recall, {max(0, at_threshold)})
        last, true_positives, false_positives = last[kept], true_positives[kept], false_positives[kept]
    return ranked[last], true_positives, false_positives


def _thin(x: Floats, y: Floats, kept: Iterable[int]) -> list[int]:
    """Indices of the points that make a polyline from (0, 0) look as it is; its last one and `kept` stay."""
    x, y = np.insert(x, 0, 0.0), np.insert(y, 0, 0.0)
    chosen = sorted({0, len(x) - 1, *(index + 1 for index in kept)})
    spans = [_furthest(x, y, *span) for span in pairwise(chosen)]
    heapq.heapify(spans)
    while len(chosen) <= MAX_POINTS and spans[0][0] < -_INVISIBLE:
        _, at, first, last = heapq.heappop(spans)
        chosen.append(at)
        heapq.heappush(spans, _furthest(x, y, first, at))
        heapq.heappush(spans, _furthest(x, y, at, last))
    return sorted(index - 1 for index in chosen if index)


def _furthest(x: Floats, y: Floats, first: int, last: int) -> tuple[float, int, int, int]:
    """The point between two others that is furthest from the line through them: its distance, negative."""
    dx, dy = x[last] - x[first], y[last] - y[first]
    between = slice(first + 1, last)
    distance = np.abs(dx * (y[between] - y[first]) - dy * (x[between] - x[first]))
    if not len(distance):
        return 0.0, first, first, last
    at = int(distance.argmax())
    return -float(distance[at] / np.hypot(dx, dy)), first + 1 + at, first, last


def _histogram(score: Floats) -> list[int]:
    counts: list[int] = np.histogram(score, NUM_BINS, (0.0, 1.0))[0].tolist()
    return counts
