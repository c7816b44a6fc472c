"""Facts as lines for people who watch a plan go."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.events.catalogue import (
    CaptureRefused,
    ChainFinished,
    CheckpointRefused,
    EpochFinished,
    Fact,
    GraphsBuilt,
    ModelEvaluated,
    PhaseFailed,
    PhaseFinished,
    PhaseSkipped,
    PhaseStarted,
    RowsQuarantined,
    SharedCapturesFound,
    ThresholdCalibrated,
    TrainingResumed,
)
from core.events.resource_facts import InputAdjusted, PackLimitChanged, PackLimitChosen, StorePlaced
from core.resources.failures import OOM_KINDS
from core.resources.readings import MIB
from core.training.packs import PackLimit

LOG = logging.getLogger("core.progress")


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Write everything that ``core`` logs to a file as well, one per plan; progress even if nobody asked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    log = logging.getLogger("core")
    level = log.level
    log.setLevel(min(log.getEffectiveLevel(), logging.INFO))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.close()


def log_progress(fact: Fact) -> None:
    """Log a fact that is worth a line; thresholds, and epochs without input, only in debug logging."""
    match fact:
        case RowsQuarantined():
            reasons = ", ".join(f"{reason} {count}" for reason, count in fact.reasons.items())
            total = fact.num_rows + fact.num_frames
            LOG.warning("%s: %s of %s rows quarantined (%s)", fact.path, fact.num_rows, total, reasons)
        case CaptureRefused():
            LOG.warning("%s: capture %s left out: %s", fact.dataset, fact.path, fact.reason)
        case SharedCapturesFound():
            LOG.warning(
                "%s: %s captures serve both training and test: their results are not independent",
                fact.dataset,
                len(fact.captures),
            )
        case GraphsBuilt():
            LOG.info(
                "%s: %s graphs of %s frames%s",
                fact.dataset,
                fact.num_graphs,
                fact.num_frames,
                " (cached)" * fact.cached,
            )
        case PhaseStarted():
            LOG.info(
                "%s: %s started (attempt %s, %s, %s)",
                fact.dataset,
                fact.phase,
                fact.attempt,
                fact.device,
                fact.precision,
            )
            for choice in fact.choices:
                LOG.info("%s: %s: %s", fact.dataset, fact.phase, choice)
        case PhaseFinished():
            LOG.info("%s: %s done in %.1f s", fact.dataset, fact.phase, fact.duration_s)
        case PhaseFailed():
            LOG.error("%s: %s failed (%s): %s", fact.dataset, fact.phase, fact.kind, fact.message)
        case PhaseSkipped():
            LOG.warning("%s: %s not reached: %s", fact.dataset, fact.phase, fact.reason)
        case ChainFinished():
            LOG.info("%s: %s after %.0f s", fact.dataset, fact.status, fact.duration_s)
        case _:
            _log_training(fact)


def _log_resources(fact: StorePlaced | PackLimitChosen | PackLimitChanged | InputAdjusted) -> None:
    match fact:
        case StorePlaced():
            LOG.info(
                "%s: %s reads its graphs %s (%.0f MiB): %s",
                fact.dataset,
                fact.phase,
                fact.placement,
                fact.num_bytes / MIB,
                fact.reason,
            )
        case PackLimitChosen():
            LOG.info(
                "%s: %s packs hold at most %s (bound by %s, %s)",
                fact.dataset,
                fact.model,
                PackLimit(**fact.limit),
                fact.binds,
                fact.source,
            )
        case PackLimitChanged():
            place = "" if fact.epoch is None else f" epoch {fact.epoch}, batch {fact.step}"
            LOG.log(
                logging.WARNING if fact.reason in OOM_KINDS else logging.INFO,
                "%s: %s%s: packs of %s -> at most %s (%s, %s)",
                fact.dataset,
                fact.model,
                place,
                PackLimit(**fact.before),
                PackLimit(**fact.after),
                fact.reason,
                fact.stage,
            )
        case InputAdjusted():
            LOG.info(
                "%s: %s epoch %s, batch %s: workers %s -> %s, prefetch %s -> %s (%s; GPU %s, RAM %s, loading "
                "%.2f s, processing %.2f s, waiting %.2f s)",
                fact.dataset,
                fact.model,
                fact.epoch,
                fact.step,
                fact.num_workers_before,
                fact.num_workers,
                fact.prefetch_factor_before,
                fact.prefetch_factor,
                fact.reason,
                _percent(fact.gpu_percent),
                _percent(fact.ram_percent),
                fact.data_load_s,
                fact.compute_s,
                fact.data_wait_s,
            )


def _input_text(fact: EpochFinished) -> str:
    """How an epoch was fed; empty where nothing is gathered."""
    if fact.num_workers is None:
        return ""
    return (
        f"; {fact.num_adjustments} adjustments, now {fact.num_workers} workers and prefetch "
        f"{fact.prefetch_factor}; GPU {_percent(fact.gpu_percent)}, RAM {_percent(fact.ram_percent)}"
    )


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f} %"


def _log_training(fact: Fact) -> None:
    match fact:
        case CheckpointRefused():
            LOG.warning("%s: %s: checkpoint left out: %s", fact.dataset, fact.model, fact.reason)
        case TrainingResumed():
            LOG.info(
                "%s: %s goes on from %s (epoch %s, step %s)",
                fact.dataset,
                fact.model,
                Path(fact.path).name,
                fact.epoch,
                fact.num_steps,
            )
        case EpochFinished():
            LOG.log(
                logging.DEBUG if fact.num_workers is None else logging.INFO,
                "%s: %s epoch %s: loss %.4f, validation %.4f, %.0f graphs/s%s",
                fact.dataset,
                fact.model,
                fact.epoch,
                fact.train_loss,
                fact.val_loss,
                fact.graphs_per_s,
                _input_text(fact),
            )
        case ThresholdCalibrated() | ModelEvaluated():
            LOG.debug("%s", fact)
        case StorePlaced() | PackLimitChosen() | PackLimitChanged() | InputAdjusted():
            _log_resources(fact)
        case _:
            pass
