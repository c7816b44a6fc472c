"""What befell a plan, where its time went, and how epochs are thinned for a chart."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from core.analytics.epochs import MAX_SLICES, thin, time_use, total_use
from core.analytics.timeline import (
    EpochPoint,
    fold_epochs,
    fold_limits,
    fold_marks,
    fold_spans,
    gather_marks,
)
from core.events.catalogue import PhaseFinished, PhaseStarted, PlanResumed, to_event
from core.events.event import Event
from tests.sample_log import sample_events

START = datetime(2026, 11, 3, 9, tzinfo=UTC)


def epochs(
    number: int, *, wait_s: Sequence[float] = (), validation_s: float | None = 1.0
) -> list[EpochPoint]:
    """Epochs of 10 s each, one after the other."""
    waits = [*wait_s, *[0.0] * (number - len(wait_s))]
    return [
        EpochPoint(
            "d", "gat", n, 0.5, 0.6, "teacher", START + timedelta(seconds=10 * (n + 1)), 10.0, waits[n],
            validation_s, None, 100.0,
        )
        for n in range(number)
    ]  # fmt: skip


def test_failures_retries_resumes_memory_and_input_are_marked_in_order_of_time() -> None:
    events = [*sample_events(), to_event("p", PlanResumed(remaining=[], data_dir=None))]
    marks = fold_marks(events)
    assert [mark.at for mark in marks] == sorted(mark.at for mark in marks)
    texts = {(mark.kind, mark.dataset, mark.phase): mark.text for mark in marks}
    assert texts["failure", "hcrl_sa", "student"] == "attempt 1 failed: cuda_oom"
    assert texts["retry", "hcrl_sa", "student"] == "attempt 2 began"
    assert (
        texts["memory", "hcrl_sa", "teacher"]
        == "teacher_vgae: packs 482 graphs → 241 graphs (fragmentation, backward)"
    )
    assert texts["input", "set_01", "fusion"] == "fusion: 9 → 10 workers, prefetch 3 → 4 (starved)"
    assert texts["resume", "", ""] == "the plan was resumed"


def test_marks_that_lie_close_are_gathered_by_kind_and_counted() -> None:
    marks = [mark for mark in fold_marks(sample_events()) if mark.kind == "input"]
    gathered = gather_marks(marks, 5)
    assert sum(count for _, count in gathered) == len(marks)
    assert len(gathered) < len(marks)
    assert gather_marks([], 5) == []
    assert gather_marks(marks[:1], 5) == [(marks[0], 1)]


def test_limits_are_shown_of_models_where_they_changed() -> None:
    limits = fold_limits(sample_events())
    assert {key: [p.num_graphs for p in points] for key, points in limits.items()} == {
        ("hcrl_sa", "teacher_vgae"): [482, 241]
    }


def test_epochs_carry_what_charts_show() -> None:
    point = next(p for p in fold_epochs(sample_events()) if p.model == "student_gat" and p.epoch == 3)
    assert point.phase == "student"
    assert point.val_metric is not None
    assert point.graphs_per_s == pytest.approx(24_100 / point.duration_s, rel=0.01)
    assert point.started_at == point.ended_at - timedelta(seconds=point.duration_s)


def test_a_clock_that_is_set_back_makes_no_attempt_end_before_it_began() -> None:
    def at(second: int, event: Event) -> Event:
        return event._replace(occurred_at=START + timedelta(seconds=second))

    started = PhaseStarted(
        dataset="d", phase="teacher", attempt=1, device="cpu", precision="fp32", micro_batch_size=1
    )
    ended = PhaseFinished(dataset="d", phase="teacher", attempt=1, duration_s=5.0, peak_memory_mib=1.0)
    [span] = fold_spans([at(60, to_event("p", started)), at(5, to_event("p", ended))])
    assert span.duration_s == 0.0


def test_time_of_an_epoch_is_waiting_validating_and_the_rest() -> None:
    [use] = time_use(epochs(1, wait_s=[2.0]))
    assert (use.waiting_s, use.computing_s, use.validating_s) == (2.0, 7.0, 1.0)
    [old] = time_use(epochs(1, wait_s=[2.0], validation_s=None))
    assert (old.waiting_s, old.computing_s, old.validating_s) == (2.0, 8.0, 0.0)


def test_many_epochs_are_put_together_without_losing_time_or_the_worst_of_them() -> None:
    many = epochs(3 * MAX_SLICES, wait_s=[*[0.0] * 7, 9.0])
    slices = time_use(many)
    assert len(slices) <= MAX_SLICES
    assert sum(use.total_s for use in slices) == pytest.approx(30.0 * MAX_SLICES)
    assert max(use.most_waiting for use in slices) == 0.9
    assert slices[0].started_at == START
    assert slices[-1].ended_at == many[-1].ended_at
    [total] = total_use(many)
    assert (total.first_epoch, total.last_epoch) == (0, 3 * MAX_SLICES - 1)


def test_epochs_of_no_duration_are_left_out() -> None:
    assert time_use([EpochPoint("d", "m", 0, None, None, "teacher", START, 0.0, 0.0, None, None, None)]) == []


def test_thinning_keeps_both_ends_and_every_extreme() -> None:
    values = [float(n % 7) for n in range(3000)]
    values[1234], values[2345] = 100.0, -50.0
    kept = thin(list(enumerate(values)), lambda pair: pair[1], most=100)
    assert len(kept) <= 100
    assert (kept[0], kept[-1]) == ((0, 0.0), (2999, values[-1]))
    assert {(1234, 100.0), (2345, -50.0)} <= set(kept)
    assert kept == sorted(kept)
    assert thin([1.0, 2.0], float) == [1.0, 2.0]
