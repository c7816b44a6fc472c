"""Whose word counts: appends of processes that hold a dataset, and of those that lost it."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest

from core.errors import ChainHeldError, ChainLostError, EventLogError
from core.events.catalogue import (
    ChainFinished,
    ChainStarted,
    ChainStopped,
    GraphsLost,
    PhaseStarted,
    to_event,
    to_fact,
)
from core.events.event import Event
from core.events.leases import Lease, Leases
from core.events.log import EventLog
from core.events.projection import Following
from core.events.stores import MemoryStore
from core.planning.plan_state import PLAN_STATE
from core.planning.shared import claims
from core.planning.shared.claims import Claim, claimed, holders
from core.resources.process import TrainingProcess
from settings.layout import Layout

LEASE_S = 0.3
NEWS = GraphsLost(dataset="car", path="somewhere")


class Machines:
    """Processes on an output directory, each with a view of its own; none renews its lease by itself."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layout = Layout(folder)
        self.store = MemoryStore()
        monkeypatch.setattr(claims, "renewing", lambda *_: nullcontext())

    def log(self) -> EventLog:
        return EventLog(self.store)

    @contextmanager
    def working(self, plan_id: str, lease_s: float = LEASE_S) -> Iterator[Claim]:
        log, process = self.log(), TrainingProcess(f"{plan_id}-car", self.layout.process_logs)
        following = Following(log, plan_id, PLAN_STATE)
        following.state()
        with claimed("car", plan_id, following, log, self.layout, process, lease_s) as claim:
            claim.append(ChainStarted(dataset="car", holder=claim.holder))
            yield claim

    def types(self, plan_id: str) -> list[str]:
        return [event.type for event in self.log().read(plan_id)]


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machines:
    return Machines(tmp_path, monkeypatch)


@pytest.mark.parametrize("successors_plan", ["first", "second"])
def test_nothing_is_committed_by_who_was_replaced_for_the_same_plan_or_for_another(
    machines: Machines, successors_plan: str
) -> None:
    with machines.working("first") as lost, machines.working(successors_plan) as successor:
        committed = machines.types("first")
        with pytest.raises(ChainLostError, match=r"car: this process .* no longer holds the dataset"):
            lost.append(NEWS)
        successor.append(NEWS)
        assert machines.types("first") == committed + [NEWS.TYPE] * (successors_plan == "first")


def test_the_plan_of_who_was_replaced_for_another_says_that_its_work_was_broken_off(
    machines: Machines,
) -> None:
    with machines.working("first") as lost:
        lost.append(
            PhaseStarted(
                dataset="car", phase="teacher", attempt=1, device="cpu", precision="fp32", micro_batch_size=1
            )
        )
        with machines.working("second"):
            *_, last = machines.log().read("first")
    assert to_fact(last) == ChainStopped(
        dataset="car", holder=lost.holder, reason="no sign of life; taken over for plan second"
    )
    state = PLAN_STATE.fold(machines.log().read("first"))
    assert state.phases["car", "teacher"].status == "interrupted"
    assert state.open_chains == {"car": ""}


class Interrupting(MemoryStore):
    """Lets something happen at the last moment before an append."""

    meanwhile: Callable[[], object] | None = None

    def put_if_absent(self, stream: str, name: str, content: bytes) -> bool:
        if self.meanwhile:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return super().put_if_absent(stream, name, content)


@pytest.mark.parametrize("successors_plan", ["first", "second"])
def test_who_is_replaced_between_his_look_and_his_append_commits_nothing(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, successors_plan: str
) -> None:
    machines.store = store = Interrupting()
    successors: list[AbstractContextManager[Claim]] = []

    def replace() -> None:
        successors.append(machines.working(successors_plan))
        successors[0].__enter__()

    with machines.working("first") as lost:
        monkeypatch.setattr(Claim, "_require_lease", lambda self: None)  # he looked before he was stopped
        store.meanwhile = replace
        with pytest.raises(ChainLostError):
            lost.append(NEWS)
        assert NEWS.TYPE not in machines.types("first")
        successors[0].__exit__(None, None, None)


def test_events_of_others_in_the_same_plan_are_in_nobodys_way(machines: Machines) -> None:
    with machines.working("plan", lease_s=60.0) as claim:
        for _ in range(3):
            machines.log().append([chain_started("bus")])
            claim.append(NEWS)
    types = machines.types("plan")
    assert types == ["chain_started", *["chain_started", NEWS.TYPE] * 3]


def chain_started(dataset: str) -> Event:
    return to_event("plan", ChainStarted(dataset=dataset, holder="another"))


def test_who_cannot_renew_writes_nothing(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(lease: Lease) -> None:
        raise OSError(f"the storage of {lease.name} is away")

    with machines.working("plan") as claim:
        time.sleep(LEASE_S)
        monkeypatch.setattr(Lease, "renew", refuse)
        with pytest.raises(ChainLostError, match=r"its lease in \S+ cannot be renewed: the storage of car"):
            claim.append(NEWS)
    assert machines.types("plan") == ["chain_started"]


def test_who_was_late_but_not_replaced_goes_on(machines: Machines) -> None:
    with machines.working("plan") as claim:
        time.sleep(2 * LEASE_S)
        claim.append(NEWS)
    assert machines.types("plan") == ["chain_started", NEWS.TYPE]


def test_a_held_dataset_is_refused_with_its_holder_plan_and_what_to_do(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    with machines.working("first", lease_s=1.0) as holder:
        monkeypatch.setattr(
            claims, "Leases", lambda store: Leases(store, sleep=lambda _: holder._lease.renew())
        )
        with pytest.raises(ChainHeldError, match="for plan first: wait for it, or stop that process") as held:
            machines.working("second").__enter__()
        assert holder.holder in str(held.value)
        assert holders(machines.layout, "first", PLAN_STATE.fold(machines.log().read("first"))) == {
            "car": holder.holder
        }
    assert machines.types("second") == []


def test_what_was_given_back_is_held_by_nobody(machines: Machines) -> None:
    with machines.working("plan") as claim:
        claim.append(ChainFinished(dataset="car", status="completed", duration_s=1.0))
    assert holders(machines.layout, "plan", PLAN_STATE.fold(machines.log().read("plan"))) == {}
    with machines.working("plan"):
        pass


def test_a_store_that_cannot_be_written_is_an_error_that_names_it(machines: Machines) -> None:
    machines.layout.root.mkdir(exist_ok=True)
    machines.layout.leases.write_text("a file")
    with pytest.raises(EventLogError, match=f"cannot take the lease of car in {machines.layout.leases}"):
        machines.working("plan").__enter__()
