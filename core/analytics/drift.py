"""Whether the scores of recent traffic lie as those of the benign validation windows did.

The population stability index compares two samples in ``B`` bins, with shares ``e`` of the reference and
``a`` of the recent windows (Siddiqi, *Credit Risk Scorecards*, 2006)::

    PSI = sum((a - e) * ln(a / e))

Two samples of ``n`` and ``m`` windows of the same distribution have a PSI above 0 as well: it is then about
``(1/n + 1/m)`` times a chi-squared variable with ``B - 1`` degrees of freedom (Yurdakul and Naranjo,
*Statistical properties of the population stability index*, Journal of Risk Model Validation 14(4), 2020).
Windows are no independent draws, though: neighbours resemble each other. So the recent ones are cut into
consecutive blocks; how much more the shares vary from block to block than those of independent windows
would is the design effect ``d`` (Rao and Scott, JASA 76, 1981, first order), and ``PSI / (d (1/n + 1/m) (B
- 1))`` is compared with an F variable of ``B - 1`` and ``(B - 1)(K - 1)`` degrees of freedom for ``K``
blocks (Thomas and Rao, JASA 82, 1987).

Drift is an index that is both large (a small one is of no consequence, however certain) and not by chance
(few windows make a large one easily). Attacks in recent traffic move scores too: drift says that scores are
others, not why.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.events.catalogue import ScoresMeasured
from settings.drift import DriftSettings

_NUMS_BLOCKS = (20, 10, 5)
"""Short blocks tell the variation better, long ones miss less of what reaches from window to window: the
largest design effect counts."""
_PSEUDO_COUNT = 0.5
"""Added to every bin, so that an empty one does not make the index infinite."""

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Drift:
    """How recent scores lie beside those of the benign validation windows.

    Attributes:
        psi: Population stability index.
        p_value: How often chance alone makes it as large.
        num_windows: Recent windows.
        num_reference: Benign validation windows.
        edges: Scores between which the bins lie, from 0 to 1.
        recent: Share of the recent windows in each bin.
        reference: Share of the validation windows in each.
        alarm_share: Share of recent windows above the threshold.
        is_enough: Whether both are enough windows to tell.
        is_drift: Whether scores have drifted.
    """

    psi: float
    p_value: float
    num_windows: int
    num_reference: int
    edges: Sequence[float]
    recent: Sequence[float]
    reference: Sequence[float]
    alarm_share: float
    is_enough: bool
    is_drift: bool


def measure_drift(reference: ScoresMeasured, scores: Floats, settings: DriftSettings) -> Drift:
    """Compare recent scores with those of validation windows.

    Args:
        reference: How the model's scores lay on the validation windows.
        scores: float64 ``[K]`` in [0, 1], of recent windows in order of time.
        settings: What counts as drift.
    """
    benign = np.array(reference.num_windows_by_score, np.int64)
    if reference.num_attacks_by_score is not None:
        benign = benign - np.array(reference.num_attacks_by_score, np.int64)
    edges = quantile_edges(benign, settings.num_bins)
    expected = np.add.reduceat(benign, edges[:-1])
    fine = np.minimum((scores * len(benign)).astype(np.int64), len(benign) - 1)
    which = np.searchsorted(edges[1:-1], fine, "right")
    found = np.bincount(which, minlength=len(expected))
    psi = stability_index(expected, found)
    p_value = chance(psi, int(expected.sum()), which, len(expected))
    is_enough = min(int(expected.sum()), len(scores)) >= settings.min_windows
    return Drift(
        psi=psi,
        p_value=p_value,
        num_windows=len(scores),
        num_reference=int(expected.sum()),
        edges=(edges / len(benign)).tolist(),
        recent=_shares(found),
        reference=_shares(expected),
        alarm_share=float((scores > reference.threshold).mean()) if len(scores) else 0.0,
        is_enough=is_enough,
        is_drift=is_enough and psi >= settings.max_psi and p_value < settings.false_alarm_rate,
    )


def quantile_edges(histogram: Counts, num_bins: int) -> Counts:
    """Merge neighbouring bins of a histogram into at most so many of about equally many windows.

    Args:
        histogram: int64 ``[H]`` windows by score.
        num_bins: Most bins.

    Returns:
        int64 ``[B + 1]`` first bin of the histogram in each merged one, rising from 0 to ``H``.
    """
    below = np.cumsum(histogram)
    cuts = np.searchsorted(below, below[-1] * np.arange(1, num_bins) / num_bins, "left") + 1
    return np.unique(np.concatenate(([0], cuts, [len(histogram)]))).astype(np.int64)


def stability_index(expected: Counts, found: Counts) -> float:
    """The population stability index of two rows of counts, int64 ``[B]`` each; 0 where they lie alike."""
    e, a = ((counts + _PSEUDO_COUNT) / (counts + _PSEUDO_COUNT).sum() for counts in (expected, found))
    return float(((a - e) * np.log(a / e)).sum())


def chance(psi: float, num_reference: int, which: Counts, num_bins: int) -> float:
    """How often windows of the same distribution make so large an index: see the module.

    Args:
        psi: The index.
        num_reference: Windows of the reference.
        which: int64 ``[K]`` bin of each recent window, in order of time.
        num_bins: Number of bins.

    Returns:
        From 0 to 1; 1 where nothing can be told.
    """
    if num_bins < 2 or num_reference == 0 or len(which) < 2 * max(_NUMS_BLOCKS):
        return 1.0
    from scipy.special import fdtrc  # as slow to load as all the rest

    effect, num_blocks = max((design_effect(which, num_bins, k), k) for k in _NUMS_BLOCKS)
    freedom = num_bins - 1
    ratio = psi / (effect * (1 / num_reference + 1 / len(which)) * freedom)
    return float(fdtrc(freedom, freedom * (num_blocks - 1), ratio))


def design_effect(which: Counts, num_bins: int, num_blocks: int) -> float:
    """How many times more the shares of bins vary than those of independent windows; at least 1.

    Args:
        which: int64 ``[K]`` bin of each window, in order of time.
        num_bins: Number of bins.
        num_blocks: Consecutive blocks to compare.
    """
    share = np.bincount(which, minlength=num_bins) / len(which)
    blocks = np.array_split(which, num_blocks)
    shares = np.array([np.bincount(block, minlength=num_bins) / len(block) for block in blocks])
    between = ((shares - share) ** 2).sum(axis=0) / (num_blocks * (num_blocks - 1))
    held = share > 0
    if held.sum() < 2:
        return 1.0
    # First order: the mean over bins of (1 - share) * variance / (share * (1 - share) / K).
    return max(1.0, float((between[held] / share[held]).sum() * len(which) / (held.sum() - 1)))


def _shares(counts: Counts) -> list[float]:
    shares: list[float] = (counts / max(1, counts.sum())).tolist()
    return shares
