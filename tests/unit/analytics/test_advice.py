"""What is recommended from the plans of a device, rule by rule."""

import math
from dataclasses import replace
from typing import Any

import pytest

from core.analytics.advice.evidence import Advice, Evidence, gather
from core.analytics.advice.inputs import converged, inputs
from core.analytics.advice.judging import judge
from core.analytics.advice.measures import Part
from core.analytics.advice.memory import memory
from core.analytics.advice.throughput import find_knee, throughput
from core.analytics.markdown import recommendation_markdown
from core.analytics.observations import PlanRecord, record_plan
from core.analytics.recommendations import recommend
from core.analytics.results import ModelBottleneck
from core.analytics.telemetry import TelemetrySummary
from core.events.catalogue import EpochFinished
from core.events.resource_facts import RecommendationJudged
from settings.app import Settings
from tests.simulated_input import SimulatedMachine
from tests.simulated_plans import SimulatedPlan, settings_of

IDLE = SimulatedMachine(compute_s=0.01, latency_s=0.0, busy_percent=30.0)
SLOW = SimulatedMachine(compute_s=0.001, latency_s=0.5, busy_percent=98.0)


def record(plan: SimulatedPlan) -> PlanRecord:
    found = record_plan(plan.events())
    assert found
    return found


def evidence(*plans: SimulatedPlan, judged: tuple[RecommendationJudged, ...] = ()) -> Evidence:
    """What is known after the last of some plans."""
    *before, last = [record(plan) for plan in plans]
    return gather(replace(last, judged=judged), before, TelemetrySummary(), plans[-1].settings)


def changes(found: Any) -> dict[str, Advice]:
    return {item.setting: item for item in found if isinstance(item, Advice)}


def said(found: Any) -> str:
    return "\n".join(item if isinstance(item, str) else item.sentence() for item in found)


def batch(name: str, size: int, speed: float, day: float = 0.0, **fields: Any) -> SimulatedPlan:
    """A plan with some batch size, each step of which is one pack."""
    settings = fields.pop("settings", None) or settings_of(training={"batch_size": size})
    fields = {"placement": "resident", "input": IDLE, "num_train": 204_800, **fields}
    num_steps = math.ceil(fields["num_train"] / size)
    return SimulatedPlan(name, settings, day, graphs_per_s=speed, num_steps=num_steps, **fields)


# Throughput


def test_a_knee_is_the_smallest_pack_with_nearly_the_best_throughput_of_every_model() -> None:
    curves = {
        Part("car", "teacher", "a"): {64: 100.0, 128: 190.0, 256: 196.0, 512: 198.0},
        Part("car", "student", "b"): {64: 100.0, 128: 150.0, 256: 200.0, 512: 201.0},
    }
    packs = dict.fromkeys(curves, 64)
    knee = find_knee(curves, packs)
    assert knee
    assert (knee.graphs, knee.seen) == (256, True)
    assert knee.gain == pytest.approx((1.96 * 2.0) ** 0.5, rel=0.05)
    assert find_knee({Part("car", "teacher", "a"): {64: 100.0}}, packs) is None
    climbing = find_knee({Part("car", "teacher", "a"): {64: 100.0, 128: 190.0}}, packs)
    assert climbing
    assert not climbing.seen


def test_a_larger_batch_that_was_measured_to_be_faster_is_recommended_with_its_gain() -> None:
    found = evidence(batch("p1", 512, 1900.0, 0), batch("p2", 1024, 1950.0, 7), batch("p3", 256, 1000.0, 14))
    advice = changes(throughput(found))["training.batch_size"]
    assert (advice.before, advice.value, advice.metric) == (256, 512, "graphs_per_s")
    assert advice.current == pytest.approx(1000.0)
    assert advice.expected == pytest.approx(1900.0, rel=0.03)
    low, high = advice.low or 0.0, advice.high or 0.0
    assert 1000.0 < low < 1900.0 < high
    assert "of 3 plans since 2026-06-01 (p1, p2, p3)" in advice.rests_on


def test_at_the_knee_nothing_changes() -> None:
    found = evidence(batch("p1", 256, 1000.0, 0), batch("p2", 1024, 1950.0, 7), batch("p3", 512, 1900.0, 14))
    assert not changes(throughput(found))
    assert "Packs of 512 graphs reach 95% of the best throughput measured" in said(throughput(found))


def test_no_batch_is_larger_than_memory_allows() -> None:
    plans = [
        batch("p1", 512, 1900.0, 0), batch("p2", 1024, 1950.0, 7),
        batch("p3", 256, 1000.0, 14, peak_mib=15_000.0),
    ]  # fmt: skip
    assert not changes(throughput(evidence(*plans)))
    assert "leaves no room" in said(throughput(evidence(*plans)))


def test_no_batch_is_larger_than_the_floor_of_steps_allows() -> None:
    size = 204_800 // 50
    found = evidence(
        batch("p1", size, 1900.0, 0, num_train=409_600),
        batch("p2", size, 1950.0, 7, num_train=819_200),
        batch("p3", size // 2, 1000.0, 14, num_train=102_400),
    )
    assert not changes(throughput(found))
    assert "no batch above 2048 graphs at 50 steps" in said(throughput(found))


def test_packs_made_small_by_a_setting_are_raised_rather_than_the_batch() -> None:
    small = settings_of(training={"batch_size": 1024, "micro_batch_size": 256})
    found = evidence(
        batch("p1", 512, 1900.0, 0), batch("p2", 1024, 1950.0, 7),
        batch("p3", 1024, 1000.0, 14, settings=small),
    )  # fmt: skip
    assert set(changes(throughput(found))) == {"training.micro_batch_size"}
    assert changes(throughput(found))["training.micro_batch_size"].value == 512


def test_too_little_to_see_a_knee_is_said_and_an_experiment_proposed_with_little_confidence() -> None:
    found = evidence(batch("p1", 256, 1000.0))
    advice = changes(throughput(found))["training.batch_size"]
    assert advice.value == 512
    assert advice.confidence <= 0.3
    assert "too few batch sizes were tried" in advice.reason
    assert advice.low == advice.current
    assert advice.high is not None
    assert advice.high <= 2 * 1000.0 * 1.001


def test_gpu_utilisation_alone_proposes_nothing_where_input_is_slow_or_models_are_bound_by_the_gpu() -> None:
    waiting = evidence(
        SimulatedPlan("p1", settings_of(training={"batch_size": 256}, dataset={"max_workers": 6}), input=SLOW)
    )
    assert not changes(throughput(waiting))
    assert "no batch size makes that faster" in said(throughput(waiting))
    bound = ModelBottleneck(
        dataset="car", phase="teacher", model="teacher_gat", bottleneck="compute_bound", cause="gpu",
        reason="The GPU works.", change="", settings=(), numbers={}, missing=(),
    )  # fmt: skip
    busy = replace(evidence(batch("p1", 256, 1000.0)), bottlenecks=(bound,))
    assert not changes(throughput(busy))


def test_no_experiment_after_running_out_of_memory() -> None:
    assert not changes(throughput(evidence(batch("p1", 256, 1000.0, ooms=[(256, 128)]))))


# Memory


def test_packs_that_ran_out_of_memory_within_a_step_are_made_as_small_as_those_that_did_not() -> None:
    found = evidence(batch("p1", 1024, 1000.0, ooms=[(1024, 512), (512, 256)]))
    advice = changes(memory(found))["training.micro_batch_size"]
    assert (advice.value, advice.phase, advice.metric, advice.current) == (256, "teacher", "num_ooms", 2.0)
    assert "with packs of 1024 graphs, and went through with 256" in advice.reason


def test_an_earlier_plan_that_ran_out_of_memory_counts_while_packs_are_as_large() -> None:
    failed = batch("p1", 1024, 1000.0, 0, ooms=[(1024, 512)])
    assert changes(memory(evidence(failed, batch("p2", 1024, 1000.0, 1))))
    smaller = settings_of(training={"batch_size": 1024, "micro_batch_size": 512})
    adopted = batch("p2", 1024, 1000.0, 1, settings=smaller)
    assert not changes(memory(evidence(failed, adopted))), "nor are they raised to what did not fit"
    later = replace(adopted, day=40.0)
    assert changes(memory(evidence(failed, later)))["training.micro_batch_size"].value == 1024, "tried again"


def test_running_out_of_memory_long_ago_fades_as_plans_go_through() -> None:
    failed = batch("p0", 1024, 1000.0, 0, ooms=[(1024, 512)])
    since = [batch(f"p{n}", 1024, 1000.0, 7 * n) for n in range(1, 6)]
    assert not changes(memory(evidence(failed, *since)))


def test_peaks_to_expect_have_a_margin_and_bounds_that_close_in() -> None:
    one, many = evidence(batch("p1", 256, 1.0)), [batch(f"p{n}", 256, 1.0, n / 10) for n in range(9)]
    assert "student 9.0 GiB (3.9 GiB to 18.0 GiB), teacher 9.0 GiB (3.9 GiB to 18.0 GiB), of 24.0 GiB" in (
        said(memory(one))
    )
    assert "teacher 9.0 GiB (7.0 GiB to 10.0 GiB)" in said(memory(evidence(*many)))
    oom = said(memory(evidence(batch("p1", 256, 1.0, ooms=[(256, 128)]))))
    assert "teacher 32.5 GiB (" in oom, "1.2 times the 24 000 MiB held, and the margin"


# Input


def test_a_store_where_training_computes_needs_no_workers() -> None:
    found = list(inputs(evidence(batch("p1", 256, 1000.0))))
    assert not changes(found)
    assert "make no difference" in said(found)


def test_start_values_stay_within_their_bounds() -> None:
    bounded = settings_of(dataset={"max_workers": 8, "max_prefetch_factor": 3})
    found = changes(inputs(evidence(SimulatedPlan("p1"), SimulatedPlan("p2", bounded, 1))))
    assert found["dataset.num_workers"].value == 8
    assert found["dataset.prefetch_factor"].value == 3


def test_ram_pressure_in_the_newest_plan_decides_over_all_plans_before() -> None:
    full = SimulatedMachine(compute_s=0.05, base_percent=70.0, percent_per_pack=0.7, latency_s=0.02)
    settings = settings_of(dataset={"num_workers": 12, "prefetch_factor": 4})
    plans = [SimulatedPlan(f"p{n}", settings, n) for n in range(3)]
    pressed = evidence(*plans, SimulatedPlan("p3", settings, 3, input=full))
    advice = changes(inputs(pressed))
    assert advice["dataset.num_workers"].value < 12
    assert advice["dataset.prefetch_factor"].value < 4
    assert advice["dataset.num_workers"].metric is None, "it is to save RAM, not time"
    assert changes(inputs(evidence(*plans))) == {}


def test_trainings_too_short_to_be_adjusted_and_those_left_alone_by_wish_say_nothing() -> None:
    short = SimulatedPlan("p1", settings_of(training={"adaptive_adjustment_interval": 5000}))
    fixed = SimulatedPlan("p2", settings_of(training={"adaptive_optimization": False}))
    for plan in (short, fixed):
        assert converged(evidence(plan), "teacher") is None


def test_workers_come_to_rest_over_many_plans() -> None:
    settings = settings_of()
    plans: list[SimulatedPlan] = []
    for n in range(6):
        plans.append(SimulatedPlan(f"p{n}", settings, n))
        values = {name.split(".")[1]: a.value for name, a in changes(inputs(evidence(*plans))).items()}
        settings = settings_of(dataset={**settings.dataset.model_dump(), **values})
        assert (settings.dataset.num_workers, settings.dataset.prefetch_factor) == (10, 4)


def test_where_all_workers_are_not_enough_more_are_allowed_but_for_the_cpu_that_trains() -> None:
    few = settings_of(dataset={"max_workers": 6})
    advice = changes(inputs(evidence(SimulatedPlan("p1", few, input=SLOW))))
    assert advice["dataset.max_workers"].value == 12
    all_cpus = settings_of(dataset={"max_workers": 15})  # of 16
    assert "dataset.max_workers" not in changes(inputs(evidence(SimulatedPlan("p1", all_cpus, input=SLOW))))


# Judging


def advised(plan: SimulatedPlan, *before: PlanRecord) -> PlanRecord:
    """A plan's record with what is recommended after it."""
    now = record(plan)
    found = gather(now, before, TelemetrySummary(), plan.settings)
    return replace(now, advice=recommend(found).advice)


@pytest.mark.parametrize(
    ("speed", "helped", "worse"), [(1500.0, True, False), (1020.0, False, False), (700.0, False, True)]
)
def test_a_change_is_judged_by_more_than_its_noise(speed: float, helped: bool, worse: bool) -> None:
    first = advised(batch("p1", 256, 1000.0))
    (fact,) = judge([first, record(batch("p2", 512, speed, 7))])
    assert (fact.setting, fact.metric, fact.num_compared) == ("training.batch_size", "graphs_per_s", 2)
    assert fact.gain == pytest.approx(speed / 1000.0 - 1)
    assert (fact.helped, fact.high < 0) == (helped, worse)


def test_plans_on_other_captures_are_compared_only_where_there_are_no_others_and_it_is_said() -> None:
    first = advised(batch("p1", 256, 1000.0))
    (fact,) = judge([first, record(batch("p2", 512, 1500.0, 7, data_digest="newer"))])
    assert not fact.same_data
    same = advised(batch("p0", 256, 900.0, data_digest="newer"))
    (fact,) = judge([same, first, record(batch("p2", 512, 1500.0, 7, data_digest="newer"))])
    assert fact.same_data
    assert fact.before == pytest.approx(900.0)


def test_what_was_set_before_it_was_recommended_is_not_judged() -> None:
    first = advised(batch("p1", 256, 1000.0))
    assert not judge([record(batch("p0", 512, 1000.0)), record(batch("p1", 512, 1000.0, 1))])
    assert not judge([first, record(batch("p2", 1024, 1500.0, 7))]), "another value"
    assert not judge([record(batch("p2", 512, 1500.0))])


def test_advice_that_helped_before_is_trusted_as_much_and_advice_that_did_not_less() -> None:
    (fact,) = judge([advised(batch("p1", 256, 1000.0)), record(batch("p2", 512, 1500.0, 7))])
    plan = batch("p2", 512, 1500.0, 7)
    trusted = {
        verdict: evidence(plan, judged=tuple(replace(fact, helped=h) for h in verdict)).confidence(
            [record(plan)], "training.batch_size"
        )
        for verdict in [(), (True,), (False,), (False, False), (False, True, True, True)]
    }
    assert trusted[()] == trusted[(True,)] == trusted[(False, True, True, True)] == 0.5
    assert trusted[()] > trusted[(False,)] > trusted[(False, False)] > 0


# Histories of all kinds


def test_plans_of_earlier_releases_count_as_far_as_they_go() -> None:
    unsaid = ("data_load_s", "num_packs", "num_workers", "prefetch_factor", "num_adjustments", "gpu_percent")
    created, *rest = batch("p0", 512, 1900.0).events()
    settings = {name: value for name, value in created.payload["settings"].items() if name != "dataset"}
    events = [created._replace(payload={**created.payload, "settings": settings})] + [
        event._replace(payload={**event.payload, **dict.fromkeys(unsaid)})
        if event.type == EpochFinished.TYPE
        else event
        for event in rest
        if event.type not in ("store_placed", "input_adjusted")
    ]
    old = record_plan(events)
    assert old
    later = batch("p2", 256, 1000.0, 7)
    found = gather(
        record(later), [old, record(batch("p1", 1024, 1950.0, 3))], TelemetrySummary(), later.settings
    )
    assert changes(throughput(found))["training.batch_size"].value == 512
    assert recommend(gather(old, [], TelemetrySummary(), Settings())).reasons


def test_a_plan_in_which_everything_failed_goes_by_the_plans_before_it() -> None:
    failed = batch("p2", 256, 1000.0, 7, fails="bug")
    fact = recommend(evidence(batch("p1", 256, 1000.0), failed))
    assert not any("No phase has finished training" in reason for reason in fact.reasons)
    alone = recommend(evidence(failed))
    assert {item["rests_on"] for item in alone.advice} == {"published figures"}
    assert {item["confidence"] for item in alone.advice} == {0.0}
    assert sum("No phase has finished training" in reason for reason in alone.reasons) == 1
    assert not any("confidence" in reason for reason in alone.reasons)
    assert "models.preset published to begin with" in recommendation_markdown(alone)
    assert sum(reason.startswith("training.batch_size ") for reason in alone.reasons) == 1


def test_all_numbers_of_advice_can_be_stored() -> None:
    for fact in (
        recommend(evidence(SimulatedPlan("p1"))),
        recommend(evidence(batch("p1", 256, 1000.0, ooms=[(256, 128)]))),
        recommend(evidence(batch("p1", 256, 1000.0, fails="cuda_oom"))),
    ):
        for item in fact.advice:
            numbers = [v for v in item.values() if isinstance(v, float)]
            assert all(map(math.isfinite, numbers))
            assert 0 <= item["confidence"] <= 1
