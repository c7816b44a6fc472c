"""What phases took before."""

from datetime import timedelta

import pytest

from core.analytics.histograms import HALF_LIFE_DAYS
from core.analytics.history import PhaseKey, phase_history
from core.analytics.timeline import fold_epochs, fold_spans
from core.events.catalogue import PlanResumed, to_event
from tests.sample_log import MACHINES, sample_events

GPU = MACHINES[True]["device_name"]


def test_one_plan_gives_means_without_spread() -> None:
    history = phase_history([sample_events()])
    teacher = history[PhaseKey("set_01", "teacher", GPU, "published")]
    assert teacher.num == 1
    assert teacher.duration_std_s is None
    assert teacher.duration.low < teacher.duration_mean_s < teacher.duration.high
    assert teacher.peak_memory_mean_mib > 6000


def test_several_plans_give_means_and_sample_deviations() -> None:
    plans = [sample_events(plan_id=f"plan-{seed}", seed=seed, failures=False) for seed in (1, 2, 3)]
    key = PhaseKey("hcrl_sa", "teacher", GPU, "published")
    alone = [phase_history([plan])[key].duration_mean_s for plan in plans]
    together = phase_history(plans)[key]
    assert together.num == 3
    assert together.duration_mean_s == pytest.approx(sum(alone) / 3)
    assert together.duration_std_s == pytest.approx(
        (sum((value - sum(alone) / 3) ** 2 for value in alone) / 2) ** 0.5
    )


def test_a_plan_of_a_half_life_ago_weighs_half() -> None:
    new = sample_events(plan_id="new", seed=1, failures=False)
    old = [
        event._replace(stream="old", occurred_at=event.occurred_at - timedelta(days=HALF_LIFE_DAYS))
        for event in sample_events(plan_id="old", seed=2, failures=False)
    ]
    key = PhaseKey("hcrl_sa", "teacher", GPU, "published")
    took_new, took_old = (phase_history([plan])[key].duration_mean_s for plan in (new, old))
    together = phase_history([old, new])[key]
    assert together.duration_mean_s == pytest.approx((2 * took_new + took_old) / 3, rel=1e-3)
    assert together.since == f"{old[0].occurred_at:%Y-%m-%d}"


def test_a_phase_that_ran_out_of_memory_is_expected_to_need_more_than_it_had() -> None:
    def expected(ooms: bool) -> float:
        events = sample_events(failures=ooms, seed=1)
        events = [
            e._replace(payload={**e.payload, "peak_memory_mib": 10_000.0})
            if e.type == "phase_finished"
            else e
            for e in events
        ]
        return phase_history([events])[PhaseKey("hcrl_sa", "student", GPU, "published")].peak_memory.middle

    assert expected(ooms=False) == pytest.approx(11_500, rel=0.02)
    assert expected(ooms=True) == pytest.approx(1.2 * 11_500, rel=0.02)


def test_devices_are_kept_apart() -> None:
    history = phase_history([sample_events(gpu=True), sample_events(gpu=False)])
    assert {key.device_name for key in history} == {machine["device_name"] for machine in MACHINES.values()}


def test_a_phase_with_a_retry_counts_with_all_its_attempts() -> None:
    events = sample_events()
    spans = [s for s in fold_spans(events) if (s.dataset, s.phase) == ("hcrl_sa", "student")]
    assert [span.outcome for span in spans] == ["failed", "completed"]
    estimate = phase_history([events])[PhaseKey("hcrl_sa", "student", GPU, "published")]
    assert estimate.duration_mean_s == pytest.approx(sum(span.duration_s for span in spans))


def test_failed_and_unfinished_phases_are_no_history() -> None:
    assert PhaseKey("set_01", "fusion", GPU, "published") not in phase_history([sample_events()])
    assert phase_history([sample_events()[:20], []]).keys() <= phase_history([sample_events()]).keys()


def test_an_attempt_cut_off_by_a_crash_is_interrupted_at_the_last_word_heard() -> None:
    events = sample_events()[:30]
    spans = fold_spans([*events, to_event("p", PlanResumed(remaining=[], data_dir=None))])
    cut = [span for span in spans if span.outcome == "interrupted"]
    assert cut
    assert all(span.ended_at == events[-1].occurred_at for span in cut)
    assert [span.outcome for span in fold_spans(events) if span.phase == "teacher"] == ["running"] * 2


def test_epochs_repeated_by_a_retry_count_once() -> None:
    points = [p for p in fold_epochs(sample_events()) if (p.dataset, p.model) == ("hcrl_sa", "student_gat")]
    assert [point.epoch for point in points] == list(range(10))
