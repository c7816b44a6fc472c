from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from core.can.graph_store import GraphStore
from core.training.calibration import calibrate
from core.training.evaluation import Metrics, evaluate_folder
from tests.synthetic import make_store


def _store(y: list[int], capture: list[int] | None = None) -> GraphStore:
    """Windows of 1 s every 1 s; an attack begins 0.25 s into its window."""
    num = len(y)
    start = np.arange(num, dtype=np.float64)
    labels = np.array(y, np.uint8)
    return replace(
        make_store(20),
        y=labels,
        capture=np.array(capture or [0] * num, np.int32),
        t_start=start,
        t_end=start + 0.9,
        t_attack=np.where(labels == 1, start + 0.25, np.nan),
    )


def _evaluate(
    y: list[int], alarms: list[int], capture: list[int] | None = None, labelled: bool = True
) -> Metrics:
    score: NDArray[np.float64] = np.array(alarms) * 0.8 + 0.1
    return evaluate_folder(_store(y, capture), np.arange(len(y)), score, 0.5, labelled=labelled)


def test_metrics_are_those_of_the_attack_class() -> None:
    m = _evaluate([0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0])
    assert (m["true_positives"], m["false_positives"], m["true_negatives"], m["false_negatives"]) == (
        1,
        1,
        3,
        1,
    )
    assert (m["precision"], m["recall"], m["f1"]) == (0.5, 0.5, 0.5)
    assert m["macro_f1"] == pytest.approx((0.5 + 0.75) / 2)
    assert m["mcc"] == pytest.approx(0.25)
    assert m["false_positive_rate"] == 0.25
    assert m["auroc"] == pytest.approx(0.625)


def test_always_attack_is_not_flattered() -> None:
    m = _evaluate([0, 1, 1, 1], [1, 1, 1, 1])
    assert m["recall"] == 1.0
    assert m["mcc"] == 0.0
    assert m["false_positive_rate"] == 1.0
    assert m["macro_f1"] is not None
    assert m["macro_f1"] < 0.5


def test_a_folder_without_attacks_has_undefined_metrics_but_a_false_positive_rate() -> None:
    m = _evaluate([0, 0, 0, 0], [0, 1, 0, 0])
    for name in ("precision", "recall", "f1", "macro_f1", "mcc", "auroc", "average_precision"):
        assert m[name] is None, name
    assert m["false_positive_rate"] == 0.25
    assert m["num_episodes"] == 0


def test_a_folder_of_attacks_only_has_no_false_positive_rate() -> None:
    m = _evaluate([1, 1], [1, 0])
    assert m["recall"] == 0.5
    for name in ("mcc", "auroc", "false_positive_rate", "false_alarms_per_hour"):
        assert m[name] is None, name


def test_unlabelled_windows_have_an_alarm_rate_and_nothing_else() -> None:
    m = _evaluate([0, 0, 0, 0], [0, 1, 0, 0], labelled=False)
    assert m["labelled"] == 0
    assert m["alarm_rate"] == 0.25
    assert m["num_windows"] == 4
    assert m["f1"] is None
    assert m["false_positive_rate"] is None
    assert m.keys() == _evaluate([0, 1], [0, 1]).keys()


def test_false_alarms_are_counted_per_hour_of_benign_time() -> None:
    m = _evaluate([0, 0, 1, 0], [1, 0, 1, 0])
    benign_s = 3 * 0.9  # a window lasts to its own last frame
    assert m["false_alarms_per_hour"] == pytest.approx(3600 / benign_s)


def test_time_to_alarm_runs_from_an_episodes_first_attack_frame_to_the_end_of_its_first_alarm() -> None:
    #                            episode A      episode B   missed
    m = _evaluate([0, 1, 1, 1, 0, 1, 0, 1, 1], [1, 0, 0, 1, 0, 1, 0, 0, 0])
    assert (m["num_episodes"], m["num_missed_episodes"]) == (3, 1)
    assert m["time_to_alarm_max_s"] == pytest.approx(3.9 - 1.25)
    assert m["time_to_alarm_mean_s"] == pytest.approx(((3.9 - 1.25) + (5.9 - 5.25)) / 2)


def test_an_episode_ends_with_its_capture() -> None:
    m = _evaluate([1, 1, 1, 1], [0, 0, 1, 0], capture=[0, 0, 1, 1])
    assert (m["num_episodes"], m["num_missed_episodes"]) == (2, 1)


def test_threshold_has_the_highest_mcc_on_validation() -> None:
    y = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1], np.uint8)
    score = np.array([0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    threshold = calibrate(score, y)
    assert threshold.value == pytest.approx(0.25)
    assert threshold.val_mcc == pytest.approx(1.0)


def test_one_odd_window_does_not_drag_the_threshold_to_where_all_others_are() -> None:
    y = np.array([0] * 100 + [1] * 100, np.uint8)
    score = np.concatenate([np.linspace(0.0, 0.001, 100), [0.0015], np.linspace(0.9, 1.0, 99)])
    threshold = calibrate(score, y)
    assert threshold.value == pytest.approx((0.9 + 0.0015) / 2)
    assert threshold.val_mcc == pytest.approx(0.99, abs=0.005)


@pytest.mark.parametrize(("y", "expected"), [([0, 0, 0, 0], 0.9), ([1, 1, 1, 1], 0.5), ([], 0.5)])
def test_validation_with_one_class_falls_back(y: list[int], expected: float) -> None:
    score = np.array([0.1, 0.2, 0.9, 0.9][: len(y)])
    threshold = calibrate(score, np.array(y, np.uint8))
    assert threshold.value == pytest.approx(expected)
    assert threshold.val_mcc is None


def test_scores_that_cannot_be_parted_give_one_half() -> None:
    threshold = calibrate(np.full(6, 0.7), np.array([0, 1, 0, 1, 0, 1], np.uint8))
    assert (threshold.value, threshold.val_mcc) == (0.5, 0.0)
