"""Phases that wait for a GPU: never more than it has, nobody for ever, and priority datasets first."""

import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from core.planning.admission import Request, Waiter, turn_of, vram_limit

CARDS = {vram_limit("GPU-a"): 24_000, vram_limit("GPU-b"): 8_000}
PATIENCE = 30
LEASE = 20


@dataclass(eq=False)
class Slots:
    """What a phase holds of a limit; the lease of one that was killed runs out some time later."""

    limits: "Server"
    limit: str
    slots: int
    expires_at: int | None = None

    def give_back(self) -> None:
        self.limits.held.remove(self)


@dataclass
class Server:
    """The slots as Prefect counts them; time goes by in ticks."""

    capacities: dict[str, int]
    held: list[Slots] = field(default_factory=list)

    def free(self, limit: str) -> int:
        return self.capacities[limit] - sum(s.slots for s in self.held if s.limit == limit)

    def take(self, limit: str, slots: int) -> Slots | None:
        if self.free(limit) < slots:
            return None
        self.held.append(Slots(self, limit, slots))
        return self.held[-1]

    def tick(self, now: int) -> None:
        self.held = [s for s in self.held if s.expires_at is None or s.expires_at > now]


@dataclass
class Phase:
    """One phase: how much it asks for, when it comes, how long it takes, and when it is killed, if it is."""

    demand: dict[str, int]
    is_priority: bool
    comes_at: int
    duration: int
    killed_after: int | None
    waiter: Waiter | None = None
    slots: Slots | None = None
    admitted_at: int | None = None
    ends_at: int | None = None
    is_over: bool = False

    def requests(self) -> list[Request]:
        return [Request(limit, slots) for limit, slots in self.demand.items()]


@st.composite
def phases(draw: st.DrawFn) -> Phase:
    limits = draw(st.sampled_from([list(CARDS), list(CARDS)[:1], list(CARDS)[1:]]))
    wanted = draw(st.integers(1, 24_000))
    return Phase(
        {limit: min(wanted, CARDS[limit]) for limit in limits},
        draw(st.booleans()) and draw(st.booleans()),
        draw(st.integers(0, 60)),
        draw(st.integers(1, 40)),
        draw(st.none() | st.integers(0, 60)),
    )


def live(all_phases: list[Phase], order: random.Random, most_ticks: int) -> Server:
    """Let phases come, look in any order, run, end and be killed; at every tick no card is over-admitted."""
    server = Server({**CARDS, **{turn_of(limit): 1 for limit in CARDS}})
    for now in range(most_ticks):
        server.tick(now)
        for phase in order.sample(all_phases, len(all_phases)):
            if phase.is_over or phase.comes_at > now:
                continue
            if phase.killed_after is not None and now >= phase.comes_at + phase.killed_after:
                kill(phase, server, now)
            elif phase.ends_at is not None and now >= phase.ends_at:
                assert phase.slots
                phase.slots.give_back()
                phase.is_over = True
            elif phase.slots is None:
                look(phase, server, now)
            assert all(server.free(limit) >= 0 for limit in server.capacities)
        if all(phase.is_over for phase in all_phases):
            break
    return server


def kill(phase: Phase, server: Server, now: int) -> None:
    """SIGKILL: nothing is given back, and leases run out."""
    kept = [phase.slots, phase.waiter and phase.waiter._turn and phase.waiter._turn[1]]
    for slots in kept:
        if isinstance(slots, Slots) and slots in server.held:
            slots.expires_at = now + LEASE
    phase.is_over = True


def look(phase: Phase, server: Server, now: int) -> None:
    waited = now - phase.comes_at
    phase.waiter = phase.waiter or Waiter(server, phase.requests(), phase.is_priority, PATIENCE)
    if granted := phase.waiter.look(waited):
        _, slots = granted
        assert isinstance(slots, Slots)
        phase.slots, phase.admitted_at, phase.ends_at = slots, now, now + phase.duration


@settings(max_examples=150, deadline=None)
@given(st.lists(phases(), min_size=1, max_size=14), st.integers(0, 2**32))
def test_no_card_is_over_admitted_nobody_is_starved_and_nothing_leaks(
    all_phases: list[Phase], seed: int
) -> None:
    longest = sum(phase.duration for phase in all_phases)
    # Each can be in the way of each, for as long as it runs or its lease does, after all have come.
    most_ticks = 60 + longest + (LEASE + PATIENCE + 2) * len(all_phases) * 4
    server = live(all_phases, random.Random(seed), most_ticks)
    assert all(phase.is_over for phase in all_phases)
    server.tick(most_ticks + LEASE)
    assert not server.held


@settings(max_examples=100, deadline=None)
@given(st.lists(phases(), min_size=1, max_size=12), st.integers(1, 24_000), st.integers(0, 2**32))
def test_once_a_priority_phase_has_the_turn_nothing_is_admitted_before_it(
    others: list[Phase], wanted: int, seed: int
) -> None:
    limit = vram_limit("GPU-a")
    first = Phase({limit: wanted}, True, 5, 5, None)
    for phase in others:
        phase.is_priority, phase.killed_after = False, None
    live([*others, first], random.Random(seed), 3_000)
    assert first.admitted_at is not None
    for phase in others:
        if phase.slots and phase.slots.limit == limit and phase.admitted_at is not None:
            overtook = first.comes_at < phase.admitted_at < first.admitted_at
            # Only one that had waited so long that nothing may overtake it either.
            assert not overtook or phase.admitted_at - phase.comes_at >= PATIENCE


def test_a_large_phase_is_not_starved_by_small_ones_that_keep_coming() -> None:
    limit = vram_limit("GPU-a")
    large = Phase({limit: 24_000}, False, 1, 5, None)
    small = [Phase({limit: 6_000}, False, 2 * i, 9, None) for i in range(200)]
    live([*small, large], random.Random(0), 1_000)
    assert large.admitted_at is not None
    assert large.admitted_at <= large.comes_at + PATIENCE + 9 + 2


def test_a_priority_phase_waits_for_no_more_than_what_runs_already() -> None:
    limit = vram_limit("GPU-a")
    first = Phase({limit: 24_000}, True, 1, 5, None)
    small = [Phase({limit: 6_000}, False, 2 * i, 9, None) for i in range(200)]
    live([*small, first], random.Random(0), 1_000)
    assert first.admitted_at is not None
    assert first.admitted_at <= first.comes_at + 9 + 2 < PATIENCE


def test_small_phases_share_a_card() -> None:
    limit = vram_limit("GPU-a")
    small = [Phase({limit: 6_000}, False, 0, 50, None) for _ in range(4)]
    live(small, random.Random(0), 10)
    assert [phase.admitted_at for phase in small] == [0] * 4


def test_a_phase_goes_where_most_is_free() -> None:
    server = Server({**CARDS, **{turn_of(limit): 1 for limit in CARDS}})
    held = server.take(vram_limit("GPU-a"), 20_000)
    assert held
    requests = [Request(limit, 3_000) for limit in CARDS]
    granted = Waiter(server, requests, False, PATIENCE).look(0.0)
    assert granted
    assert granted[0].limit == vram_limit("GPU-b")
