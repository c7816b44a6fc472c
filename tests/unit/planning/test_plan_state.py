"""How far a plan is, from its events alone."""

from datetime import UTC, datetime, timedelta

from core.events.catalogue import (
    ChainFinished,
    ChainStarted,
    ChainStopped,
    Fact,
    GraphsLost,
    PhaseFailed,
    PhaseFinished,
    PhaseSkipped,
    PhaseStarted,
    PlanCreated,
    PlanFinished,
    PlanResumed,
    to_event,
)
from core.planning.plan_state import PLAN_STATE, PlanState

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def created(**actions: str) -> PlanCreated:
    steps = [
        {"dataset": "car", "phase": phase, "action": action, "reason": "r", "settings_digest": "d"}
        for phase, action in actions.items()
    ]
    return PlanCreated(steps=steps, settings={}, machine={}, force=False, previous=[])


def started(phase: str, attempt: int = 1) -> PhaseStarted:
    return PhaseStarted(
        dataset="car", phase=phase, attempt=attempt, device="cpu", precision="fp32", micro_batch_size=64
    )


def failed(phase: str, kind: str) -> PhaseFailed:
    return PhaseFailed(dataset="car", phase=phase, attempt=1, kind=kind, message="m", micro_batch_size=64)


def finished(phase: str) -> PhaseFinished:
    return PhaseFinished(dataset="car", phase=phase, attempt=1, duration_s=1.0, peak_memory_mib=1.0)


def fold(*timed: tuple[float, Fact]) -> PlanState:
    return PLAN_STATE.fold(
        to_event("plan", fact)._replace(occurred_at=BEGAN + timedelta(seconds=at)) for at, fact in timed
    )


def test_steps_that_are_up_to_date_are_not_left_to_do() -> None:
    state = fold((0, created(teacher="skip", student="run")))
    assert state.remaining("car") == ["student"]


def test_a_failed_phase_and_those_it_blocks_are_left_to_do() -> None:
    state = fold(
        (0, created(teacher="run", student="run")),
        (1, started("teacher")),
        (2, failed("teacher", "bug")),
        (3, PhaseSkipped(dataset="car", phase="student", reason="teacher failed")),
        (4, PlanFinished(status="failed", duration_s=4.0)),
    )
    assert state.status == "failed"
    assert state.remaining("car") == ["teacher", "student"]
    assert state.phases["car", "student"].status == "blocked"


def test_failures_are_remembered_by_kind() -> None:
    kinds = ["cuda_oom", "killed", "host_oom", "cuda_error", "hang"]
    state = fold((0, created(teacher="run")), *((1.0, failed("teacher", kind)) for kind in kinds))
    assert state.phases["car", "teacher"].failure_kinds == kinds


def test_a_retry_that_went_through_completes_the_phase() -> None:
    state = fold(
        (0, created(teacher="run")),
        (1, started("teacher")),
        (2, failed("teacher", "killed")),
        (3, started("teacher", 2)),
        (4, finished("teacher")),
    )
    assert state.remaining("car") == []
    assert state.phases["car", "teacher"].attempts == 2


def test_a_plan_taken_up_again_runs_and_the_pause_before_does_not_count_as_work() -> None:
    facts: list[tuple[float, Fact]] = [
        (0, created(teacher="run")),
        (10, started("teacher")),
        (1000, PlanResumed(remaining=["car/teacher"], data_dir=None)),
        (1005, started("teacher", 2)),
    ]
    assert fold(*facts).status == "running"
    assert fold(*facts).worked_s == 15


def test_a_clock_that_was_set_back_takes_no_work_away() -> None:
    facts: list[tuple[float, Fact]] = [
        (0, created(teacher="run")),
        (10, started("teacher")),
        (-3590, finished("teacher")),
        (-3585, PlanFinished(status="completed", duration_s=15.0)),
    ]
    assert fold(*facts).worked_s == 15


def test_graphs_that_were_lost_are_to_be_built_again_before_what_reads_them() -> None:
    state = fold(
        (0, created(graphs="run", teacher="run", student="run")),
        *((1.0, fact) for phase in ("graphs", "teacher") for fact in (started(phase), finished(phase))),
        (2, GraphsLost(dataset="car", path="graphs/d")),
    )
    assert state.remaining("car") == ["graphs", "student"]
    assert state.phases["car", "graphs"].attempts == 1


def test_a_chain_that_did_not_say_how_it_ended_is_unfinished() -> None:
    facts: list[tuple[float, Fact]] = [
        (0, created(teacher="run")),
        (1, ChainStarted(dataset="car")),
        (1, started("teacher")),
        (2, finished("teacher")),
    ]
    assert fold(*facts).unfinished_datasets == ["car"]
    ended = ChainFinished(dataset="car", status="completed", duration_s=1.0)
    assert fold(*facts, (3, ended)).unfinished_datasets == []


def test_a_chain_that_was_broken_off_is_interrupted_and_held_by_nobody() -> None:
    begun: list[tuple[float, Fact]] = [
        (0, created(teacher="run")),
        (1, ChainStarted(dataset="car", holder="here:1:a")),
        (1, started("teacher")),
    ]
    assert fold(*begun).open_chains == {"car": "here:1:a"}
    state = fold(*begun, (2, ChainStopped(dataset="car", holder="here:1:a", reason="Ctrl-C")))
    assert state.phases["car", "teacher"].status == "interrupted"
    assert state.phases["car", "teacher"].reason == "broken off: Ctrl-C"
    assert (state.open_chains, state.unfinished_datasets) == ({"car": ""}, ["car"])
    assert state.remaining("car") == ["teacher"]


def test_the_end_of_a_chain_that_another_took_over_changes_nothing() -> None:
    taken_over: list[tuple[float, Fact]] = [
        (0, created(teacher="run")),
        (1, ChainStarted(dataset="car", holder="here:1:a")),
        (2, ChainStarted(dataset="car", holder="there:2:b")),
        (2, started("teacher")),
    ]
    state = fold(*taken_over, (3, ChainStopped(dataset="car", holder="here:1:a", reason="late")))
    assert state.phases["car", "teacher"].status == "running"
    assert state.open_chains == {"car": "there:2:b"}


def test_captures_are_where_the_last_resume_that_said_so_found_them() -> None:
    resumes = [PlanResumed(remaining=[], data_dir=folder) for folder in ("/first", "/second", None)]
    assert fold((0, created()), *((1.0, fact) for fact in resumes)).data_dir == "/second"
