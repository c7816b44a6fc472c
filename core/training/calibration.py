"""The alarm threshold, chosen on validation windows only and on probabilities, never on logits."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BENIGN_QUANTILE = 0.99
_DEFAULT = 0.5
_SLACK = 0.05


@dataclass(frozen=True)
class Threshold:
    """An alarm is a score above `value`; `val_mcc` is what it reached on validation, None where undefined."""

    value: float
    val_mcc: float | None


def mcc_at_half(score: NDArray[np.float64], y: NDArray[np.generic]) -> float | None:
    """Matthews correlation of alarms above 1/2 with labels of 0 and 1; None where a class is missing."""
    attack, alarm = y == 1, score > _DEFAULT
    if attack.all() or not attack.any():
        return None
    true_alarms, alarms = np.array([(alarm & attack).sum()]), np.array([alarm.sum()])
    return float(_mcc(true_alarms, alarms, int(attack.sum()), len(y))[0])


def _mcc(
    true_alarms: NDArray[np.int64], alarms: NDArray[np.int64], num_attacks: int, num: int
) -> NDArray[np.float64]:
    """Matthews correlation from the margins of 2x2 tables; 0 where all or none alarm."""
    spread = np.sqrt(alarms * (num - alarms) * float(num_attacks) * (num - num_attacks))
    covariance = true_alarms * float(num) - alarms * float(num_attacks)
    mcc: NDArray[np.float64] = np.divide(covariance, spread, out=np.zeros(len(alarms)), where=spread > 0)
    return mcc


def calibrate(score: NDArray[np.float64], y: NDArray[np.uint8]) -> Threshold:
    """The threshold with the highest Matthews correlation (MCC) on validation windows.

    Of thresholds that are as good but for one misjudged window of either class (and at most 5 % of the MCC),
    it is the one in the widest gap between scores: a single odd window must not drag it to where all the
    others lie.

    Where validation has benign windows only, it is their 99 % quantile, at least 0.5; where it has attacks
    only or nothing, it is 0.5: neither says anything about the other kind of error.

    Args:
        score: float64 ``[K]`` in [0, 1].
        y: ``[K]`` labels.

    Returns:
        The threshold, half-way between the two scores that it parts.
    """
    attack = y == 1
    if attack.all():
        return Threshold(_DEFAULT, None)
    if not attack.any():
        return Threshold(max(_DEFAULT, float(np.quantile(score, _BENIGN_QUANTILE))), None)
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    true_alarms = np.cumsum(attack[order])
    alarms = np.arange(1, len(score) + 1)
    num, num_attacks = len(score), int(attack.sum())
    mcc = _mcc(true_alarms, alarms, num_attacks, num)  # of "the first k alarm"
    mcc[:-1][ranked[:-1] == ranked[1:]] = -1.0  # equal scores cannot be parted
    mcc[-1] = -1.0  # "everything is an attack" is no threshold
    if mcc.max() <= 0:
        return Threshold(_DEFAULT, 0.0)
    one_window = 0.5 / num_attacks + 0.5 / (num - num_attacks)
    good = np.flatnonzero(mcc >= mcc.max() - min(one_window, _SLACK * mcc.max()))
    gap = np.round(ranked[good] - ranked[good + 1], 6)
    best = good[np.lexsort((-mcc[good], -gap))[0]]
    middle = (ranked[best] + ranked[best + 1]) / 2
    # Half-way between neighbouring doubles may be the upper one, and an alarm is a score *above* the value.
    value = middle if middle < ranked[best] else ranked[best + 1]
    return Threshold(float(value), float(mcc[best]))
