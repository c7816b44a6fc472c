"""What a lease promises on every store, with a clock that goes as the test says."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from core.errors import EventLogError, LeaseHeldError, LeaseLostError
from core.events.leases import Holder, Lease, Leases, Sign, last_sign, put_sign, renewing
from core.events.stores import SegmentStore
from tests.commands import BUSY_S

LEASE_S = 60.0
GONE = Holder("elsewhere", 1, "token", "another machine", "1")
OpenStore = Callable[[], SegmentStore]


@dataclass
class Time:
    """Passes while somebody waits; others may act meanwhile."""

    now_s: float = 1000.0
    meanwhile: Callable[[], object] = lambda: None

    def clock(self) -> float:
        return self.now_s

    def sleep(self, wait_s: float) -> None:
        self.now_s += wait_s
        self.meanwhile()


def take(store: SegmentStore, waiting: Time) -> Lease:
    return Leases(store, waiting.clock, waiting.sleep).take("car", "plan", LEASE_S)


def test_a_lease_that_was_never_taken_is_free_and_one_given_back_is_again(open_store: OpenStore) -> None:
    waiting = Time()
    first = take(open_store(), waiting)
    first.renew()
    first.give_back()
    second = take(open_store(), waiting)
    assert waiting.now_s == 1000.0
    assert second.before is None
    second.renew()


def test_a_holder_that_lives_is_named_after_its_next_sign(open_store: OpenStore) -> None:
    holder = take(open_store(), Time())
    with pytest.raises(LeaseHeldError, match=f"{holder.sign.holder} holds it for plan") as held:
        take(open_store(), Time(meanwhile=holder.renew))
    assert (held.value.holder, held.value.purpose) == (str(holder.sign.holder), "plan")
    holder.renew()


def test_a_lease_without_signs_is_taken_when_it_ran_out_and_its_holder_learns_of_it(
    open_store: OpenStore,
) -> None:
    lost, waiting = take(open_store(), Time()), Time()
    lease = take(open_store(), waiting)
    assert LEASE_S <= waiting.now_s - 1000.0 <= 2 * LEASE_S
    assert lease.before == lost.sign
    for use in (lost.renew, lost.give_back):
        with pytest.raises(LeaseLostError, match=str(lease.sign.holder)):
            use()
    lease.renew()


def test_the_holders_own_time_counts_not_that_of_who_waits(open_store: OpenStore) -> None:
    long = replace(take(open_store(), Time()).sign, lease_s=2 * LEASE_S)
    assert put_sign(open_store(), "car", 1, long)
    waiting = Time()
    take(open_store(), waiting)
    assert waiting.now_s - 1000.0 >= 2 * LEASE_S


def test_a_holder_thinks_that_it_holds_for_less_than_others_wait(open_store: OpenStore) -> None:
    lease = take(open_store(), Time())
    assert 1000.0 < lease.held_until < 1000.0 + LEASE_S


def test_two_signs_are_kept_however_many_were_given(open_store: OpenStore) -> None:
    lease = take(open_store(), Time())
    for _ in range(5):
        lease.renew()
    assert len(open_store().names("car")) == 2


def test_of_many_who_want_a_free_lease_one_gets_it(open_store: OpenStore) -> None:
    taken: list[Lease] = []

    def want() -> None:
        waiting = Time(meanwhile=lambda: [renews(lease) for lease in taken])
        try:
            taken.append(take(open_store(), waiting))
        except LeaseHeldError:
            return

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alive = [lease for lease in taken if renews(lease)]
    assert len(alive) == 1


def renews(lease: Lease) -> bool:
    try:
        lease.renew()
    except LeaseLostError:
        return False
    return True


def test_a_sign_under_a_number_that_was_used_before_counts_for_nothing(open_store: OpenStore) -> None:
    lease = take(open_store(), Time())
    for _ in range(3):
        lease.renew()
    assert not put_sign(open_store(), "car", 0, Sign(GONE, "plan", LEASE_S))
    last = last_sign(open_store(), "car")
    assert last == (lease.number, lease.sign)


def test_what_is_no_sign_is_named(open_store: OpenStore) -> None:
    open_store().put_if_absent("car", "000000000000.json", b"{}")
    with pytest.raises(EventLogError, match=r"car/000000000000\.json is no sign of a lease"):
        take(open_store(), Time())


def test_a_thread_renews_it_until_it_is_lost(open_store: OpenStore) -> None:
    lease = Leases(open_store()).take("car", "plan", lease_s=6.0)
    renewed, lost = threading.Event(), threading.Event()
    with renewing(lease, renewed.set, lost.set):
        assert renewed.wait(BUSY_S)
        while not put_sign(open_store(), "car", lease.number + 1, Sign(GONE, "other", LEASE_S)):
            time.sleep(0.1)  # it was renewed just then
        assert lost.wait(BUSY_S)
