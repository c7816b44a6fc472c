"""Leases against time: processes that run, stop and die between any two calls of their store."""

import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import LeaseHeldError, LeaseLostError
from core.events.leases import Lease, Leases
from core.events.stores import MemoryStore

LEASE_S = 6.0
SIGN_S = 1.0
NUM_TERMS = 2
MOST_STEPS = 50_000
ROUNDING_S = 1e-6


class World(MemoryStore):
    """Time that passes only when a test says so, and a store whose every call may take any of it."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.processes: list[Process] = []

    def names(self, stream: str) -> list[str]:
        self._yield()
        return super().names(stream)

    def read(self, stream: str, name: str, max_bytes: int) -> bytes:
        self._yield()
        return super().read(stream, name, max_bytes)

    def put_if_absent(self, stream: str, name: str, content: bytes) -> bool:
        self._yield()
        return super().put_if_absent(stream, name, content)

    def delete(self, stream: str, name: str) -> None:
        self._yield()
        super().delete(stream, name)

    def _yield(self) -> None:
        for process in self.processes:
            if process.ident == threading.get_ident():
                process.sleep(0.0)


class Process(threading.Thread):
    """Takes the lease, renews it after each of some pauses, and gives it back or not; again and again."""

    def __init__(self, world: World, clock_s: float, pauses_s: list[float], gives_back: bool) -> None:
        super().__init__(daemon=True)
        self.world, self.clock_s, self.pauses_s, self.gives_back = world, clock_s, pauses_s, gives_back
        self.lease: Lease | None = None
        self.wakes_at_s, self.is_done, self.num_terms = 0.0, False, 0
        self.error: BaseException | None = None
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)

    def run(self) -> None:
        self._go.acquire()
        try:
            while self.num_terms < NUM_TERMS:
                self._work()
        except BaseException as error:  # noqa: BLE001 - play() looks at it
            self.error = error
        self.is_done = True
        self._stopped.release()

    def _work(self) -> None:
        leases = Leases(self.world, self.clock, self.sleep)
        try:
            taken = leases.take("car", "plan", LEASE_S)
        except LeaseHeldError:
            self.sleep(SIGN_S)
            return
        self._require_free(taken)
        self.lease, self.num_terms = taken, self.num_terms + 1
        try:
            for pause_s in self.pauses_s:
                self.sleep(pause_s)
                taken.renew()
            if self.gives_back:
                self.lease = None
                taken.give_back()
            else:
                self.sleep(3 * LEASE_S)
        except LeaseLostError:
            self.lease = None

    def _require_free(self, taken: Lease) -> None:
        """Nobody loses a lease that he renewed in time."""
        for other in self.world.processes:
            lease = other.lease
            if other is not self and lease and taken.before and lease.sign == taken.before:
                assert other.clock() - lease.renewed_at >= LEASE_S - ROUNDING_S

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


Life = tuple[float, list[float], bool]
"""Of a process: what its clock is ahead, its pauses, and whether it gives back what it took."""


def play(lives: list[Life], schedule: list[tuple[int, float]]) -> None:
    """Let processes go on as scheduled, then in turn, and look at who holds the lease all the time."""
    world = World()
    world.processes = [Process(world, *life) for life in lives]
    for process in world.processes:
        process.start()
    left = list(reversed(schedule))
    for turn in range(MOST_STEPS):
        going = [process for process in world.processes if not process.is_done]
        if not going:
            break
        index, passes_s = left.pop() if left else (turn, 0.0)
        world.now_s += passes_s
        awake = [process for process in going if process.wakes_at_s <= world.now_s]
        if awake:
            awake[index % len(awake)].step()
        else:
            world.now_s = min(process.wakes_at_s for process in going)
        assert sum(process.thinks_it_holds for process in world.processes) <= 1
    assert [process.error for process in world.processes if process.error] == []
    assert all(process.is_done for process in world.processes)
    assert len(world.names("car")) <= 2 + len(lives)


PAUSES = st.lists(st.sampled_from([SIGN_S, LEASE_S / 2, LEASE_S, 2 * LEASE_S]), max_size=3)
PASSES = st.one_of(st.just(0.0), st.sampled_from([SIGN_S / 4, LEASE_S / 2, LEASE_S]))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), PAUSES, st.booleans()), min_size=2, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), PASSES), max_size=150),
)
def test_two_never_think_that_they_hold_a_lease_and_nobody_loses_one_that_he_renews(
    lives: list[Life], schedule: list[tuple[int, float]]
) -> None:
    play(lives, schedule)
