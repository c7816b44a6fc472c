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
class PackLimitChosen(Fact):
    """It was decided how much one forward/backward of a model may hold, and what binds it."""

    TYPE: ClassVar[str] = "pack_limit_chosen"
    dataset: str
    phase: str
    model: str
    limit: dict[str, int]
    """Most graphs, nodes and edges of a pack."""
    binds: str
    """What keeps it from being larger: ``step``, ``setting``, ``memory`` or ``history``."""
    source: str
    """``probed`` (measured now), ``history`` (of the same device, model, data and torch) or ``settings``."""
    memory: dict[str, float]
    """What memory took by measurement: room_mib, base_mib, node_kib, edge_kib; empty where not measured."""
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
    after: dict[str, int]
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
    """One per recommended setting: setting, value, before, phase (or None), reason, rests_on (what was
    measured), num_observations, confidence (0 to 1), metric and expected (what it should improve, and to
    what), low and high (its range)."""


@dataclass(frozen=True, kw_only=True)
class RecommendationJudged(Fact):
    """A plan had adopted a recommendation; its effect was measured against plans before it."""

    TYPE: ClassVar[str] = "recommendation_judged"
    device_name: str
    recommended_by: str
    """The plan after which it was recommended."""
    setting: str
    value: Any
    metric: str
    before: float
    after: float
    helped: bool
