"""Which new models are told to be worse than those before them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from core.analytics.regressions import TEST_FOLDERS, Regression, find_regressions
from core.events.catalogue import (
    Fact,
    GraphsBuilt,
    ModelEvaluated,
    ModelSaved,
    PhaseFinished,
    PlanCreated,
    ThresholdCalibrated,
    to_event,
)
from core.events.event import Event
from core.training.score_curves import measure_scores

START = datetime(2026, 11, 3, tzinfo=UTC)
NUM, ATTACKS = 4000, 800


def plan(
    number: int,
    val_mcc: float | None,
    test_mcc: float = 0.9,
    *,
    digest: str = "d1",
    num_test: int = 4000,
    num_val: int = NUM,
) -> list[Event]:
    """A plan that made a new fusion model of such a quality."""
    facts = list(_facts(number, val_mcc, test_mcc, digest, num_test, num_val))
    return [
        to_event(f"p{number}", fact)._replace(
            position=place, occurred_at=START + timedelta(days=number, seconds=place)
        )
        for place, fact in enumerate(facts)
    ]


def _facts(
    number: int, val_mcc: float | None, test_mcc: float, digest: str, num_test: int, num_val: int
) -> Iterator[Fact]:
    yield PlanCreated(steps=[], settings={}, machine={}, force=False, previous=[])
    yield GraphsBuilt(
        dataset="car", path="", graphs_digest="g", split_digest="s", num_frames=1, num_graphs=1, num_nodes=1,
        num_edges=1, num_attack_graphs=1, splits={"val": num_val}, duration_s=1.0, cached=False,
    )  # fmt: skip
    attack = np.arange(num_val) < num_val // 5
    yield measure_scores("car", "fusion", None, np.where(attack, 0.9, 0.1), attack, 0.5)
    yield ModelSaved(
        dataset="car", phase="fusion", path="f.pth", sha256=f"sha{number}", data_digest=digest,
        settings_digest="s", parent_sha256="", num_parameters={"fusion": 1},
    )  # fmt: skip
    yield PhaseFinished(dataset="car", phase="fusion", attempt=1, duration_s=1.0, peak_memory_mib=1.0)
    yield ThresholdCalibrated(dataset="car", model="fusion", threshold=0.5, val_mcc=val_mcc)
    windows = {"num_windows": num_test, "num_attack_windows": num_test // 5}
    yield ModelEvaluated(
        dataset="car", model="fusion", folder="test_01", metrics={"mcc": test_mcc, **windows}
    )
    yield ModelEvaluated(dataset="car", model="fusion", folder="all_benign", metrics={"mcc": None})


def found(*plans: list[Event]) -> list[Regression]:
    return find_regressions(plans, plans[-1][0].stream, "car")


def test_the_first_model_cannot_be_worse() -> None:
    assert found(plan(1, 0.1)) == []


def test_a_model_that_is_clearly_worse_on_validation_windows_is_told() -> None:
    (regression,) = found(plan(1, 0.95), plan(2, 0.7))
    assert regression.measured_on == "validation windows"
    assert (regression.model, regression.number, regression.previous) == ("fusion", 2, 1)
    assert (regression.before, regression.now) == (0.95, 0.7)
    assert regression.tolerance < 0.1


@pytest.mark.parametrize("now", [0.96, 0.95, 0.94])
def test_a_model_that_is_as_good_but_for_chance_is_not_told(now: float) -> None:
    assert found(plan(1, 0.95), plan(2, now)) == []


def test_few_windows_prove_little() -> None:
    assert found(plan(1, 0.9, num_val=50), plan(2, 0.75, num_val=50)) == []


def test_a_model_that_is_clearly_worse_on_test_folders_alone_is_told() -> None:
    (regression,) = found(plan(1, 0.95, 0.9), plan(2, 0.95, 0.5))
    assert regression.measured_on == TEST_FOLDERS
    assert (regression.before, regression.now) == (0.9, 0.5)


def test_test_folders_that_hold_other_windows_are_not_compared() -> None:
    assert found(plan(1, 0.95, 0.9), plan(2, 0.95, 0.5, num_test=3000)) == []


def test_validation_windows_of_other_captures_are_compared_all_the_same() -> None:
    assert len(found(plan(1, 0.95), plan(2, 0.5, digest="d2"))) == 1


def test_an_undefined_metric_is_not_compared() -> None:
    assert found(plan(1, 0.95), plan(2, None)) == []
    assert found(plan(1, None), plan(2, 0.95)) == []


def test_it_is_the_version_before_that_counts_and_only_what_this_plan_made() -> None:
    assert found(plan(1, 0.95), plan(2, 0.7), plan(3, 0.7)) == []
    assert find_regressions([plan(1, 0.95), plan(2, 0.7)], "p1", "car") == []
    assert find_regressions([plan(1, 0.95), plan(2, 0.7)], "p2", "another") == []
