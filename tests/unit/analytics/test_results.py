"""Results and plan: what the fold keeps, how it is written, and the schema it promises."""

import json
import math
from datetime import timedelta
from importlib import resources
from typing import Any

import jsonschema
import pytest

from core.analytics.canonical import digest, to_json
from core.analytics.results import RetrainingResults, fold_plan, fold_results
from core.errors import UnknownEventError
from core.events.catalogue import (
    EpochFinished,
    ModelEvaluated,
    PhaseFinished,
    PhaseStarted,
    PlanCreated,
    PlanFinished,
    PlanResumed,
    to_event,
)
from core.events.event import Event
from tests.sample_log import MACHINES, MODELS, PLAN_ID, START, sample_events


def published_schema() -> Any:
    return json.loads(resources.files("core.analytics").joinpath("results.schema.json").read_text("utf-8"))


def epoch(number: int, val_loss: float) -> Event:
    fact = EpochFinished(
        dataset="d",
        phase="teacher",
        model="teacher_gat",
        epoch=number,
        train_loss=val_loss,
        val_loss=val_loss,
        val_metric=None,
        learning_rate=1e-3,
        num_steps=50,
        duration_s=1.0,
        graphs_per_s=100.0,
        data_wait_s=0.0,
    )
    return to_event("p", fact)


def test_published_schema_is_the_models_schema() -> None:
    assert published_schema() == RetrainingResults.model_json_schema(mode="serialization"), (
        "write core/analytics/results.schema.json anew from RetrainingResults.model_json_schema"
    )


@pytest.mark.parametrize("num_events", [0, 1, 40, 150, None])
def test_results_validate_against_the_schema_at_every_stage(num_events: int | None) -> None:
    results = fold_results(sample_events()[:num_events])
    jsonschema.Draft202012Validator(published_schema()).validate(json.loads(to_json(results)))


def test_results_of_a_whole_plan() -> None:
    results = fold_results(sample_events())
    assert (results.plan_id, results.status, results.started_at) == (PLAN_ID, "failed", START)
    assert results.machine == MACHINES[True]
    good, bad = results.datasets["hcrl_sa"], results.datasets["set_01"]
    assert (good.status, bad.status) == ("completed", "failed")
    assert list(good.metrics) == list(MODELS)
    assert good.models["student"].num_parameters == {"student_vgae": 86_000, "student_gat": 55_000}
    assert bad.quarantine["data/set_01/train_02_with_attacks/DoS-1.csv"].num_rows == 37
    assert len(bad.refused_captures) == len(bad.shared_captures) == 1
    assert results.recommendation is not None


def test_a_phase_cured_by_a_retry_keeps_its_failure_and_has_no_error() -> None:
    student = fold_results(sample_events()).datasets["hcrl_sa"].phases["student"]
    assert (student.status, student.attempts, student.error) == ("completed", 2, None)
    assert [(f.kind, f.micro_batch_size) for f in student.failures] == [("cuda_oom", 2048)]
    assert student.micro_batch_size == 1024


def test_a_phase_that_failed_says_why_and_blocks_what_depends_on_it() -> None:
    phases = fold_results(sample_events()).datasets["set_01"].phases
    assert phases["fusion"].status == "failed"
    assert (phases["fusion"].error or "").startswith("bug: ValueError")
    assert (phases["evaluation"].status, phases["evaluation"].reason) == ("blocked", "fusion failed")


def test_undefined_metrics_stay_null() -> None:
    metrics = fold_results(sample_events()).datasets["hcrl_sa"].metrics["fusion"]
    assert metrics["test_04_unknown_vehicle_unknown_attack"]["f1"] is None


def test_numbers_that_json_cannot_hold_become_null() -> None:
    evaluated = ModelEvaluated(
        dataset="d", model="m", folder="f", metrics={"f1": math.nan, "mcc": math.inf, "auroc": 0.5}
    )
    results = fold_results([to_event("p", evaluated), epoch(0, math.nan)])
    assert results.datasets["d"].metrics["m"]["f"] == {"f1": None, "mcc": None, "auroc": 0.5}
    assert results.datasets["d"].training["teacher_gat"].best_epoch is None
    assert b"NaN" not in to_json(results)


def test_a_retry_that_starts_over_forgets_the_best_epoch_of_the_attempt_before() -> None:
    events = [epoch(0, 0.5), epoch(1, 0.1), epoch(0, 0.6), epoch(1, 0.7)]
    model = fold_results(events).datasets["d"].training["teacher_gat"]
    assert (model.last_epoch, model.best_epoch, model.best_val_loss) == (1, 0, 0.6)


def test_a_retry_from_a_checkpoint_keeps_the_best_epoch() -> None:
    events = [epoch(0, 0.5), epoch(1, 0.1), epoch(2, 0.3), epoch(2, 0.3), epoch(3, 0.2)]
    model = fold_results(events).datasets["d"].training["teacher_gat"]
    assert (model.last_epoch, model.best_epoch) == (3, 1)


def test_skipped_phases_carry_the_plans_reason_and_make_a_dataset_up_to_date() -> None:
    step = {
        "dataset": "d",
        "phase": "teacher",
        "action": "skip",
        "reason": "same digest",
        "settings_digest": "x",
    }
    results = fold_results(
        [to_event("p", PlanCreated(steps=[step], settings={}, machine={}, force=False, previous=[]))]
    )
    assert results.datasets["d"].status == "up_to_date"
    assert results.datasets["d"].phases["teacher"].status == "skipped"
    assert results.datasets["d"].phases["teacher"].reason == "same digest"


def test_a_resumed_plan_is_unfinished_again() -> None:
    events = [
        to_event("p", PlanFinished(status="failed", duration_s=3.0)),
        to_event("p", PlanResumed(remaining=["d/fusion"], data_dir=None)),
    ]
    results = fold_results(events)
    assert (results.status, results.finished_at, results.num_resumes) == ("unfinished", None, 1)


def test_plan_is_what_was_created() -> None:
    events = sample_events()
    plan = fold_plan(events)
    assert plan is not None
    assert (
        plan.settings_digest == digest(events[0].payload["settings"]) == fold_results(events).settings_digest
    )
    assert len(plan.steps) == 10
    assert fold_plan(events[1:]) is None


def test_an_event_of_a_newer_release_is_refused() -> None:
    newer = sample_events()[0]._replace(version=99)
    with pytest.raises(UnknownEventError, match="newer release"):
        fold_results([newer])


def test_json_is_sorted_indented_and_ends_in_one_newline() -> None:
    written = to_json(fold_results(sample_events()))
    assert (
        written
        == (json.dumps(json.loads(written), sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()
    )
    assert RetrainingResults.model_validate_json(written) == fold_results(sample_events())


def test_folding_leaves_the_events_settings_alone() -> None:
    events = sample_events()
    before = json.dumps([dict(event.payload) for event in events], sort_keys=True)
    fold_results(events)
    assert json.dumps([dict(event.payload) for event in events], sort_keys=True) == before


def test_time_is_taken_from_events_only() -> None:
    started = to_event(
        "p",
        PhaseStarted(
            dataset="d", phase="teacher", attempt=1, device="cpu", precision="fp32", micro_batch_size=8
        ),
    )
    ended = to_event(
        "p", PhaseFinished(dataset="d", phase="teacher", attempt=1, duration_s=5.0, peak_memory_mib=10.0)
    )
    late = ended._replace(occurred_at=ended.occurred_at + timedelta(days=1))
    assert fold_results([started, ended]) == fold_results([started, late])
