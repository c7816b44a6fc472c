"""Every event type: its stable name, its version and its fields.

A class here is the payload of one event type. Its ``TYPE`` is what the log stores, so a class may be renamed
but a ``TYPE`` may not. A changed shape gets a higher ``VERSION`` and an upcaster.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

from core.errors import DamagedLogError, UnknownEventError
from core.events import resource_facts
from core.events.event import Event, StoredPayload, new_event
from core.events.fact import Emit, Fact


@dataclass(frozen=True, kw_only=True)
class PlanCreated(Fact):
    """A plan was made: which phases of which datasets will run, and why."""

    TYPE: ClassVar[str] = "plan_created"
    VERSION: ClassVar[int] = 3
    steps: list[dict[str, Any]]
    """One per dataset and phase: dataset, phase, action (`run` or `skip`), reason, settings_digest."""
    settings: dict[str, Any]
    machine: dict[str, Any]
    force: bool
    previous: list[dict[str, Any]]
    """Where other plans stood, those that had gone on since an earlier plan named them: plan, and number,
    position and sha256 of its last segment."""
    priority: list[str] = field(default_factory=list)
    """Datasets that go before others, on workers and where phases wait for a GPU."""


@dataclass(frozen=True, kw_only=True)
class PlanFinished(Fact):
    """A plan came to its end; status is `completed` or `failed` (some phase failed, the rest was done)."""

    TYPE: ClassVar[str] = "plan_finished"
    status: str
    duration_s: float


@dataclass(frozen=True, kw_only=True)
class PlanResumed(Fact):
    """An interrupted plan was taken up again."""

    TYPE: ClassVar[str] = "plan_resumed"
    VERSION: ClassVar[int] = 2
    remaining: list[str]
    """What was left to do, as ``dataset/phase``."""
    data_dir: str | None
    """Where captures are from now on; None where they were."""


@dataclass(frozen=True, kw_only=True)
class ChainStarted(Fact):
    """Work on a dataset began."""

    TYPE: ClassVar[str] = "chain_started"
    VERSION: ClassVar[int] = 2
    dataset: str
    holder: str = ""
    """The process that works on it, ``host:pid:token``; empty where an older release did not say."""


@dataclass(frozen=True, kw_only=True)
class ChainFinished(Fact):
    """Work on a dataset ended; status is `completed` or `failed`."""

    TYPE: ClassVar[str] = "chain_finished"
    dataset: str
    status: str
    duration_s: float


@dataclass(frozen=True, kw_only=True)
class ChainStopped(Fact):
    """Work on a dataset was broken off, to be taken up again; what ran is interrupted."""

    TYPE: ClassVar[str] = "chain_stopped"
    dataset: str
    holder: str
    """The process that worked on it, as ``chain_started`` names it; nothing that it says later counts."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class CapturesDigested(Fact):
    """The captures of a dataset were hashed."""

    TYPE: ClassVar[str] = "captures_digested"
    dataset: str
    data_digest: str
    captures: list[dict[str, Any]]
    """One per capture: path, role, folder, num_bytes, mtime_ns, sha256."""


@dataclass(frozen=True, kw_only=True)
class SharedCapturesFound(Fact):
    """The same bytes serve training and test (of this or another dataset): results are not independent."""

    TYPE: ClassVar[str] = "shared_captures_found"
    dataset: str
    captures: list[dict[str, Any]]
    """One per shared capture: path, other_dataset, other_path, sha256."""


@dataclass(frozen=True, kw_only=True)
class RowsQuarantined(Fact):
    """Rows of one capture were put aside."""

    TYPE: ClassVar[str] = "rows_quarantined"
    dataset: str
    path: str
    num_rows: int
    num_frames: int
    reasons: dict[str, int]
    examples: list[dict[str, Any]]
    """The first ones: line, reason, text (shortened)."""


@dataclass(frozen=True, kw_only=True)
class CaptureRefused(Fact):
    """A capture was not used at all."""

    TYPE: ClassVar[str] = "capture_refused"
    dataset: str
    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class GraphsBuilt(Fact):
    """The graph store of a dataset is there; `cached` if it was there before."""

    TYPE: ClassVar[str] = "graphs_built"
    dataset: str
    path: str
    graphs_digest: str
    split_digest: str
    num_frames: int
    num_graphs: int
    num_nodes: int
    num_edges: int
    num_attack_graphs: int
    splits: dict[str, int]
    """Graphs per split: train, val, test, embargo."""
    duration_s: float
    cached: bool


@dataclass(frozen=True, kw_only=True)
class GraphsLost(Fact):
    """The graph store that a plan had built is gone: it is built again."""

    TYPE: ClassVar[str] = "graphs_lost"
    dataset: str
    path: str


@dataclass(frozen=True, kw_only=True)
class PhaseStarted(Fact):
    """A phase began an attempt."""

    TYPE: ClassVar[str] = "phase_started"
    VERSION: ClassVar[int] = 2
    dataset: str
    phase: str
    attempt: int
    device: str
    precision: str
    micro_batch_size: int
    num_workers: int | None = None
    prefetch_factor: int | None = None
    choices: list[str] = dataclasses.field(default_factory=list)
    """What was chosen from the log for this attempt, other than the settings say, each with its reason."""


@dataclass(frozen=True, kw_only=True)
class PhaseSkipped(Fact):
    """A planned phase was not reached because its parent failed."""

    TYPE: ClassVar[str] = "phase_skipped"
    dataset: str
    phase: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class PhaseFinished(Fact):
    """A phase ended well."""

    TYPE: ClassVar[str] = "phase_finished"
    dataset: str
    phase: str
    attempt: int
    duration_s: float
    peak_memory_mib: float
    """Peak memory of the training process: VRAM allocated on a GPU, resident memory on a CPU."""


@dataclass(frozen=True, kw_only=True)
class PhaseFailed(Fact):
    """An attempt of a phase failed; kind is the failure class."""

    TYPE: ClassVar[str] = "phase_failed"
    VERSION: ClassVar[int] = 2
    dataset: str
    phase: str
    attempt: int
    kind: str
    message: str
    micro_batch_size: int
    report: str | None = None
    """File in ``process_logs`` with the stacks and last signs of life; None where there is none."""


@dataclass(frozen=True, kw_only=True)
class EpochFinished(Fact):
    """One epoch of one model."""

    TYPE: ClassVar[str] = "epoch_finished"
    VERSION: ClassVar[int] = 3
    dataset: str
    phase: str
    model: str
    epoch: int
    train_loss: float
    val_loss: float
    val_metric: float | None
    """MCC on validation for supervised models, None where there is none."""
    learning_rate: float
    num_steps: int
    duration_s: float
    """Training and validation."""
    graphs_per_s: float
    """Of training."""
    data_wait_s: float
    """Time in which training stood still for its next pack."""
    data_load_s: float | None = None
    """Time spent gathering packs, summed over worker threads."""
    num_packs: int | None = None
    """Forward/backward passes: more than steps where a step did not fit at once."""
    num_workers: int | None = None
    """Worker threads at its end; 0 where packs are gathered by the training thread itself."""
    prefetch_factor: int | None = None
    num_adjustments: int | None = None
    """Changes of workers, prefetch or pack limit in this epoch."""
    gpu_percent: float | None = None
    """Mean GPU utilisation over its adjustment intervals; None without a GPU."""
    ram_percent: float | None = None
    """Mean RAM in use on the machine (or of the container's limit) over its adjustment intervals."""
    validation_s: float | None = None
    """Part of its duration that was validation."""


@dataclass(frozen=True, kw_only=True)
class CheckpointWritten(Fact):
    """A checkpoint is on disk."""

    TYPE: ClassVar[str] = "checkpoint_written"
    VERSION: ClassVar[int] = 2
    dataset: str
    phase: str
    model: str
    epoch: int
    num_steps: int | None
    """Steps of this epoch that were done; None for all of them."""
    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class CheckpointRefused(Fact):
    """A checkpoint was found damaged; training goes on from the one before it, or from the beginning."""

    TYPE: ClassVar[str] = "checkpoint_refused"
    dataset: str
    phase: str
    model: str
    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class TrainingResumed(Fact):
    """A later attempt went on from a checkpoint."""

    TYPE: ClassVar[str] = "training_resumed"
    dataset: str
    phase: str
    model: str
    epoch: int
    """The epoch it went on in."""
    num_steps: int
    """Steps of that epoch that were done before."""
    path: str


@dataclass(frozen=True, kw_only=True)
class ModelSaved(Fact):
    """A phase's models are saved: what "missing or stale" is decided by."""

    TYPE: ClassVar[str] = "model_saved"
    dataset: str
    phase: str
    path: str
    sha256: str
    data_digest: str
    settings_digest: str
    parent_sha256: str
    num_parameters: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class ThresholdCalibrated(Fact):
    """An alarm threshold was chosen on validation data."""

    TYPE: ClassVar[str] = "threshold_calibrated"
    dataset: str
    model: str
    threshold: float
    val_mcc: float | None


@dataclass(frozen=True, kw_only=True)
class ModelEvaluated(Fact):
    """One model on one test folder; a metric that is undefined there is None."""

    TYPE: ClassVar[str] = "model_evaluated"
    dataset: str
    model: str
    folder: str
    metrics: dict[str, float | int | None]


@dataclass(frozen=True, kw_only=True)
class ScoresMeasured(Fact):
    """How the scores of one model lie on one test folder, or on the validation windows."""

    TYPE: ClassVar[str] = "scores_measured"
    dataset: str
    model: str
    folder: str | None
    """The test folder; None for the validation windows that the threshold was chosen on."""
    threshold: float
    num_windows_by_score: list[int]
    """Windows in each of equally wide bins of [0, 1]."""
    num_attacks_by_score: list[int] | None
    """Those of them that are attacks; None where labels mean nothing."""
    cuts: list[float]
    """Operating points of the ROC from the strictest to the loosest, thinned: the lowest score that alarms.
    Without labels there are none."""
    true_positives: list[int]
    """Attack windows that alarm there."""
    false_positives: list[int]
    """Benign windows that alarm there."""


__all__ = ["CATALOGUE", "Emit", "Fact", "check_known", "resource_facts", "to_event", "to_fact"]

CATALOGUE: dict[str, type[Fact]] = {cls.TYPE: cls for cls in Fact.__subclasses__()}


def to_event(stream: str, fact: Fact) -> Event:
    """Put a fact into an envelope.

    Args:
        stream: The plan's id.
        fact: What happened.

    Returns:
        The event, not yet appended.
    """
    return new_event(stream, fact.TYPE, dataclasses.asdict(fact), fact.VERSION)


def to_fact(event: Event) -> Fact:
    """Take the fact out of an envelope.

    Raises:
        UnknownEventError: The type or a newer version is not known here.
        DamagedLogError: The payload has other fields than the type.
    """
    what = f"event {event.position} of plan {event.stream}"
    cls = check_known(event.type, event.version, what)
    try:
        # Field by field through a mapping it would take longer than all the rest.
        payload = event.payload.decoded if isinstance(event.payload, StoredPayload) else event.payload
        return cls(**payload)
    except TypeError as error:
        raise DamagedLogError(f"{what} is no {event.type} version {event.version}: {error}") from error


def check_known(kind: str, version: int, what: str) -> type[Fact]:
    """The class of a type of events.

    Args:
        kind: The type's stable name.
        version: Version of the payload's shape.
        what: The event, for the error.

    Raises:
        UnknownEventError: The type or a newer version is not known here.
    """
    cls = CATALOGUE.get(kind)
    if cls is None or version > cls.VERSION:
        known = f"version {cls.VERSION}" if cls else "no such type"
        raise UnknownEventError(
            f"{what} is {kind} version {version}, but this software knows {known}: use a newer release to "
            "read this log"
        )
    return cls
