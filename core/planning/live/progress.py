"""Facts as sentences for people who watch a plan go, and as records for those who search its log."""

import dataclasses
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import singledispatch
from pathlib import Path
from typing import Any, TypeAlias

from core.analytics.results import ModelBottleneck
from core.events.catalogue import (
    CaptureRefused,
    ChainFinished,
    ChainStopped,
    CheckpointRefused,
    EpochFinished,
    Fact,
    GraphsBuilt,
    GraphsLost,
    ModelEvaluated,
    ModelSaved,
    PhaseFailed,
    PhaseFinished,
    PhaseSkipped,
    PhaseStarted,
    PlanCreated,
    PlanFinished,
    PlanResumed,
    RowsQuarantined,
    SharedCapturesFound,
    ThresholdCalibrated,
    TrainingResumed,
)
from core.events.resource_facts import (
    ConfigRecommended,
    InputAdjusted,
    PackLimitChanged,
    PackLimitChosen,
    PhaseAdmitted,
    RecommendationJudged,
    StorePlaced,
)
from core.logs import headline, identified, logged_to
from core.planning.live.decisions import granted
from core.resources.failures import OOM_KINDS
from core.resources.readings import MIB
from core.training.packs import PackLimit
from settings.layout import Layout

LOG = logging.getLogger("core.progress")

Line: TypeAlias = tuple[int, str]
"""Level, and what to say."""

_TOLD_METRICS = ("f1", "mcc", "auroc", "false_alarms_per_hour", "alarm_rate")
_IDS = ("dataset", "phase", "attempt")


def log_progress(fact: Fact) -> None:
    """Log a fact: what people should know of it at once, everything else in debug logging."""
    for level, text in sentences(fact):
        LOG.log(level, "%s", text, extra=_fields(fact))


@contextmanager
def plan_logged(layout: Layout, plan_id: str) -> Iterator[None]:
    """Keep what ``core`` logs in the coordinator's file of a plan, details included, with the plan's id.

    Args:
        layout: The plan's output directory.
        plan_id: The plan.
    """
    file = layout.coordinator_logs / f"{plan_id}.jsonl"
    with identified(plan=plan_id), logged_to(file, "core", logging.DEBUG):
        yield


class ProgressLog:
    """Logs the facts of one chain; what is repeated for every phase is said once."""

    def __init__(self) -> None:
        self._placed = ""

    def __call__(self, fact: Fact) -> None:
        """Log a fact."""
        if isinstance(fact, StorePlaced):
            ((_, text),) = sentences(fact)
            if text == self._placed:
                LOG.debug("%s", text, extra=_fields(fact))
                return
            self._placed = text
        log_progress(fact)


def log_bottleneck(found: ModelBottleneck) -> None:
    """Log what kept the training of a model from being faster."""
    text = f"{found.dataset}: {found.model}: {found.bottleneck}: {found.reason}"
    change = f" To change: {found.change}" if found.change else ""
    level = logging.INFO if change else logging.DEBUG
    LOG.log(level, "%s%s", text, change, extra={"dataset": found.dataset, "phase": found.phase})


@singledispatch
def sentences(fact: Fact) -> Iterator[Line]:
    """What to say of a fact."""
    name = getattr(fact, "dataset", "")
    yield logging.DEBUG, f"{name}: {fact.TYPE}" if name else fact.TYPE


@sentences.register
def _(fact: PlanCreated) -> Iterator[Line]:
    num_run = sum(step["action"] == "run" for step in fact.steps)
    datasets = dict.fromkeys(step["dataset"] for step in fact.steps)
    yield (
        logging.INFO,
        f"{num_run} of {len(fact.steps)} phases to run ({', '.join(datasets)}) on "
        f"{fact.machine.get('device_name', 'an unknown device')}",
    )
    for step in fact.steps:
        yield logging.DEBUG, f"{step['dataset']}: {step['phase']}: {step['action']}: {step['reason']}"


@sentences.register
def _(fact: PlanResumed) -> Iterator[Line]:
    yield logging.INFO, f"taken up again; left to do: {', '.join(fact.remaining) or 'nothing but its end'}"


@sentences.register
def _(fact: PlanFinished) -> Iterator[Line]:
    level = logging.INFO if fact.status == "completed" else logging.ERROR
    yield level, f"plan {fact.status} after {fact.duration_s:.0f} s"


@sentences.register
def _(fact: RowsQuarantined) -> Iterator[Line]:
    reasons = ", ".join(f"{reason} {count}" for reason, count in fact.reasons.items())
    total = fact.num_rows + fact.num_frames
    yield logging.WARNING, f"{fact.path}: {fact.num_rows} of {total} rows quarantined ({reasons})"


@sentences.register
def _(fact: CaptureRefused) -> Iterator[Line]:
    yield logging.WARNING, f"{fact.dataset}: capture {fact.path} left out: {fact.reason}"


@sentences.register
def _(fact: SharedCapturesFound) -> Iterator[Line]:
    yield (
        logging.WARNING,
        f"{fact.dataset}: {len(fact.captures)} captures serve both training and test: their results are not "
        "independent",
    )


@sentences.register
def _(fact: GraphsBuilt) -> Iterator[Line]:
    cached = " (cached)" * fact.cached
    yield logging.INFO, f"{fact.dataset}: {fact.num_graphs} graphs of {fact.num_frames} frames{cached}"


@sentences.register
def _(fact: GraphsLost) -> Iterator[Line]:
    yield logging.WARNING, f"{fact.dataset}: its graphs are gone from {fact.path}: they are built again"


@sentences.register
def _(fact: PhaseAdmitted) -> Iterator[Line]:
    waited = f" after {fact.waited_s:.0f} s" if fact.waited_s >= 1 else ""
    yield logging.INFO, f"{fact.dataset}: {fact.phase} gets {granted(fact)}{waited}: {fact.reason}"


@sentences.register
def _(fact: PhaseStarted) -> Iterator[Line]:
    what = f"{fact.dataset}: {fact.phase}"
    yield logging.INFO, f"{what} started (attempt {fact.attempt}, {fact.device}, {fact.precision})"
    for choice in fact.choices:
        yield logging.INFO, f"{what}: {choice}"


@sentences.register
def _(fact: PhaseFinished) -> Iterator[Line]:
    yield logging.INFO, f"{fact.dataset}: {fact.phase} done in {fact.duration_s:.1f} s"


@sentences.register
def _(fact: PhaseFailed) -> Iterator[Line]:
    # What is wrong with data is said on as many lines as it takes; else they are traceback and output.
    message = fact.message if fact.kind == "data_error" else headline(fact.message)
    yield logging.ERROR, f"{fact.dataset}: {fact.phase} failed ({fact.kind}): {message}"


@sentences.register
def _(fact: PhaseSkipped) -> Iterator[Line]:
    yield logging.WARNING, f"{fact.dataset}: {fact.phase} not reached: {fact.reason}"


@sentences.register
def _(fact: ChainFinished) -> Iterator[Line]:
    yield logging.INFO, f"{fact.dataset}: {fact.status} after {fact.duration_s:.0f} s"


@sentences.register
def _(fact: ChainStopped) -> Iterator[Line]:
    yield logging.WARNING, f"{fact.dataset}: broken off ({fact.reason}); --resume goes on from where it was"


@sentences.register
def _(fact: StorePlaced) -> Iterator[Line]:
    yield (
        logging.INFO,
        f"{fact.dataset}: graphs are read {fact.placement} ({fact.num_bytes / MIB:.0f} MiB): {fact.reason}",
    )


@sentences.register
def _(fact: PackLimitChosen) -> Iterator[Line]:
    yield (
        logging.INFO,
        f"{fact.dataset}: {fact.model} packs hold at most {PackLimit(**fact.limit)} (bound by {fact.binds}, "
        f"{fact.source})",
    )


@sentences.register
def _(fact: PackLimitChanged) -> Iterator[Line]:
    place = "" if fact.epoch is None else f" epoch {fact.epoch}, batch {fact.step}"
    yield (
        logging.WARNING if fact.reason in OOM_KINDS else logging.INFO,
        f"{fact.dataset}: {fact.model}{place}: packs of {PackLimit(**fact.before)} -> at most "
        f"{PackLimit(**fact.after)} ({fact.reason}, {fact.stage})",
    )


@sentences.register
def _(fact: InputAdjusted) -> Iterator[Line]:
    yield (
        logging.INFO,
        f"{fact.dataset}: {fact.model} epoch {fact.epoch}, batch {fact.step}: workers "
        f"{fact.num_workers_before} -> {fact.num_workers}, prefetch {fact.prefetch_factor_before} -> "
        f"{fact.prefetch_factor} ({fact.reason}; GPU {_percent(fact.gpu_percent)}, RAM "
        f"{_percent(fact.ram_percent)}, loading {fact.data_load_s:.2f} s, processing {fact.compute_s:.2f} s, "
        f"waiting {fact.data_wait_s:.2f} s)",
    )


@sentences.register
def _(fact: CheckpointRefused) -> Iterator[Line]:
    yield logging.WARNING, f"{fact.dataset}: {fact.model}: checkpoint left out: {fact.reason}"


@sentences.register
def _(fact: TrainingResumed) -> Iterator[Line]:
    yield (
        logging.INFO,
        f"{fact.dataset}: {fact.model} goes on from {Path(fact.path).name} (epoch {fact.epoch}, step "
        f"{fact.num_steps})",
    )


@sentences.register
def _(fact: EpochFinished) -> Iterator[Line]:
    fed = ""
    if fact.num_workers is not None:
        fed = (
            f"; {fact.num_adjustments} adjustments, now {fact.num_workers} workers and prefetch "
            f"{fact.prefetch_factor}; GPU {_percent(fact.gpu_percent)}, RAM {_percent(fact.ram_percent)}"
        )
    yield (
        logging.INFO,
        f"{fact.dataset}: {fact.model} epoch {fact.epoch}: loss {fact.train_loss:.4f}, validation "
        f"{fact.val_loss:.4f}, {fact.graphs_per_s:.0f} graphs/s{fed}",
    )


@sentences.register
def _(fact: ModelSaved) -> Iterator[Line]:
    yield logging.DEBUG, f"{fact.dataset}: {fact.phase} saved to {fact.path} (sha256 {fact.sha256[:12]})"


@sentences.register
def _(fact: ThresholdCalibrated) -> Iterator[Line]:
    yield logging.DEBUG, f"{fact.dataset}: {fact.model} alarms from {fact.threshold:.4g} on"


@sentences.register
def _(fact: ModelEvaluated) -> Iterator[Line]:
    known = {name: fact.metrics.get(name) for name in _TOLD_METRICS}
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in known.items() if value is not None)
    yield logging.DEBUG, f"{fact.dataset}: {fact.model} on {fact.folder}: {numbers}"


@sentences.register
def _(fact: ConfigRecommended) -> Iterator[Line]:
    for item in fact.advice:
        if item["value"] != item["before"]:
            change = f"{item['setting']} {item['before']} -> {item['value']}"
            yield logging.INFO, f"recommended for {fact.device_name}: {change}: {item['reason']}"
    for reason in fact.reasons:
        yield logging.DEBUG, f"recommended for {fact.device_name}: {reason}"


@sentences.register
def _(fact: RecommendationJudged) -> Iterator[Line]:
    verdict = "helped" if fact.helped else "made it worse" if fact.high < 0 else "made no clear difference"
    yield (
        logging.INFO,
        f"{fact.setting} {fact.instead_of} -> {fact.value}, recommended after plan {fact.recommended_by}, "
        f"{verdict}: {fact.metric} {fact.before:.4g} -> {fact.after:.4g}",
    )


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f} %"


def _fields(fact: Fact) -> dict[str, Any]:
    """What a record has besides the sentence: the fact without its tables, and the traceback it came with."""
    fields = {field.name: getattr(fact, field.name) for field in dataclasses.fields(fact)}
    found: dict[str, Any] = {name: fields[name] for name in _IDS if name in fields}
    if isinstance(fact, PhaseFailed) and "\n" in fact.message:
        found["traceback"] = fields.pop("message")
    plain = {name: _finite(value) for name, value in fields.items() if not _is_table(value)}
    return {**found, "fact": {"type": fact.TYPE, **plain}}


def _is_table(value: object) -> bool:
    """Whether a value has rows, or groups of settings: too much for a line."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(isinstance(item, Mapping) for item in inner)


def _finite(value: object) -> object:
    """JSON has no number that is not finite."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
