"""Events about memory, input and what was learned about them; registered by ``core.events.catalogue``."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from core.events.fact import Fact


@dataclass(frozen=True, kw_only=True)
class StorePlaced(Fact):
    """It was decided where a phase reads its graphs from."""

    TYPE: ClassVar[str] = "store_placed"
    dataset: str
    phase: str
    placement: str
    """``resident`` (where training computes), ``pinned`` (in RAM) or ``mapped`` (on disk)."""
    num_bytes: int
    room_bytes: int
    """Memory that was free for it where it would be resident."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class PhaseAdmitted(Fact):
    """A phase on a worker got the slots that its attempt runs within: see ``core.planning.admission``."""

    TYPE: ClassVar[str] = "phase_admitted"
    dataset: str
    phase: str
    limit: str
    """Name of the limit in Prefect."""
    slots: int
    """MiB of a GPU, all that the process may take of it; or cores."""
    device_name: str
    gpu_uuid: str
    """Of the GPU or MIG slice; empty for processors."""
    vram_limit_mib: int
    """Most VRAM that its tensors may fill; 0 on processors."""
    waited_s: float
    reason: str
    """What the number of slots rests on."""


@dataclass(frozen=True, kw_only=True)
class PackLimitChosen(Fact):
    """It was decided how much one forward/backward of a model may hold, and what binds it."""

    TYPE: ClassVar[str] = "pack_limit_chosen"
    dataset: str
    phase: str
    model: str
    limit: dict[str, int]
    """Most graphs, nodes and edges of a pack, to begin with; what is not limited is left out."""
    most: dict[str, int]
    """What it never grows beyond."""
    binds: str
    """What keeps it from being larger: ``step``, ``setting``, ``memory`` or ``history``."""
    source: str
    """``probed`` (measured now), ``history`` (of this plan, or of the same device, model, data and torch) or
    ``bound`` (a bound from the widths of the layers says that the whole step fits: nothing was measured)."""
    memory: dict[str, float]
    """room_mib (free for packs) and what they take by measurement: base_mib, graph_kib, node_kib, edge_kib;
    or, where nothing was measured, step_mib: what the largest step takes at most."""
    key: str
    """What it holds for: device, model, data digest, torch version and number format, joined by ``/``."""


@dataclass(frozen=True, kw_only=True)
class PackLimitChanged(Fact):
    """A pack was too large for memory, or there was room again; the step was done with the new limit."""

    TYPE: ClassVar[str] = "pack_limit_changed"
    dataset: str
    phase: str
    model: str
    epoch: int | None
    """None outside training epochs (scoring)."""
    step: int | None
    stage: str
    """Where memory ran out: ``input``, ``forward``, ``backward`` or ``evaluation``; ``between`` steps."""
    reason: str
    """``cuda_oom``, ``fragmentation``, ``host_oom``, ``allocator_retries`` (memory is tight) or ``room``."""
    before: dict[str, int]
    """What the pack that was too large held; where there was room, the limit before."""
    after: dict[str, int]
    """The new limit."""
    allocated_mib: float | None
    reserved_mib: float | None


@dataclass(frozen=True, kw_only=True)
class InputAdjusted(Fact):
    """The adaptive optimizer changed how packs are gathered, in the middle of an epoch."""

    TYPE: ClassVar[str] = "input_adjusted"
    dataset: str
    phase: str
    model: str
    epoch: int
    step: int
    """Steps of the epoch that were done."""
    reason: str
    """``starved`` (low utilisation, RAM free), ``slow_input``, ``ram_pressure``, ``stay_fed`` or ``no_gain``
    (a raise that did not pay is taken back)."""
    num_workers: int
    prefetch_factor: int
    num_workers_before: int
    prefetch_factor_before: int
    gpu_percent: float | None
    ram_percent: float | None
    data_wait_s: float
    data_load_s: float
    compute_s: float
    """Time of the interval in which packs were processed."""


@dataclass(frozen=True, kw_only=True)
class ConfigRecommended(Fact):
    """Settings for the next plan on this kind of machine, and the measurements behind them."""

    TYPE: ClassVar[str] = "config_recommended"
    VERSION: ClassVar[int] = 2
    device_name: str
    settings: dict[str, Any]
    reasons: list[str]
    advice: list[dict[str, Any]] = field(default_factory=list)
    """One per setting to change: the fields of ``core.analytics.advice.evidence.Advice``: setting, value,
    before, phase (or None), reason, rests_on, num_observations, confidence (0 to 1), metric, and what that
    is now (current) and should become (expected, low, high)."""


@dataclass(frozen=True, kw_only=True)
class RecommendationJudged(Fact):
    """A plan had adopted a recommendation; its effect was measured against plans before it.

    What was adopted at once was measured at once: where two settings changed, each has the effect of both.
    """

    TYPE: ClassVar[str] = "recommendation_judged"
    device_name: str
    recommended_by: str
    """The plan after which it was recommended."""
    setting: str
    value: Any
    instead_of: Any
    """What the setting was before."""
    metric: str
    before: float
    """Mean over what is compared, in the plans before."""
    after: float
    """The same with the recommended value."""
    gain: float
    """Mean improvement, as a share of what it was where the metric is relative; below 0 it became worse."""
    low: float
    high: float
    """Bounds of the gain, two standard errors to either side."""
    num_compared: int
    """Models (or phases) measured both with and without it."""
    plans: list[str]
    """The plans before."""
    same_data: bool
    """Whether they had trained on the same captures."""
    conditions: str
    """Digest of what it holds for: captures, models, number format and torch."""
    helped: bool
    """Whether the improvement is larger than its uncertainty."""
