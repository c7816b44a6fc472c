"""What the next attempt of a phase is made with, by what happened to those before it."""

from typing import Any

import pytest

from core.events.catalogue import CheckpointWritten, Fact, PhaseFailed, PhaseStarted, PlanCreated, PlanResumed
from core.events.event import Event
from core.events.resource_facts import PackLimitChanged
from core.planning.attempt import Attempt, choose_attempt, may_retry
from core.planning.plan_state import PLAN_STATE, PhaseState
from settings.app import Settings, load_settings
from tests.sample_log import START

NUM_TRAIN = 204_800
"""50 steps of 4096."""


def settings(**training: Any) -> Settings:
    return load_settings(training={"batch_size": 4096, **training})


def created() -> PlanCreated:
    steps = [
        {"dataset": "car", "phase": phase, "action": "run", "reason": "r", "settings_digest": "d"}
        for phase in ("graphs", "teacher")
    ]
    return PlanCreated(steps=steps, settings={}, machine={}, force=False, previous=[])


def started(micro_batch_size: int = 4096, phase: str = "teacher") -> PhaseStarted:
    return PhaseStarted(
        dataset="car",
        phase=phase,
        attempt=1,
        device="cpu",
        precision="fp32",
        micro_batch_size=micro_batch_size,
    )


def failed(kind: str, message: str = "m", phase: str = "teacher") -> PhaseFailed:
    return PhaseFailed(
        dataset="car", phase=phase, attempt=1, kind=kind, message=message, micro_batch_size=4096
    )


def checkpoint() -> CheckpointWritten:
    return CheckpointWritten(
        dataset="car", phase="teacher", model="m", epoch=0, num_steps=1, path="p", sha256="s"
    )


def limited(graphs: int) -> PackLimitChanged:
    return PackLimitChanged(
        dataset="car",
        phase="teacher",
        model="m",
        epoch=0,
        step=0,
        stage="forward",
        reason="host_oom",
        before={"graphs": 4096, "nodes": 1, "edges": 1},
        after={"graphs": graphs, "nodes": 1, "edges": 1},
        allocated_mib=None,
        reserved_mib=None,
    )


def state(*facts: Fact, phase: str = "teacher") -> PhaseState:
    from core.events.catalogue import to_event

    events: list[Event] = [to_event("plan", fact)._replace(occurred_at=START) for fact in (created(), *facts)]
    return PLAN_STATE.fold(events).phases["car", phase]


def attempt(*facts: Fact) -> Attempt:
    return choose_attempt("teacher", state(*facts), settings(), NUM_TRAIN)


def retried(*facts: Fact, phase: str = "teacher", **training: Any) -> bool:
    return may_retry(phase, state(*facts, phase=phase), settings(**training), NUM_TRAIN)


def test_a_first_attempt_goes_by_the_settings() -> None:
    first = attempt()
    assert (first.number, first.micro_batch_size, first.num_workers, first.prefetch_factor) == (1, 4096, 6, 2)
    assert (first.choices, first.wait_s, first.environment({}), first.is_cautious) == ((), 0.0, {}, False)
    assert first.settings(settings()) == settings()


@pytest.mark.parametrize(
    ("kind", "micro_batch_size", "num_workers", "prefetch_factor", "growing"),
    [
        ("cuda_oom", 2048, 6, 2, False),
        ("host_oom", 2048, 3, 1, False),
        ("fragmentation", 4096, 6, 2, True),
        ("cuda_error", 4096, 6, 2, False),
        ("killed", 4096, 6, 2, False),
        ("hang", 4096, 6, 2, False),
    ],
)
def test_what_a_second_attempt_changes_depends_on_the_failure(
    kind: str, micro_batch_size: int, num_workers: int, prefetch_factor: int, growing: bool
) -> None:
    second = attempt(started(), failed(kind))
    assert second.number == 2
    assert second.micro_batch_size == micro_batch_size
    assert (second.num_workers, second.prefetch_factor) == (num_workers, prefetch_factor)
    assert second.growing_segments is growing
    changed = (micro_batch_size, num_workers, prefetch_factor, growing) != (4096, 6, 2, False)
    assert bool(second.choices) is changed
    assert all(kind in choice for choice in second.choices)


def test_fragmentation_that_growing_segments_do_not_cure_halves_the_pack_too() -> None:
    third = attempt(started(), failed("fragmentation"), started(), failed("fragmentation"))
    assert (third.micro_batch_size, third.growing_segments) == (2048, True)


def test_half_is_taken_of_what_a_pack_really_held_when_memory_ran_out() -> None:
    assert attempt(started(), limited(96), failed("host_oom")).micro_batch_size == 48
    assert attempt(started(), limited(96), failed("killed")).micro_batch_size == 4096
    assert attempt(started(), limited(1), failed("host_oom")).micro_batch_size == 1


def test_building_graphs_is_only_tried_again_after_a_while() -> None:
    fared = state(started(phase="graphs"), failed("host_oom", phase="graphs"), phase="graphs")
    second = choose_attempt("graphs", fared, settings(), None)
    assert (second.number, second.wait_s, second.micro_batch_size, second.choices) == (2, 1.0, 4096, ())
    assert second.settings(settings()) == settings()


def test_after_the_machine_ran_out_of_memory_the_input_may_not_grow_again() -> None:
    dataset = attempt(started(), failed("host_oom")).settings(settings()).dataset
    assert (dataset.num_workers, dataset.max_workers) == (3, 3)
    assert (dataset.prefetch_factor, dataset.max_prefetch_factor) == (1, 1)


def test_a_hang_in_the_input_is_tried_again_without_threads_and_another_one_is_not() -> None:
    hung = "made no progress for 600 s; it was in wait (threading.py:1) < next_pack (pipeline.py:80)"
    assert attempt(started(), failed("hang", hung)).num_workers == 0
    assert attempt(started(), failed("hang", "it was in cross_entropy (functional.py:3)")).num_workers == 6


def test_growing_segments_are_added_to_what_the_environment_says() -> None:
    second = attempt(started(), failed("fragmentation"))
    environment = second.environment({"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"})
    wanted = "max_split_size_mb:64,expandable_segments:True"
    assert environment == {"PYTORCH_ALLOC_CONF": wanted, "PYTORCH_CUDA_ALLOC_CONF": wanted}
    off = second.environment({"PYTORCH_ALLOC_CONF": "expandable_segments:False"})
    assert set(off.values()) == {"expandable_segments:True"}


@pytest.mark.parametrize(
    ("kind", "retry"),
    [
        ("cuda_oom", True),
        ("fragmentation", True),
        ("host_oom", True),
        ("cuda_error", True),
        ("killed", True),
        ("hang", True),
        ("data_error", False),
        ("bug", False),
    ],
)
def test_only_what_another_attempt_can_cure_is_tried_again(kind: str, retry: bool) -> None:
    assert retried(started(), failed(kind)) is retry
    assert not retried(started(), failed(kind), max_retries=0)


@pytest.mark.parametrize("kind", ["killed", "hang", "cuda_error"])
def test_the_same_failure_without_progress_is_not_tried_for_ever(kind: str) -> None:
    once = [started(), failed(kind)]
    assert retried(*once, *once)
    assert not retried(*once, *once, *once)


def test_failures_with_progress_in_between_are_tried_on_and_on() -> None:
    facts = [started(), checkpoint(), failed("killed")] * 20
    assert retried(*facts)
    assert retried(*facts, started(), failed("killed"))
    assert not retried(*facts, *[started(), failed("killed")] * 3)
    assert not retried(*facts, max_retries=0)


def test_a_lack_of_memory_is_tried_again_as_long_as_less_can_be_asked_for() -> None:
    facts: list[Fact] = []
    sizes = []
    while retried(*facts) or not facts:
        sizes.append(attempt(*facts).micro_batch_size)
        facts += [started(sizes[-1]), limited(sizes[-1]), failed("host_oom")]
    assert sizes == [4096 >> halvings for halvings in range(13)]


def test_a_lack_of_memory_before_any_pack_is_not_cured_by_smaller_ones() -> None:
    facts = [started(), failed("host_oom")]
    assert retried(*facts * 2)
    assert not retried(*facts * 3)


def test_building_graphs_has_no_pack_to_make_smaller() -> None:
    facts = [started(phase="graphs"), failed("host_oom", phase="graphs")]
    assert retried(*facts * 2, phase="graphs")
    assert not retried(*facts * 3, phase="graphs")
    phase = state(*facts, phase="graphs")
    assert choose_attempt("graphs", phase, settings(), None).micro_batch_size == 4096


def test_a_plan_taken_up_again_is_given_its_retries_anew_and_remembers_what_failed() -> None:
    facts = [started(), failed("cuda_oom"), *[started(2048), failed("hang")] * 3]
    assert not retried(*facts)
    resumed = [*facts, PlanResumed(remaining=[], data_dir=None), started(2048), failed("hang")]
    assert retried(*resumed)
    assert attempt(*resumed).micro_batch_size == 2048


def test_the_wait_before_an_attempt_grows_without_progress_and_begins_anew_with_it() -> None:
    once = [started(), failed("killed")]
    assert [attempt(*once * times).wait_s for times in (1, 2, 3, 4)] == [1.0, 2.0, 4.0, 8.0]
    assert attempt(*once * 50).wait_s == 30.0
    assert attempt(*once * 4, started(), checkpoint(), failed("killed")).wait_s == 0.5
