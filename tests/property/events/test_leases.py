"""Leases against time: processes that run, stop and die between any two calls of their store."""

import threading
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import LeaseHeldError, LeaseLostError
from core.events.leases import Lease, Leases
from core.events.stores import MemoryStore

LEASE_S = 6.0
SIGN_S = 1.0
NUM_SIGNS, NUM_TERMS = 3, 3
MOST_STEPS = 5_000


class World(MemoryStore):
    """Time that passes only when a test says so, and a store whose every call may take any of it."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.processes: list[Process] = []

    def names(self, stream: str) -> list[str]:
        self._yield()
        return super().names(stream)

    def read(self, stream: str, name: str) -> bytes:
        self._yield()
        return super().read(stream, name)

    def put_if_absent(self, stream: str, name: str, content: bytes) -> bool:
        self._yield()
        return super().put_if_absent(stream, name, content)

    def delete(self, stream: str, name: str) -> None:
        self._yield()
        super().delete(stream, name)

    def _yield(self) -> None:
        next(p for p in self.processes if p.ident == threading.get_ident()).sleep(0.0)


class Process(threading.Thread):
    """Takes the lease, renews it for a while, and gives it back or dies; again and again."""

    def __init__(self, world: World, clock_s: float, dies: bool) -> None:
        super().__init__(daemon=True)
        self.world, self.clock_s, self.dies = world, clock_s, dies
        self.lease: Lease | None = None
        self.wakes_at_s, self.is_done = 0.0, False
        self.error: BaseException | None = None
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)

    def run(self) -> None:
        self._go.acquire()
        try:
            for _ in range(NUM_TERMS):
                self._work()
        except BaseException as error:  # noqa: BLE001 - play() looks at it
            self.error = error
        self.is_done = True
        self._stopped.release()

    def _work(self) -> None:
        leases = Leases(self.world, self.clock, self.sleep)
        try:
            self.lease = leases.take("car", "plan", LEASE_S)
            self._require_free(self.lease)
            for _ in range(NUM_SIGNS):
                self.sleep(SIGN_S)
                self.lease.renew()
        except LeaseHeldError:
            return
        except LeaseLostError:
            self.lease = None
            return
        lease, self.lease = self.lease, None if not self.dies else self.lease
        if not self.dies:
            try:
                lease.give_back()
            except LeaseLostError:
                return

    def _require_free(self, taken: Lease) -> None:
        """Nobody loses a lease that he renewed in time."""
        for other in self.world.processes:
            lease = other.lease
            if other is not self and lease and taken.before and lease.sign == taken.before:
                assert other.clock() - lease.renewed_at >= LEASE_S

    def clock(self) -> float:
        return self.world.now_s + self.clock_s

    def sleep(self, wait_s: float) -> None:
        self.wakes_at_s = self.world.now_s + wait_s
        self._stopped.release()
        self._go.acquire()

    def step(self) -> None:
        """Go on up to the next call."""
        self._go.release()
        self._stopped.acquire()

    @property
    def thinks_it_holds(self) -> bool:
        return self.lease is not None and self.clock() < self.lease.held_until


def play(processes: list[tuple[float, bool]], schedule: list[tuple[int, float]]) -> None:
    """Let processes go on as scheduled, then in turn, and look at who holds the lease all the time."""
    world = World()
    world.processes = [Process(world, clock_s, dies) for clock_s, dies in processes]
    for process in world.processes:
        process.start()
    choose = later(world, schedule)
    for _ in range(MOST_STEPS):
        if all(process.is_done for process in world.processes):
            break
        choose()
        assert sum(process.thinks_it_holds for process in world.processes) <= 1
    errors = [process.error for process in world.processes if process.error]
    assert errors == []
    assert all(process.is_done for process in world.processes)
    assert len(world._blobs["car"]) <= 2 + len(processes)


def later(world: World, schedule: list[tuple[int, float]]) -> Callable[[], None]:
    """Chooses who goes on, and lets time pass before it does."""
    left = list(reversed(schedule))
    turn = 0

    def choose() -> None:
        nonlocal turn
        turn += 1
        index, passes_s = left.pop() if left else (turn, SIGN_S / 4)
        world.now_s += passes_s
        process = world.processes[index % len(world.processes)]
        if not process.is_done and process.wakes_at_s <= world.now_s:
            process.step()

    return choose


CLOCKS = st.floats(-1e6, 1e6)
PASSES = st.one_of(st.just(0.0), st.floats(0.0, 1.0), st.sampled_from([LEASE_S / 2, LEASE_S, 3 * LEASE_S]))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(CLOCKS, st.booleans()), min_size=2, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), PASSES), max_size=120),
)
def test_two_never_think_that_they_hold_a_lease_and_nobody_loses_one_that_he_renews(
    processes: list[tuple[float, bool]], schedule: list[tuple[int, float]]
) -> None:
    play(processes, schedule)
