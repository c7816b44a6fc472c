from dataclasses import replace

import pytest

from core.resources.adaptive import AdaptiveOptimizer, Adjustment, Aims, Interval, Level
from tests.simulated_input import SimulatedMachine

AIMS = Aims(target_percent=85.0, max_ram_percent=80.0, most=Level(24, 8))
START = Level(6, 2)


def run(machine: SimulatedMachine, level: Level = START, num: int = 60) -> tuple[Level, list[Adjustment]]:
    """Where it ends after so many intervals, and what was done on the way."""
    optimizer, done = AdaptiveOptimizer(AIMS, level), []
    for _ in range(num):
        if adjustment := optimizer.decide(machine.interval(optimizer.level)):
            assert adjustment.after == optimizer.level
            done.append(adjustment)
    return optimizer.level, done


def test_a_slow_disk_gets_as_many_workers_as_it_takes_to_keep_up_and_no_more() -> None:
    level, done = run(SimulatedMachine(compute_s=0.01, latency_s=0.095))
    assert [a.reason for a in done] == ["starved", "stay_fed"]
    assert level == Level(10, 4)


def test_a_far_too_slow_disk_gets_all_workers_there_may_be() -> None:
    level, _ = run(SimulatedMachine(compute_s=0.001, latency_s=0.5))
    assert level.num_workers == 24


def test_training_bound_by_computing_is_left_alone() -> None:
    for busy in (None, 90.0):
        assert run(SimulatedMachine(compute_s=0.05, latency_s=0.02, busy_percent=busy)) == (START, [])


def test_a_gpu_that_idles_while_nothing_waits_for_input_gets_no_more_of_it() -> None:
    assert run(SimulatedMachine(compute_s=0.05, latency_s=0.02, busy_percent=30.0)) == (START, [])


@pytest.mark.parametrize(
    "machine",
    [
        SimulatedMachine(compute_s=0.01, latency_s=0.01, most_packs_per_s=50),  # more threads read no more
        SimulatedMachine(compute_s=0.02, latency_s=0.4, contention=0.3),  # workers slow the processing down
    ],
)
def test_a_raise_that_does_not_pay_is_taken_back_and_tried_ever_more_rarely(
    machine: SimulatedMachine,
) -> None:
    level, done = run(machine, num=300)
    assert level == START
    assert [a.reason for a in done] == ["starved", "no_gain"] * (len(done) // 2)
    assert 2 <= len(done) <= 16
    assert len(run(machine, num=600)[1]) <= len(done) + 2


def test_ram_above_its_limit_lowers_both_until_it_is_below_and_no_further() -> None:
    machine = SimulatedMachine(compute_s=0.05, base_percent=70.0, percent_per_pack=0.7, latency_s=0.02)
    level, done = run(machine, Level(12, 4))
    assert [a.reason for a in done] == ["ram_pressure"] * len(done)
    assert all(
        a.after.num_workers < a.before.num_workers and a.after.prefetch_factor < a.before.prefetch_factor
        for a in done
    )
    ram = machine.interval(level).ram_percent
    assert ram is not None
    assert ram <= 80
    assert level.num_workers >= 5


def test_ram_that_others_fill_leaves_one_worker() -> None:
    level, _ = run(SimulatedMachine(base_percent=95.0))
    assert level == Level(1, 1)


def test_nothing_is_raised_close_below_the_limit_of_ram() -> None:
    starved = SimulatedMachine(compute_s=0.01, latency_s=0.2, base_percent=78.0, percent_per_pack=0.001)
    assert run(starved) == (START, [])


@pytest.mark.parametrize(
    ("room_packs", "expected"),
    [(30, Level(10, 3)), (29, Level(10, 2)), (19, Level(9, 2)), (13, Level(6, 2)), (5, Level(6, 2))],
)
def test_no_raise_takes_more_ram_than_there_is(room_packs: int, expected: Level) -> None:
    machine = SimulatedMachine(compute_s=0.01, latency_s=0.095, room_packs=room_packs)
    optimizer = AdaptiveOptimizer(AIMS, START)
    optimizer.decide(machine.interval(START))
    assert optimizer.level == expected


def test_ram_pressure_after_a_raise_pauses_raises() -> None:
    machine = SimulatedMachine(compute_s=0.01, latency_s=0.2, base_percent=60.0, percent_per_pack=0.6)
    level, done = run(machine, num=300)
    assert {a.reason for a in done} == {"starved", "ram_pressure"}
    assert len(done) <= 40
    late = run(machine, num=600)[1][len(done) :]
    assert len(late) <= 8
    assert level.num_workers >= START.num_workers // 2


def test_bursts_are_bridged_by_more_packs_held_ready() -> None:
    bursts = SimulatedMachine(compute_s=0.05, latency_s=0.01, jitter_s=0.1, busy_percent=100.0)
    level, done = run(bursts)
    assert done[0].reason == "slow_input"
    assert level == Level(6, 3)


def test_a_full_gpu_whose_workers_are_nearly_as_busy_is_kept_fed() -> None:
    machine = SimulatedMachine(compute_s=0.02, latency_s=0.1, busy_percent=98.0)
    level, done = run(machine)
    assert [a.reason for a in done] == ["stay_fed"]
    assert level == Level(6, 3)
    assert run(replace(machine, busy_percent=80.0)) == (START, [])


def test_a_training_thread_that_gathers_by_itself_gets_a_worker_when_it_waits() -> None:
    level, done = run(SimulatedMachine(compute_s=0.05, latency_s=0.04), Level(0, 2))
    assert (done[0].before, done[0].after) == (Level(0, 2), Level(1, 3))
    assert level.num_workers == 1


def test_what_cannot_be_measured_hinders_nothing() -> None:
    starved = replace(SimulatedMachine(compute_s=0.01, latency_s=0.2).interval(START), ram_percent=None)
    adjustment = AdaptiveOptimizer(AIMS, START).decide(starved)
    assert adjustment == Adjustment("starved", START, Level(12, 3))


def test_utilisation_without_a_gpu_is_the_share_of_time_that_was_not_waited() -> None:
    assert Interval(10, 4.0, 1.0, 3.0, None, None).utilization_percent == 75.0
    assert Interval(10, 4.0, 1.0, 3.0, 40.0, None).utilization_percent == 40.0
    assert Interval(10, 4.0, 1.0, 3.0, 40.0, None).compute_s == 3.0
