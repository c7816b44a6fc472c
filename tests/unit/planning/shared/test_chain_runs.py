"""Chains that others carry out: when one is over, lost, to be begun again, or given up."""

from pathlib import Path

import pytest

from core.errors import ChainHeldError
from core.events.catalogue import (
    ChainFinished,
    ChainStarted,
    CheckpointWritten,
    Fact,
    PhaseFinished,
    PhaseStarted,
    to_event,
)
from core.events.leases import Leases
from core.events.stores import LocalStore
from core.planning.coordinator import one_by_one
from core.planning.shared.chain_runs import Heard, LeaseWatch, Run, Step, hear, next_step

STARTED = ChainStarted(dataset="car", holder="a:1:x")
CHECKPOINT = CheckpointWritten(
    dataset="car", phase="teacher", model="m", epoch=0, num_steps=1, path="p", sha256="s"
)
DONE = PhaseFinished(dataset="car", phase="teacher", attempt=1, duration_s=1.0, peak_memory_mib=1.0)


def finished(status: str) -> ChainFinished:
    return ChainFinished(dataset="car", status=status, duration_s=1.0)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ([], Heard()),
        ([STARTED], Heard(has_started=True)),
        ([STARTED, CHECKPOINT], Heard(has_started=True, has_progressed=True)),
        ([STARTED, DONE], Heard(has_started=True, has_progressed=True)),
        ([STARTED, finished("failed")], Heard(has_started=True, finished="failed")),
        ([STARTED, finished("failed"), STARTED], Heard(has_started=True)),
        ([ChainStarted(dataset="van", holder="b:1:y")], Heard()),
    ],
)
def test_the_log_tells_how_a_chain_goes(facts: list[Fact], expected: Heard) -> None:
    assert hear(Heard(), "car", [to_event("p", fact) for fact in facts]) == expected


def test_beginning_a_phase_is_no_progress() -> None:
    begun = PhaseStarted(
        dataset="car", phase="teacher", attempt=1, device="cpu", precision="fp32", micro_batch_size=1
    )
    assert not hear(Heard(), "car", [to_event("p", begun)]).has_progressed


@pytest.mark.parametrize(
    ("run", "heard", "is_lost", "num_fruitless", "step"),
    [
        ("going", Heard(), False, 0, "wait"),
        ("going", Heard(True, True), False, 2, "wait"),
        ("going", Heard(True, True, "completed"), False, 0, "over"),  # the run has yet to say so
        ("going", Heard(True, True, "failed"), False, 0, "wait"),  # it is about to say why
        ("going", Heard(True, True, "failed"), True, 0, "over"),
        ("ended", Heard(True, True, "failed"), False, 0, "over"),
        ("ended", Heard(True, True), False, 2, "again"),  # crashed, after a checkpoint
        ("ended", Heard(True), False, 1, "again"),
        ("ended", Heard(True), False, 2, "give_up"),
        ("going", Heard(True, True), True, 2, "again"),  # lost
        ("going", Heard(), True, 2, "give_up"),
        ("cancelled", Heard(True, True), False, 0, "cancelled"),
        ("cancelled", Heard(True, True, "completed"), False, 0, "over"),
    ],
)
def test_a_chain_is_begun_again_as_long_as_something_comes_of_it(
    run: Run, heard: Heard, is_lost: bool, num_fruitless: int, step: Step
) -> None:
    assert next_step(run, heard, is_lost, num_fruitless, max_fruitless=2) == step


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_holder_is_lost_when_its_lease_stays_the_same_for_as_long_as_it_lasts(tmp_path: Path) -> None:
    store, clock = LocalStore(tmp_path), Clock()
    lease = Leases(store).take("car", "p", 60.0)
    watch = LeaseWatch(store, "car", clock)
    started = Heard(has_started=True)
    for clock.now in (0.0, 59.0):
        assert not watch.is_lost(started)
    lease.renew()
    for clock.now in (60.0, 119.0):
        assert not watch.is_lost(started)
    clock.now = 121.0
    assert watch.is_lost(started)


def test_a_holder_that_gave_its_lease_back_has_a_while_to_say_how_it_ended(tmp_path: Path) -> None:
    store, clock = LocalStore(tmp_path), Clock()
    Leases(store).take("car", "p", 60.0).give_back()
    watch = LeaseWatch(store, "car", clock)
    for clock.now in (0.0, 10.0):
        assert not watch.is_lost(Heard(has_started=True))
    clock.now = 20.0
    assert watch.is_lost(Heard(has_started=True))


def test_a_chain_that_nobody_begins_is_lost_after_minutes(tmp_path: Path) -> None:
    clock = Clock()
    watch = LeaseWatch(LocalStore(tmp_path), "car", clock)
    for clock.now in (0.0, 10_000.0):  # no worker takes it
        assert not watch.is_lost(Heard(), is_waiting=True)
    clock.now = 10_200.0
    assert not watch.is_lost(Heard())
    clock.now = 10_400.0
    assert watch.is_lost(Heard())


def test_a_chain_that_another_process_holds_stops_none_of_those_after_it() -> None:
    done: list[str] = []

    def run(dataset: str) -> None:
        if dataset == "held":
            raise ChainHeldError("a:1:x", "p", "another process works on it")
        done.append(dataset)

    with pytest.raises(ChainHeldError):
        one_by_one(run)(["car", "held", "van"])
    assert done == ["car", "van"]
