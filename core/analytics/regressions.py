"""Models that became worse: a new version beside the one before it, as far as chance does not explain it.

This only tells; which version is champion is decided in ``core.analytics.versions``, by validation windows
alone. Two places are looked at: the validation windows, and the labelled test folders that both versions
were evaluated on (as many windows and attacks both times). A Matthews correlation is lower there by more
than two standard errors of the difference before anything is said; the test folders count together, by
their mean.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from core.analytics.detection import VALIDATION, fold_scores
from core.analytics.versions import DECIDING_MODEL, Metrics, ModelVersion, fold_versions, mcc_tolerance
from core.events.catalogue import ScoresMeasured
from core.events.event import Event

TEST_FOLDERS = "test folders"
_CLEARLY = 2.0
"""Standard errors of the difference."""


class Regression(NamedTuple):
    """A version that is clearly worse than the one before it.

    Attributes:
        dataset: Its dataset.
        phase: The phase that made it.
        model: The phase's deciding model, which was measured.
        number: The version.
        previous: The version before it.
        measured_on: ``validation windows`` or ``test folders``.
        before: Matthews correlation of the version before, a mean over the test folders.
        now: That of the version.
        tolerance: How much lower chance alone may make it.
    """

    dataset: str
    phase: str
    model: str
    number: int
    previous: int
    measured_on: str
    before: float
    now: float
    tolerance: float


class _Measured(NamedTuple):
    mcc: float
    variance: float


def find_regressions(streams: Iterable[Sequence[Event]], plan_id: str, dataset: str) -> list[Regression]:
    """Find which models of a dataset a plan made worse.

    Args:
        streams: The events of each plan, each in its own order.
        plan_id: The plan that made the new versions.
        dataset: The dataset.

    Returns:
        At most one for each phase and place, in the order of phases.

    Raises:
        UnknownEventError: A newer release wrote one of the events.
    """
    plans = {events[0].stream: events for events in streams if events}
    versions = fold_versions(plans.values())
    found = []
    for phase, model in DECIDING_MODEL.items():
        line = versions.get((dataset, phase), ())
        own = [version for version in line if version.plan_id == plan_id and version.complete]
        earlier = [
            version for version in line if own and version.number < own[-1].number and version.complete
        ]
        if not earlier:
            continue
        new, old = own[-1], earlier[-1]
        scores = [_validation_scores(plans[version.plan_id], dataset, model) for version in (old, new)]
        pairs = {
            VALIDATION: [_on_validation(old, scores[0]), _on_validation(new, scores[1])],
            TEST_FOLDERS: _on_tests(old.metrics.get(model, {}), new.metrics.get(model, {})),
        }
        for place, (before, now) in pairs.items():
            if before is None or now is None:
                continue
            tolerance = _CLEARLY * math.sqrt(before.variance + now.variance)
            if now.mcc < before.mcc - tolerance:
                found.append(
                    Regression(
                        dataset, phase, model, new.number, old.number, place, before.mcc, now.mcc, tolerance
                    )
                )
    return found


def _validation_scores(events: Sequence[Event], dataset: str, model: str) -> ScoresMeasured | None:
    return fold_scores(events).get(dataset, {}).get(VALIDATION, {}).get(model)


def _on_validation(version: ModelVersion, scores: ScoresMeasured | None) -> _Measured | None:
    if version.score is None or scores is None or scores.num_attacks_by_score is None:
        return None
    num, num_attacks = sum(scores.num_windows_by_score), sum(scores.num_attacks_by_score)
    return _measured(version.score, num, num_attacks)


def _on_tests(
    before: Mapping[str, Metrics], now: Mapping[str, Metrics]
) -> tuple[_Measured | None, _Measured | None]:
    """Means over the folders that are the same both times, as far as the log tells."""
    same = [name for name in now if name in before and _windows(before[name]) == _windows(now[name])]
    pairs = [(_of_folder(before[name]), _of_folder(now[name])) for name in same]
    both = [(old, new) for old, new in pairs if old and new]
    return _mean([old for old, _ in both]), _mean([new for _, new in both])


def _of_folder(metrics: Metrics) -> _Measured | None:
    mcc, (num, num_attacks) = metrics.get("mcc"), _windows(metrics)
    if mcc is None or not num or num_attacks is None:
        return None
    return _measured(float(mcc), int(num), int(num_attacks))


def _windows(metrics: Metrics) -> tuple[float | None, float | None]:
    return metrics.get("num_windows"), metrics.get("num_attack_windows")


def _measured(mcc: float, num_windows: int, num_attacks: int) -> _Measured | None:
    if not 0 < num_attacks < num_windows:
        return None
    return _Measured(mcc, mcc_tolerance(mcc, num_windows, num_attacks / num_windows) ** 2)


def _mean(measured: Sequence[_Measured]) -> _Measured | None:
    if not measured:
        return None
    num = len(measured)
    return _Measured(sum(m.mcc for m in measured) / num, sum(m.variance for m in measured) / num**2)
