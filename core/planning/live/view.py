"""What people see of a plan while it goes: plain frozen data, made by ``core.planning.live.watching``.

``as_json`` gives the same as JSON. Times are UTC in ISO 8601; what is unknown is None.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from core.planning.live.remaining import Remaining


@dataclass(frozen=True, kw_only=True)
class ModelView:
    """One model of a phase.

    Attributes:
        name: For example ``teacher_gat``.
        num_epochs: Most epochs.
        epochs_done: Epochs done; steps of the one under way are its fraction.
        is_over: Whether it needs no more.
        epochs: Numbers of the last epochs, for the curves; the first one is 0.
        train_losses: Training loss of each of them.
        val_losses: Validation loss of each of them.
        val_metric: MCC on validation after the last one.
    """

    name: str
    num_epochs: int | None = None
    epochs_done: float = 0.0
    is_over: bool = False
    epochs: tuple[int, ...] = ()
    train_losses: tuple[float, ...] = ()
    val_losses: tuple[float, ...] = ()
    val_metric: float | None = None


@dataclass(frozen=True, kw_only=True)
class PhaseView:
    """One phase of one dataset.

    Attributes:
        dataset: The dataset.
        phase: The phase.
        status: ``pending``, ``running``, ``interrupted``, ``completed``, ``failed``, ``skipped`` (up to date)
            or ``blocked``.
        reason: Why it is planned, skipped or blocked, or what the last failure said.
        attempt: Attempts begun.
        fraction: Share done of this attempt, 0 to 1.
        elapsed_s: Time worked on it, all attempts.
        eta: Time still needed; None where there is nothing to wait for.
        doing: The last sign of progress, for people, while it runs.
        model: The model that is trained.
        epoch: Its epoch under way (or its last), counted from 1.
        num_epochs: Most epochs.
        step: Steps done of that epoch.
        num_steps: Steps of that epoch.
        train_loss: The last training loss.
        val_loss: The last validation loss.
        val_metric: The last MCC on validation.
        graphs_per_s: Speed.
        models: Its models with their curves, in order.
    """

    dataset: str
    phase: str
    status: str
    reason: str = ""
    attempt: int = 0
    fraction: float = 0.0
    elapsed_s: float = 0.0
    eta: Remaining | None = None
    doing: str = ""
    model: str | None = None
    epoch: int | None = None
    num_epochs: int | None = None
    step: int | None = None
    num_steps: int | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    val_metric: float | None = None
    graphs_per_s: float | None = None
    models: tuple[ModelView, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Something that was decided or happened, as a sentence.

    Attributes:
        at: When.
        tone: ``info``, ``good``, ``warn`` or ``bad``.
        where: Dataset, and the model or phase; empty for the plan.
        text: The sentence.
    """

    at: str
    tone: str
    where: str
    text: str


@dataclass(frozen=True, kw_only=True)
class ErrorView:
    """The last failure of a plan.

    Attributes:
        at: When.
        where: Dataset and phase.
        kind: Failure class.
        attempt: The attempt that failed.
        message: What went wrong.
        report: File with stacks and last signs of life.
        now: Status of the phase now: whether it was got over.
    """

    at: str
    where: str
    kind: str
    attempt: int
    message: str
    report: str | None
    now: str


@dataclass(frozen=True, kw_only=True)
class GpuView:
    """A GPU now, and over the last looks (oldest first).

    Attributes:
        index: NVML's index of the board.
        name: Its name.
        utilization_percent: Share of time in which any kernel ran.
        vram_used_mib: VRAM in use.
        vram_total_mib: VRAM there is.
        temperature_c: Of the chip.
        power_w: Power draw.
        power_limit_w: Power draw at which it is slowed down.
        utilization_history: Utilisation, percent.
        vram_history: VRAM in use, percent of what there is.
    """

    index: int
    name: str
    utilization_percent: float | None = None
    vram_used_mib: float | None = None
    vram_total_mib: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    utilization_history: tuple[float | None, ...] = ()
    vram_history: tuple[float | None, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ResourcesView:
    """The machine now, and over the last looks (oldest first).

    Attributes:
        cpu_percent: Mean use of all CPUs.
        num_cpus: CPUs that may be used.
        ram_used_mib: RAM in use.
        ram_total_mib: RAM there is.
        disk_free_mib: Free space where outputs go.
        gpus: The GPUs; empty without one.
        cpu_history: CPU, percent.
        ram_history: RAM in use, percent of what there is.
        seconds_ago: Age of each moment of the histories.
    """

    cpu_percent: float | None = None
    num_cpus: int | None = None
    ram_used_mib: float | None = None
    ram_total_mib: float | None = None
    disk_free_mib: float | None = None
    gpus: tuple[GpuView, ...] = ()
    cpu_history: tuple[float | None, ...] = ()
    ram_history: tuple[float | None, ...] = ()
    seconds_ago: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ProcessView:
    """A training process of the plan; fields as in ``core.resources.process_state.ProcessStatus``."""

    dataset: str
    state: str
    pid: int | None
    doing: str
    since_s: float | None
    rss_mib: float | None
    num_restarts: int
    failure: str
    """Kind of its last failure; empty without one."""


@dataclass(frozen=True, kw_only=True)
class PlanLine:
    """A plan in the list of plans."""

    plan_id: str
    status: str
    started_at: str | None
    datasets: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LiveView:
    """A plan and its machine at one moment.

    Attributes:
        looked_at: When this was so.
        plan_id: The plan; None while there is none.
        status: ``none`` (no plan yet), ``running``, ``interrupted``, ``completed``, ``failed``, ``damaged``
            or ``unreadable``.
        problem: Why its events cannot be read; empty if they can.
        started_at: When the plan was made.
        elapsed_s: Time worked on it, without pauses.
        fraction: Share done of what it set out to do, 0 to 1.
        eta: Time still needed; None where there is nothing to wait for.
        phases: Its phases in order.
        decisions: The last ones, oldest first.
        last_error: Its last failure.
        resources: The machine.
        processes: Its training processes.
        plans: All plans, oldest first.
    """

    looked_at: str
    plan_id: str | None = None
    status: str = "none"
    problem: str = ""
    started_at: str | None = None
    elapsed_s: float = 0.0
    fraction: float = 0.0
    eta: Remaining | None = None
    phases: tuple[PhaseView, ...] = ()
    decisions: tuple[Decision, ...] = ()
    last_error: ErrorView | None = None
    resources: ResourcesView = field(default_factory=ResourcesView)
    processes: tuple[ProcessView, ...] = ()
    plans: tuple[PlanLine, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether the plan has come to its end."""
        return self.status in ("completed", "failed")

    @property
    def running(self) -> tuple[PhaseView, ...]:
        """The phases under way."""
        return tuple(phase for phase in self.phases if phase.status == "running")

    def as_json(self) -> dict[str, Any]:
        """The same as JSON's types."""
        plain: dict[str, Any] = json.loads(to_json(self))
        return plain


def to_json(part: Any) -> str:
    """A view, or a part of one, as JSON: an object for each dataclass, with its fields."""
    return json.dumps(part, default=vars, allow_nan=False, separators=(",", ":"))
