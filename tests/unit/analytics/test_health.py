"""How a plan is: what needs attention, in which order; disk, memory and supervision in numbers."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from core.analytics.board import Dashboard, fold_dashboard
from core.analytics.health import disk_outlook, overall
from core.analytics.watchdog import fold_memory, fold_watch
from core.events.catalogue import PhaseFailed, PhaseStarted, PlanResumed, to_event
from core.events.event import Event
from core.events.telemetry import TELEMETRY_SCHEMA
from tests.sample_log import PLAN_ID, sample_events

NOTHING = pl.DataFrame(schema=TELEMETRY_SCHEMA)
START = datetime(2026, 11, 3, 9, tzinfo=UTC)


def board(events: list[Event]) -> Dashboard:
    return fold_dashboard(PLAN_ID, {PLAN_ID: events}, NOTHING)


def curve(*free_mib: float, every_s: float = 3600.0) -> pl.DataFrame:
    times = [START + timedelta(seconds=every_s * n) for n in range(len(free_mib))]
    return pl.DataFrame({"occurred_at": times, "mean": free_mib})


def test_a_plan_without_trouble_is_well() -> None:
    verdict = overall(board(sample_events(failures=False, gpu=False)))
    assert [f for f in verdict.findings if f.level == "bad"] == []


def test_what_failed_for_good_comes_before_what_recovered() -> None:
    verdict = overall(board(sample_events()))
    titles = [finding.title for finding in verdict.findings]
    assert verdict.level == "bad"
    assert verdict.sentence.startswith("Needs attention: set_01 fusion failed (bug), and ")
    assert titles.index("set_01 fusion failed (bug)") < titles.index("hcrl_sa student failed and recovered")
    assert "1 phase not reached" in titles
    assert "packs were made smaller 1 time" in titles
    levels = [("bad", "warn", "note").index(finding.level) for finding in verdict.findings]
    assert levels == sorted(levels)


def test_an_empty_plan_is_well() -> None:
    assert overall(board([])).sentence == "All well: nothing needs attention."


@pytest.mark.parametrize(
    ("free", "num_more"),
    [((1000.0, 900.0), 9.0), ((900.0, 900.0), None), ((900.0, 1000.0), None), ((5.0,), None)],
    ids=["filling", "steady", "emptied", "one sample"],
)
def test_a_disk_holds_as_many_more_plans_as_take_what_is_free(
    free: tuple[float, ...], num_more: float | None
) -> None:
    outlook = disk_outlook(curve(*free))
    assert outlook is not None
    assert outlook.free_mib == free[-1]
    assert outlook.num_more == (pytest.approx(num_more) if num_more else None)


def test_nothing_is_said_of_a_disk_that_was_not_measured() -> None:
    assert disk_outlook(None) is None
    assert disk_outlook(curve()) is None


def test_memory_is_compared_with_that_of_the_device_the_phase_ran_on() -> None:
    on_gpu = {(u.dataset, u.phase): u for u in fold_memory(sample_events())}
    assert on_gpu["hcrl_sa", "teacher"].total_mib == 24_576.0
    assert on_gpu["hcrl_sa", "teacher"].room_mib == 20_000.0
    assert ("set_01", "fusion") not in on_gpu  # it failed
    on_cpu = fold_memory(sample_events(gpu=False))
    assert on_cpu[0].share == pytest.approx(2100 / 15_872)


def test_hangs_restarts_reports_and_silence_are_counted() -> None:
    def at(second: float, event: Event) -> Event:
        return event._replace(occurred_at=START + timedelta(seconds=second))

    def started(attempt: int) -> Event:
        fact = PhaseStarted(
            dataset="d", phase="teacher", attempt=attempt, device="cpu", precision="fp32", micro_batch_size=1
        )
        return to_event("p", fact)

    hang = PhaseFailed(
        dataset="d", phase="teacher", attempt=1, kind="hang", message="", micro_batch_size=1, report="r.txt"
    )
    resumed = PlanResumed(remaining=[], data_dir=None)
    events = [
        at(0, started(1)), at(700, to_event("p", hang)), at(5000, started(2)), at(5003, started(3)),
        at(9000, to_event("p", resumed)),
    ]  # fmt: skip
    watch = fold_watch(events)
    assert (watch.num_hangs, watch.num_restarts, watch.num_resumes) == (1, 2, 1)
    assert watch.reports == (("d", "teacher", 1, "r.txt"),)
    # Neither the time between attempts nor that before a resume is a phase's silence.
    assert watch.longest is not None
    assert watch.longest.duration_s == 700
    assert fold_watch([]).longest is None
