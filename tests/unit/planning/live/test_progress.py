"""Facts as lines of the coordinator's log."""

import logging
from dataclasses import replace
from typing import Any

import pytest

from core.analytics.results import ModelBottleneck
from core.events.catalogue import CheckpointRefused, EpochFinished, Fact, PhaseFailed, TrainingResumed
from core.events.resource_facts import InputAdjusted, PackLimitChanged, PackLimitChosen, StorePlaced
from core.planning.live.progress import ProgressLog, log_bottleneck, log_progress

NAMES = {"dataset": "car", "phase": "teacher", "model": "teacher_gat"}


def changed(reason: str, epoch: int | None) -> PackLimitChanged:
    return PackLimitChanged(
        **NAMES,
        epoch=epoch,
        step=None if epoch is None else 7,
        stage="forward",
        reason=reason,
        before={"graphs": 512},
        after={"graphs": 256},
        allocated_mib=None,
        reserved_mib=None,
    )


def epoch(**fields: Any) -> EpochFinished:
    return EpochFinished(
        dataset="car",
        phase="teacher",
        model="teacher_gat",
        epoch=4,
        train_loss=0.25,
        val_loss=0.5,
        val_metric=None,
        learning_rate=0.001,
        num_steps=50,
        duration_s=10.0,
        graphs_per_s=800.0,
        data_wait_s=0.0,
        **fields,
    )


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
            "car: graphs are read mapped (3 MiB): too large",
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
        (
            PackLimitChosen(
                **NAMES,
                limit={"graphs": 512, "nodes": 9000},
                most={"graphs": 512, "nodes": 9000},
                binds="memory",
                source="probed",
                memory={},
                key="k",
            ),
            logging.INFO,
            "car: teacher_gat packs hold at most 512 graphs, 9000 nodes (bound by memory, probed)",
        ),
        (
            changed("cuda_oom", 2),
            logging.WARNING,
            "car: teacher_gat epoch 2, batch 7: packs of 512 graphs -> at most 256 graphs (cuda_oom, "
            "forward)",
        ),
        (
            changed("room", None),
            logging.INFO,
            "car: teacher_gat: packs of 512 graphs -> at most 256 graphs (room, forward)",
        ),
        (
            epoch(num_workers=8, prefetch_factor=3, num_adjustments=2, gpu_percent=91.2, ram_percent=40.0),
            logging.INFO,
            "car: teacher_gat epoch 4: loss 0.2500, validation 0.5000, 800 graphs/s; 2 adjustments, now 8 "
            "workers and prefetch 3; GPU 91 %, RAM 40 %",
        ),
    ],
)
def test_what_becomes_of_a_training_is_told(
    caplog: pytest.LogCaptureFixture, fact: Fact, level: int, line: str
) -> None:
    with caplog.at_level(logging.INFO, "core.progress"):
        log_progress(fact)
    assert [(record.levelno, record.message) for record in caplog.records] == [(level, line)]


def test_losses_are_told_however_an_epoch_was_fed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "core.progress"):
        log_progress(epoch())
    (record,) = caplog.records
    assert record.message == "car: teacher_gat epoch 4: loss 0.2500, validation 0.5000, 800 graphs/s"


def test_a_record_has_the_fact_with_its_numbers(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "core.progress"):
        log_progress(replace(epoch(), val_loss=float("nan")))
    fields = vars(caplog.records[0])
    assert (fields["dataset"], fields["phase"]) == ("car", "teacher")
    assert fields["fact"]["type"] == "epoch_finished"
    assert fields["fact"]["train_loss"] == 0.25
    assert fields["fact"]["val_loss"] == "nan"


def failed(kind: str, message: str) -> PhaseFailed:
    return PhaseFailed(
        dataset="car", phase="teacher", attempt=2, kind=kind, message=message, micro_batch_size=8
    )


def test_of_a_failure_people_are_told_the_sentence_and_the_file_has_the_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    message = "training failed (bug): ValueError: no; see x.log:\n  File t.py, line 3\nValueError: no"
    log_progress(failed("bug", message))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.message == "car: teacher failed (bug): training failed (bug): ValueError: no; see x.log"
    assert vars(record)["traceback"] == message


def test_of_bad_data_people_are_told_every_line(caplog: pytest.LogCaptureFixture) -> None:
    log_progress(failed("data_error", "two captures are bad:\na.csv\nb.csv"))
    (record,) = caplog.records
    assert record.message.endswith("two captures are bad:\na.csv\nb.csv")


def test_where_graphs_are_read_is_told_once_and_again_when_it_changes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    say = ProgressLog()
    with caplog.at_level(logging.INFO, "core.progress"):
        for phase, placement in (
            ("teacher", "resident"),
            ("student", "resident"),
            ("fusion", "mapped"),
        ):
            say(
                StorePlaced(
                    dataset="car",
                    phase=phase,
                    placement=placement,
                    num_bytes=1,
                    room_bytes=2,
                    reason="so it is",
                )
            )
    told = [vars(record)["phase"] for record in caplog.records]
    assert told == ["teacher", "fusion"]


def test_bottlenecks_are_told_with_what_to_change(caplog: pytest.LogCaptureFixture) -> None:
    found = ModelBottleneck(
        dataset="car",
        phase="teacher",
        model="teacher_gat",
        bottleneck="data_wait",
        cause="storage",
        reason="62 % of the time waits for data.",
        change="raise dataset.num_workers.",
        settings=("dataset.num_workers",),
        numbers={},
        missing=(),
    )
    with caplog.at_level(logging.INFO, "core.progress"):
        log_bottleneck(found)
    (record,) = caplog.records
    assert record.message == (
        "car: teacher_gat: data_wait: 62 % of the time waits for data. To change: raise dataset.num_workers."
    )
