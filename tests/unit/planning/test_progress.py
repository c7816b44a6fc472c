"""Facts as lines of the coordinator's log."""

import logging

import pytest

from core.events.catalogue import CheckpointRefused, Fact, TrainingResumed
from core.events.resource_facts import InputAdjusted, StorePlaced
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
        (
            StorePlaced(
                dataset="car",
                phase="teacher",
                placement="mapped",
                num_bytes=3 * 2**20,
                room_bytes=2**20,
                reason="too large",
            ),
            logging.INFO,
            "car: teacher reads its graphs mapped (3 MiB): too large",
        ),
        (
            InputAdjusted(
                **NAMES,
                epoch=1,
                step=50,
                reason="starved",
                num_workers=10,
                prefetch_factor=3,
                num_workers_before=6,
                prefetch_factor_before=2,
                gpu_percent=None,
                ram_percent=41.6,
                data_wait_s=4.0,
                data_load_s=9.5,
                compute_s=1.25,
            ),
            logging.INFO,
            "car: teacher_gat epoch 1, batch 50: workers 6 -> 10, prefetch 2 -> 3 (starved; GPU unknown, "
            "RAM 42 %, loading 9.50 s, processing 1.25 s, waiting 4.00 s)",
        ),
    ],
)
def test_what_becomes_of_a_training_is_told(
    caplog: pytest.LogCaptureFixture, fact: Fact, level: int, line: str
) -> None:
    with caplog.at_level(logging.INFO, "core.progress"):
        log_progress(fact)
    assert [(record.levelno, record.message) for record in caplog.records] == [(level, line)]
