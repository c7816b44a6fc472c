"""Facts as lines of the coordinator's log."""

import logging

import pytest

from core.events.catalogue import CheckpointRefused, Fact, TrainingResumed
from core.planning.progress import log_progress

NAMES = {"dataset": "car", "phase": "teacher", "model": "teacher_gat"}


@pytest.mark.parametrize(
    ("fact", "level", "line"),
    [
        (
            TrainingResumed(**NAMES, epoch=3, num_steps=12, path="c/epoch-000003-step-00000012.pt"),
            logging.INFO,
            "car: teacher_gat goes on from epoch-000003-step-00000012.pt (epoch 3, step 12)",
        ),
        (
            CheckpointRefused(**NAMES, path="c/e.pt", reason="c/e.pt: sha256 is 0..., expected 1..."),
            logging.WARNING,
            "car: teacher_gat: checkpoint left out: c/e.pt: sha256 is 0..., expected 1...",
        ),
    ],
)
def test_what_becomes_of_a_killed_training_is_told(
    caplog: pytest.LogCaptureFixture, fact: Fact, level: int, line: str
) -> None:
    with caplog.at_level(logging.INFO, "core.progress"):
        log_progress(fact)
    assert [(record.levelno, record.message) for record in caplog.records] == [(level, line)]
