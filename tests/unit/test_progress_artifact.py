"""What a progress artifact says while a dataset is trained, and how it ends."""

from dataclasses import replace

import pytest

from core.planning.live.remaining import Remaining
from core.planning.live.view import PhaseView
from flows.progress import progress_percent, progress_words


def chain(*statuses: str) -> list[PhaseView]:
    names = ("graphs", "teacher", "student", "fusion", "evaluation")
    done = {"completed": 1.0, "running": 0.5, "failed": 0.25}
    return [
        PhaseView(dataset="car", phase=name, status=status, fraction=done.get(status, 0.0), elapsed_s=60.0)
        for name, status in zip(names, statuses, strict=True)
    ]


RUNNING = chain("skipped", "completed", "running", "pending", "pending")
RUNNING[2] = replace(
    RUNNING[2], model="student_gat", epoch=4, num_epochs=10, train_loss=0.25, eta=Remaining(100, 120, 140)
)


def test_it_says_what_is_done_how_well_and_how_long_it_takes() -> None:
    words = progress_words("p-1", RUNNING, is_over=False)
    assert words.startswith("**student** (2 of 4): student_gat, epoch 4 of 10, loss 0.25; about 2 min")
    assert words.endswith("Plan p-1.")
    assert 0 < progress_percent(RUNNING) < 100


def test_it_ends_at_100_percent_when_all_is_done() -> None:
    phases = chain("skipped", "completed", "completed", "completed", "completed")
    assert progress_percent(phases) == 100
    assert progress_words("p-1", phases, is_over=True) == "All phases done in 4 min. Plan p-1."


def test_it_ends_with_the_reason_why_not_and_never_with_markup_of_others() -> None:
    phases = chain("completed", "failed", "blocked", "blocked", "blocked")
    phases[1] = replace(phases[1], reason="bug: <img src=x> broke; see x.log:\nTraceback")
    words = progress_words("p-1", phases, is_over=True)
    assert "**teacher failed**: bug: \\<img src=x\\> broke; see x.log." in words
    assert "Not reached: student, fusion, evaluation." in words
    assert "Traceback" not in words
    assert progress_percent(phases) < 100


def test_a_failure_that_is_tried_again_is_no_end() -> None:
    phases = chain("completed", "failed", "pending", "pending", "pending")
    assert "teacher failed" not in progress_words("p-1", phases, is_over=False)


@pytest.mark.parametrize("status", ["running", "pending"])
def test_an_interruption_says_how_to_go_on(status: str) -> None:
    phases = chain("completed", status, "pending", "pending", "pending")
    assert progress_words("p-1", phases, is_over=True) == (
        "**Interrupted** in teacher: `python -m flows.retrain --resume p-1` goes on."
    )
