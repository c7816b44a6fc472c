"""Numbers of the models page: curves, confusion, what changed since the version before, what to use."""

from datetime import UTC, datetime
from typing import Any

import pytest

from core.analytics.detection import (
    VALIDATION,
    Change,
    Confusion,
    CurvePoint,
    choose,
    compare,
    confusion,
    confusion_of_scores,
    curve,
    fold_scores,
    folders_of,
    gap,
    models_of,
    phase_of,
    standing,
    trend,
)
from core.analytics.results import DatasetResult
from core.analytics.versions import ModelVersion
from core.events.catalogue import ChainStarted, ScoresMeasured, to_event

SCORES: dict[str, Any] = {
    "dataset": "car",
    "model": "fusion",
    "folder": "test_01",
    "threshold": 0.5,
    "num_windows_by_score": [5, 3],
    "num_attacks_by_score": [1, 3],
    "cuts": [0.9, 0.7, 0.4, 0.1],
    "true_positives": [1, 3, 3, 4],
    "false_positives": [0, 0, 2, 4],
}


def scores(**changes: Any) -> ScoresMeasured:
    return ScoresMeasured(**{**SCORES, **changes})


def version(number: int, mcc: dict[str, float | None], **changes: Any) -> ModelVersion:
    fields = {
        "dataset": "car",
        "phase": "fusion",
        "number": number,
        "plan_id": f"plan-{number}",
        "saved_at": datetime(2026, 1, number, tzinfo=UTC),
        "path": "fusion.pth",
        "sha256": str(number),
        "parent_sha256": "",
        "data_digest": "data",
        "settings_digest": "",
        "num_parameters": {"fusion": 1},
        "metrics": {"fusion": {folder: {"mcc": value} for folder, value in mcc.items()}},
        "evaluated_by": f"plan-{number}",
        **changes,
    }
    return ModelVersion(**fields)


def test_a_curve_begins_where_nothing_alarms_and_ends_where_everything_does() -> None:
    assert curve(scores()) == [
        CurvePoint(None, 0.0, 0.0, None),
        CurvePoint(0.9, 0.0, 0.25, 1.0),
        CurvePoint(0.7, 0.0, 0.75, 1.0),
        CurvePoint(0.4, 0.5, 0.75, 0.6),
        CurvePoint(0.1, 1.0, 1.0, 0.5),
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_attacks_by_score": None}, "labels mean nothing"),
        ({"num_attacks_by_score": [0, 0]}, "no window is an attack"),
        ({"num_attacks_by_score": [5, 3]}, "every window is an attack"),
        ({"num_windows_by_score": [0, 0], "num_attacks_by_score": [0, 0]}, "no window"),
    ],
)
def test_without_both_classes_there_is_no_curve_but_a_reason(changes: dict[str, Any], reason: str) -> None:
    assert curve(scores(**changes)) == []
    assert reason in gap(scores(**changes))
    assert gap(scores()) == ""


def test_confusion_of_scores_is_that_at_the_threshold() -> None:
    assert confusion_of_scores(scores()) == Confusion(3, 1, 0, 4)
    assert confusion_of_scores(scores(threshold=0.95)) == Confusion(0, 4, 0, 4)
    assert confusion_of_scores(scores(threshold=0.0)) == Confusion(4, 0, 4, 0)
    assert confusion_of_scores(scores(num_attacks_by_score=None)) is None


def test_confusion_of_metrics_needs_all_counts() -> None:
    counts: dict[str, float | int | None] = {
        "true_positives": 3,
        "false_negatives": 1,
        "false_positives": 2,
        "true_negatives": 4,
    }
    found = confusion(counts)
    assert found == Confusion(3, 1, 2, 4)
    assert (found.num_attacks, found.num_benign) == (4, 6)
    assert confusion({**counts, "false_negatives": None}) is None
    assert confusion({}) is None


def test_scores_that_are_measured_again_replace_the_first_ones() -> None:
    events = [
        to_event("p", fact)
        for fact in (
            ChainStarted(dataset="car"),
            scores(),
            scores(folder=None),
            scores(threshold=0.8),
            scores(model="student_gat"),
        )
    ]
    found = fold_scores(events)["car"]
    assert set(found) == {"test_01", VALIDATION}
    assert found["test_01"]["fusion"].threshold == 0.8
    assert folders_of(DatasetResult(), found) == [VALIDATION]
    assert models_of(DatasetResult(metrics={"id_frequency": {}}), found) == [
        "student_gat",
        "fusion",
        "id_frequency",
    ]


@pytest.mark.parametrize(
    ("metric", "before", "now", "improved"),
    [
        ("mcc", 0.5, 0.6, True),
        ("mcc", 0.6, 0.5, False),
        ("false_alarms_per_hour", 9.0, 3.0, True),
        ("false_alarms_per_hour", 3.0, 9.0, False),
        ("mcc", 0.5, 0.5, None),
        ("num_windows", 10, 20, None),
    ],
)
def test_a_change_knows_which_direction_is_better(
    metric: str, before: float, now: float, improved: bool | None
) -> None:
    change = Change(metric, before, now)
    assert change.improved is improved
    assert change.difference == pytest.approx(now - before)


def test_only_metrics_that_are_defined_both_times_are_compared() -> None:
    found = compare({"mcc": 0.5, "f1": None, "auroc": 0.9}, {"mcc": 0.4, "f1": 0.3, "auroc": None})
    assert found == {"mcc": Change("mcc", 0.4, 0.5)}


def test_the_standing_of_a_model_names_the_latest_evaluated_version_before_it() -> None:
    line = (
        version(1, {"test_01": 0.4}),
        version(2, {}, metrics={}, evaluated_by=""),
        version(3, {"test_01": 0.6}, data_digest="other"),
    )
    found = standing({("car", "fusion"): line}, "plan-3", "car", "fusion")
    assert found is not None
    assert found.previous is not None
    assert (found.version.number, found.previous.number, found.same_captures) == (3, 1, False)
    first = standing({("car", "fusion"): line}, "plan-1", "car", "fusion")
    assert first is not None
    assert first.previous is None
    assert standing({("car", "fusion"): line}, "plan-9", "car", "fusion") is None
    assert standing({}, "plan-1", "car", "fusion") is None


def test_a_model_belongs_to_the_phase_that_makes_it() -> None:
    assert [phase_of(name) for name in ("teacher_vgae", "student_gat", "fusion", "mlp_fusion", "x")] == [
        "teacher",
        "student",
        "fusion",
        "fusion",
        "fusion",
    ]


def dataset(**mcc: float | None) -> DatasetResult:
    return DatasetResult(
        metrics={
            model: {"a": {"mcc": value, "false_alarms_per_hour": 3.0}, "b": {"mcc": value}}
            for model, value in mcc.items()
        }
    )


def test_fusion_is_to_be_used_where_it_earned_its_place_else_its_strongest_rival() -> None:
    assert choose(dataset(fusion=0.9, student_gat=0.8, teacher_gat=0.95), {}).model == "fusion"
    assert choose(dataset(fusion=0.8, student_gat=0.7, mlp_fusion=0.85), {}).model == "mlp_fusion"
    nothing = choose(dataset(fusion=None, student_gat=None), {})
    assert (nothing.model, nothing.mcc, nothing.num_folders, nothing.mean_change) == ("", None, 0, 0.0)


def test_a_choice_is_compared_in_the_folders_that_the_version_before_has_too() -> None:
    before = {"fusion": {"b": {"mcc": 0.7}, "c": {"mcc": 0.1}}}
    found = choose(dataset(fusion=0.9, student_gat=0.8), before)
    assert found.changes == [Change("mcc", 0.7, 0.9)]
    assert found.mean_change == pytest.approx(0.2)
    assert found.mcc == pytest.approx(0.9)
    assert (found.num_folders, found.false_alarms_per_hour) == (2, (3.0, 3.0))


def test_a_trend_is_of_the_folders_that_all_versions_have() -> None:
    line = (
        version(1, {"a": 0.4, "b": 0.6, "gone": 0.0}),
        version(2, {"a": 0.5, "b": 0.7, "new": 1.0}, role="champion"),
    )
    found = trend({("car", "fusion"): line}, "car", "mcc")
    assert [(point.number, point.role) for point in found] == [(1, ""), (2, "champion")]
    assert [point.value for point in found] == pytest.approx([0.5, 0.6])


@pytest.mark.parametrize(
    "line", [(), (version(1, {"a": 0.4}),), (version(1, {"a": 0.4}), version(2, {"b": 0.4}))]
)
def test_without_two_comparable_versions_there_is_no_trend(line: tuple[ModelVersion, ...]) -> None:
    assert trend({("car", "fusion"): line}, "car", "mcc") == []
