"""What advice rests on: one plan, and all plans before it on the same kind of device."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from core.analytics.advice.measures import format_measure, measure_name
from core.analytics.histograms import decay
from core.analytics.observations import ModelRun, PhaseRun, PlanRecord, wait_share
from core.analytics.results import ModelBottleneck
from core.analytics.telemetry import TelemetrySummary
from core.events.resource_facts import RecommendationJudged
from core.resources.verdict import WAITING
from settings.app import Settings


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A setting to change; the fields of one entry of ``ConfigRecommended.advice``.

    Attributes:
        setting: Dotted name.
        value: What it should be.
        before: What it is.
        reason: What was found, and what to do.
        rests_on: What was measured how often, in which plans, since when.
        num_observations: Measurements behind it.
        confidence: From 0 to 1: how much was measured, and how often such advice has helped.
        phase: The phase it was found in; None for all.
        metric: What it should improve, a name of ``MEASURES``; None where that is not measured.
        current: That metric in the plans behind it.
        expected: What it should become.
        low: Lower bound of that.
        high: Upper bound of that.
        measured: What it was seen by, to be drawn: entries of `point`.
        measured_as: What those are.
        measured_of: The most that they can be; None for the largest of them.
        record: Of earlier advice on the setting that was followed and judged: ``num``, ``helped`` and, in
            words, the ``last``; None where there was none.
    """

    setting: str
    value: Any
    before: Any
    reason: str
    rests_on: str
    num_observations: int
    confidence: float
    phase: str | None = None
    metric: str | None = None
    current: float | None = None
    expected: float | None = None
    low: float | None = None
    high: float | None = None
    measured: Sequence[Mapping[str, Any]] = ()
    measured_as: str = ""
    measured_of: float | None = None
    record: Mapping[str, Any] | None = None

    def sentence(self) -> str:
        """All of it for people."""
        if not self.num_observations:
            return self.reason
        gain = ""
        if self.metric and self.expected is not None and self.current is not None:
            now, then = (format_measure(self.metric, value) for value in (self.current, self.expected))
            bounds = ""
            if self.low is not None and self.high is not None:
                low, high = (format_measure(self.metric, value) for value in (self.low, self.high))
                bounds = f" ({low} to {high})"
            gain = f" {measure_name(self.metric)}: {now} now, {then} expected{bounds}."
        return f"{self.reason}{gain} Based on {self.rests_on}; confidence {self.confidence:.0%}."


Finding: TypeAlias = Advice | str
"""Something to change, or something that was found and asks for no change."""


@dataclass(frozen=True)
class Evidence:
    """What is known when a plan has ended.

    Attributes:
        plan: The plan.
        history: It and all earlier plans on its device that trained the same models in the same number
            format, oldest first.
        judged: Effects of advice on this device, oldest first.
        telemetry: The plan's resource samples, summarised.
        settings: The plan's settings.
        bottlenecks: What kept each of the plan's models from being trained faster.
    """

    plan: PlanRecord
    history: Sequence[PlanRecord]
    judged: Sequence[RecommendationJudged]
    telemetry: TelemetrySummary
    settings: Settings
    bottlenecks: Sequence[ModelBottleneck] = ()

    @property
    def on_gpu(self) -> bool:
        """Whether the plan trained on a GPU."""
        return bool(self.plan.machine["device"] == "cuda")

    @property
    def memory_name(self) -> str:
        """The memory that training may run out of, for people."""
        return "GPU memory" if self.on_gpu else "memory"

    @property
    def memory_mib(self) -> float:
        """Memory that a phase's peak is to be held against."""
        machine, resources = self.plan.machine, self.settings.resources
        owner = machine["gpus"][0] if self.on_gpu else machine
        total = float(owner["vram_total_mib" if self.on_gpu else "ram_total_mib"])
        limit = resources.vram_limit_mib if self.on_gpu else resources.memory_limit_mib
        return min(total, limit or total)

    @cached_property
    def last(self) -> PlanRecord | None:
        """The newest plan that trained anything; None if there is none."""
        return next((record for record in reversed(self.history) if record.trained), None)

    @property
    def batch_cap(self) -> int:
        """Largest batch with which the largest dataset still has its least number of steps an epoch."""
        trains = max((self.last or self.plan).num_train.values(), default=0)
        return max(2, trains // self.settings.training.min_steps_per_epoch)

    @property
    def step_limit(self) -> int:
        """Most graphs of a step, by the settings and the floor of steps."""
        return min(self.settings.training.batch_size, self.batch_cap)

    @property
    def pack_limit(self) -> int:
        """Most graphs of a pack, by the settings and the floor of steps."""
        return min(self.settings.training.micro_batch_size or self.step_limit, self.step_limit)

    @property
    def wait_share(self) -> float | None:
        """Share of the time waited for data in the newest plan that trained, once it had settled."""
        return wait_share(epoch for model in self._last_models for epoch in model.settled)

    @property
    def waits(self) -> bool:
        """Whether input, not the device, is what is slow."""
        return (self.wait_share or 0.0) >= WAITING

    @property
    def gpu_percent(self) -> float | None:
        """Mean GPU utilisation of the newest plan that trained; of the resource samples in earlier logs."""
        seen = [percent for model in self._last_models if (percent := model.gpu_percent) is not None]
        return statistics.fmean(seen) if seen else self.telemetry.gpu_utilization_percent

    @property
    def _last_models(self) -> list[ModelRun]:
        return [model for *_, model in models_of(self.last)] if self.last else []

    def weight(self, record: PlanRecord) -> float:
        """What a plan weighs beside this one, by its age."""
        return decay(self.plan.ended_s - record.ended_s)

    def confidence(self, records: Sequence[PlanRecord], setting: str, most: float = 0.95) -> float:
        """How far advice on a setting can be trusted.

        Args:
            records: Plans that it rests on: one gives a half, nine nine tenths, old ones less.
            setting: Its earlier advice that did not help lowers it.
            most: Upper bound.
        """
        num = sum(self.weight(record) for record in records)
        judged = [fact for fact in self.judged if fact.setting == setting]
        # Laplace's rule: half of an unknown kind of advice helps; none is trusted more for having helped.
        hit_rate = (sum(fact.helped for fact in judged) + 1) / (len(judged) + 2)
        return round(min(most, num / (num + 1)) * min(1.0, 2 * hit_rate), 3)

    def alike(self, *settings: str) -> list[PlanRecord]:
        """Plans of the history that trained, and had the same values of some settings as this one."""
        return [
            record
            for record in self.history
            if record.trained and all(record.setting(name) == self.plan.setting(name) for name in settings)
        ]


def gather(
    plan: PlanRecord,
    before: Sequence[PlanRecord],
    telemetry: TelemetrySummary,
    settings: Settings,
    bottlenecks: Sequence[ModelBottleneck] = (),
) -> Evidence:
    """Choose what counts.

    Args:
        plan: The plan that has ended.
        before: Plans on its device that had ended by then, oldest first.
        telemetry: Its resource samples, summarised.
        settings: Its settings.
        bottlenecks: What kept its models from being trained faster.
    """
    plans = [*before, plan]
    return Evidence(
        plan=plan,
        # Another release of torch measures much the same; other models or another number format do not.
        history=[record for record in plans if record.conditions[:2] == plan.conditions[:2]],
        judged=[fact for record in plans for fact in record.judged],
        telemetry=telemetry,
        settings=settings,
        bottlenecks=bottlenecks,
    )


def models_of(record: PlanRecord) -> Iterable[tuple[tuple[str, str], PhaseRun, str, ModelRun]]:
    """Every model that a plan trained: its dataset and phase, the phase, its name and its training."""
    for key, run in record.trained.items():
        for name, model in run.models.items():
            yield key, run, name, model


def rests_on(records: Sequence[PlanRecord], num: int, what: str) -> str:
    """Say what advice rests on: ``12 epochs of 2 plans since 2026-11-03 (plan-a, plan-b)``.

    Args:
        records: The plans, oldest first.
        num: Measurements.
        what: One of them.
    """
    plans = [record.plan_id for record in records]
    named = ", ".join(plans) if len(plans) <= 3 else f"{plans[0]} ... {plans[-1]}"
    since = min((record.day for record in records), default="")
    return f"{_counted(num, what)} of {_counted(len(plans), 'plan')} since {since} ({named})"


def _counted(num: int, what: str) -> str:
    return f"{num} {what}{'s' * (num != 1)}"


def point(label: str, value: float, shown: str) -> dict[str, Any]:
    """A number that advice was seen by: what it is of, and how it is written."""
    return {"label": label, "value": value, "shown": shown}
