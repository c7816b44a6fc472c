"""Whatever the machine answers, the adaptive optimizer stays in bounds and comes to rest."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from core.resources.adaptive import AdaptiveOptimizer, Aims, Level
from tests.simulated_input import SimulatedMachine

SECONDS = st.floats(1e-4, 1.0)
MACHINES = st.builds(
    SimulatedMachine,
    compute_s=SECONDS,
    latency_s=SECONDS,
    most_packs_per_s=st.one_of(st.just(math.inf), st.floats(1.0, 1e4)),
    jitter_s=st.one_of(st.just(0.0), SECONDS),
    contention=st.one_of(st.just(0.0), st.floats(0.0, 0.5)),
    base_percent=st.floats(0.0, 100.0),
    percent_per_pack=st.floats(0.0, 2.0),
    busy_percent=st.one_of(st.none(), st.floats(1.0, 100.0)),
    room_packs=st.one_of(st.none(), st.integers(0, 200)),
)
LEVELS = st.builds(Level, num_workers=st.integers(0, 24), prefetch_factor=st.integers(1, 8))
NUM_INTERVALS = 1024


@settings(max_examples=150, deadline=None)
@given(machine=MACHINES, start=LEVELS, most=LEVELS, target=st.floats(10.0, 100.0))
def test_any_machine_that_answers_the_same_to_the_same_is_adjusted_ever_more_rarely(
    machine: SimulatedMachine, start: Level, most: Level, target: float
) -> None:
    optimizer = AdaptiveOptimizer(Aims(target, 80.0, most), start)
    changed = []
    for i in range(NUM_INTERVALS):
        before, ram = optimizer.level, machine.interval(optimizer.level).ram_percent
        adjustment = optimizer.decide(machine.interval(before))
        level = optimizer.level
        assert (adjustment is None) == (level == before)
        assert level.num_workers <= max(start.num_workers, most.num_workers)
        assert 1 <= level.prefetch_factor <= max(start.prefetch_factor, most.prefetch_factor)
        if ram is not None and ram > 80:
            assert level.num_workers <= before.num_workers
            assert level.prefetch_factor <= before.prefetch_factor
        if adjustment:
            changed.append(i)
            if adjustment.reason in ("starved", "slow_input", "stay_fed") and machine.room_packs is not None:
                assert level.num_packs <= machine.room_packs
    # Between two raises that turned out wrong workers and prefetch go up once and down once at most, and the
    # pauses after them double.
    per_cycle = 2 * (max(start.num_workers, most.num_workers) + 8)
    assert len(changed) <= per_cycle * (2 + math.log2(NUM_INTERVALS))
    late = [i for i in changed if i >= NUM_INTERVALS // 2]
    assert len(late) <= 2 * per_cycle


@settings(max_examples=150, deadline=None)
@given(machine=MACHINES, start=LEVELS)
def test_with_ram_to_spare_training_never_ends_up_slower(machine: SimulatedMachine, start: Level) -> None:
    roomy = SimulatedMachine(
        **{**vars(machine), "base_percent": 0.0, "percent_per_pack": 0.0, "room_packs": None}
    )
    optimizer = AdaptiveOptimizer(Aims(85.0, 80.0, Level(24, 8)), start)
    for _ in range(100):
        optimizer.decide(roomy.interval(optimizer.level))
    while optimizer.decide(roomy.interval(optimizer.level)):
        pass  # until no raise is left to be judged
    assert roomy.step_s(optimizer.level) <= roomy.step_s(start) * (1 + 1e-9)
