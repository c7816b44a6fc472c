"""Settings for the next plan, learned from what the last one measured; every change says its numbers."""

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from core.analytics.metrics import format_memory
from core.analytics.results import PhaseResult, RetrainingResults, fold_results
from core.analytics.telemetry import TelemetrySummary
from core.events.event import Event
from core.events.resource_facts import ConfigRecommended
from core.resources.failures import OOM_KINDS
from core.resources.profiles import profile_for
from settings.app import Settings
from settings.models import ModelSettings

VRAM_TARGET = 0.85
RAM_LIMIT = 0.80
BUSY_PERCENT = 60.0
MIN_SAMPLES, MAX_SAMPLES = 30, 50_000

Advice = tuple[dict[str, Any], list[str]]
"""Changed fields by dotted name, and the reasons."""


@dataclass(frozen=True)
class _Evidence:
    results: RetrainingResults
    telemetry: TelemetrySummary
    machine: Mapping[str, Any]
    settings: Settings

    @property
    def on_gpu(self) -> bool:
        return bool(self.machine["device"] == "cuda")

    @property
    def memory_name(self) -> str:
        return "GPU memory" if self.on_gpu else "memory"

    @property
    def memory_mib(self) -> float:
        """Memory that a phase's peak is to be held against."""
        owner = self.machine["gpus"][0] if self.on_gpu else self.machine
        return float(owner["vram_total_mib" if self.on_gpu else "ram_total_mib"])

    @property
    def trained(self) -> list[tuple[str, str, PhaseResult]]:
        """Phases that trained and ended well."""
        return [
            (dataset, name, phase)
            for dataset, result in self.results.datasets.items()
            for name, phase in result.phases.items()
            if name != "graphs" and phase.status == "completed"
        ]

    @property
    def peak_share(self) -> float:
        """Highest peak of a phase as a share of the device's memory."""
        return (
            max((phase.peak_memory_mib or 0.0 for *_, phase in self.trained), default=0.0) / self.memory_mib
        )

    @property
    def batch_cap(self) -> int:
        """Largest batch with which the largest dataset still has its least number of steps an epoch."""
        trains = [d.graphs.splits.get("train", 0) for d in self.results.datasets.values() if d.graphs]
        return max(2, max(trains, default=0) // self.settings.training.min_steps_per_epoch)


def recommend(
    events: Iterable[Event], telemetry: TelemetrySummary, machine: Mapping[str, Any], settings: Settings
) -> ConfigRecommended:
    """Recommend settings for the next plan on this kind of machine; pure.

    Args:
        events: The plan's events.
        telemetry: Its resource samples, summarised.
        machine: The machine as in ``PlanCreated``.
        settings: The plan's settings.

    Returns:
        A fragment of settings that ``load_settings`` accepts - what differed from the defaults, and what is
        recommended - with a reason, and the numbers behind it, for every recommendation.
    """
    evidence = _Evidence(fold_results(events), telemetry, machine, settings)
    rules = (_memory, _utilization, _epochs, _threads) if evidence.trained else (_oom, _profile)
    changes: dict[str, Any] = {}
    reasons: list[str] = []
    for rule in (*rules, _sampling):
        more, why = rule(evidence)
        changes |= more
        reasons += why
    learned = {"training.batch_size", "training.epochs"} & changes.keys()
    if learned and evidence.trained:
        names = " and ".join(sorted(name.partition(".")[2] for name in learned))
        reasons.append(f"Changing {names} changes what models learn: a plan with it trains all of them anew.")
    return ConfigRecommended(
        device_name=str(machine["device_name"]), settings=_fragment(settings, changes), reasons=reasons
    )


def config_yaml(fact: ConfigRecommended, plan_id: str) -> str:
    """Write a recommendation as a settings file for ``--config``, with its reasons as comments."""
    # Wrapping also takes line breaks out of names and messages: none can leave its comment.
    lines = [*textwrap.wrap(f"Recommended for {fact.device_name} after plan {plan_id}.", 98), ""]
    for reason in fact.reasons:
        lines += textwrap.wrap(f"- {reason}", 98, subsequent_indent="  ")
    comments = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    return comments + "\n" + yaml.safe_dump(fact.settings, sort_keys=True, allow_unicode=True)


def device_slug(device_name: str) -> str:
    """A device's name as a file name: ``nvidia-geforce-rtx-3090``."""
    return re.sub(r"[^a-z0-9]+", "-", device_name.lower()).strip("-") or "unknown-device"


def _oom(evidence: _Evidence) -> Advice:
    """Micro-batches that ran out of memory, and the first that did not."""
    fits: list[int] = []
    reasons: list[str] = []
    for dataset, result in evidence.results.datasets.items():
        for name, phase in result.phases.items():
            failed = [f.micro_batch_size for f in phase.failures if f.kind in OOM_KINDS]
            if not failed or name == "graphs":
                continue
            cured = phase.status == "completed" and phase.micro_batch_size is not None
            fits.append(phase.micro_batch_size if cured and phase.micro_batch_size else min(failed) // 2 or 1)
            reasons.append(
                f"{dataset} {name} ran out of {evidence.memory_name} in {_times(len(failed))} with "
                f"micro-batches of {max(failed)} graphs"
                f"{f' and went through with {fits[-1]}' if cured else ''}: micro_batch_size {fits[-1]}."
            )
    return ({"training.micro_batch_size": min(fits)}, reasons) if fits else ({}, [])


def _memory(evidence: _Evidence) -> Advice:
    changes, reasons = _oom(evidence)
    if changes:
        return changes, reasons
    training = evidence.settings.training
    micro = training.micro_batch_size or training.batch_size
    effective = min(micro, training.batch_size, evidence.batch_cap)
    limit = VRAM_TARGET if evidence.on_gpu else RAM_LIMIT
    share, total = evidence.peak_share, format_memory(evidence.memory_mib)
    peak = f"A phase's peak was {format_memory(share * evidence.memory_mib)} of {total} ({share:.0%})"
    ram = evidence.telemetry
    ram_share = (ram.ram_peak_mib or 0.0) / ram.ram_total_mib if ram.ram_total_mib else 0.0
    if share > limit or ram_share > RAM_LIMIT:
        if share <= limit:
            peak = f"The machine's RAM was used up to {ram_share:.0%}"
        lower = max(1, effective // 2)
        return {"training.micro_batch_size": lower}, [
            f"{peak}, above {limit if share > limit else RAM_LIMIT:.0%}: "
            f"micro_batch_size {lower} instead of {effective}."
        ]
    if micro < min(training.batch_size, evidence.batch_cap) and share * 2 <= limit:
        higher = min(micro * 2, training.batch_size)
        return {"training.micro_batch_size": higher}, [
            f"{peak}: there is room for micro_batch_size {higher} instead of {micro}."
        ]
    return {}, [f"{peak}: micro-batches of {effective} graphs fit."]


def _utilization(evidence: _Evidence) -> Advice:
    busy = evidence.telemetry.gpu_utilization_percent
    if not evidence.on_gpu or busy is None:
        return {}, []
    training = evidence.settings.training
    measured = f"GPU utilisation averaged {busy:.0f} %"
    if busy >= BUSY_PERCENT:
        return {}, [f"{measured}: batch_size {training.batch_size} keeps it busy."]
    higher = min(training.batch_size * 2, evidence.batch_cap)
    if higher <= training.batch_size:
        return {}, [
            f"{measured}, but the largest dataset allows no batch above {evidence.batch_cap} graphs at "
            f"{training.min_steps_per_epoch} steps an epoch: to use the GPU better, let datasets share it."
        ]
    if _oom(evidence)[0] or evidence.peak_share * 2 > VRAM_TARGET:
        return {}, [f"{measured}, but GPU memory leaves no room for larger batches."]
    return {"training.batch_size": higher}, [
        f"{measured}, below {BUSY_PERCENT:.0f} %: batch_size {higher} instead of {training.batch_size}."
    ]


def _epochs(evidence: _Evidence) -> Advice:
    training = evidence.settings.training
    models = {
        f"{dataset} {name}": model
        for dataset, result in evidence.results.datasets.items()
        for name, model in result.training.items()
        if name.startswith(("teacher", "student"))
    }
    if not models:
        return {}, []
    unfinished = [name for name, m in models.items() if m.last_epoch == m.best_epoch == training.epochs - 1]
    if len(unfinished) * 2 >= len(models):
        more = -(-training.epochs * 3 // 2)
        return {"training.epochs": more}, [
            f"{len(unfinished)} of {len(models)} models were best in their last epoch "
            f"({_shortened(unfinished)}): {more} epochs instead of {training.epochs}."
        ]
    longest = max(m.last_epoch + 1 for m in models.values())
    fewer = longest + training.patience
    if fewer < training.epochs:
        return {"training.epochs": fewer}, [
            f"Early stopping ended every model after {longest} of {training.epochs} epochs or sooner: "
            f"at most {fewer} epochs."
        ]
    return {}, []


def _threads(evidence: _Evidence) -> Advice:
    threads, cores = evidence.settings.training.num_threads, int(evidence.machine["num_cpus"])
    if threads > cores:
        return {"training.num_threads": 0}, [
            f"num_threads {threads} is more than the {cores} CPUs there are: all of them (0)."
        ]
    busy = evidence.telemetry.cpu_percent
    if not evidence.on_gpu and 0 < threads < cores and busy is not None and busy < BUSY_PERCENT:
        return {"training.num_threads": 0}, [
            f"{threads} of {cores} CPUs trained and the machine was used to {busy:.0f} %: all of them (0)."
        ]
    return {}, []


def _sampling(evidence: _Evidence) -> Advice:
    telemetry, interval_s = evidence.telemetry, evidence.settings.resources.sample_interval_s
    seen = f"{telemetry.num_samples} resource samples in {telemetry.duration_s:.0f} s"
    if 0 < telemetry.num_samples < MIN_SAMPLES and telemetry.duration_s > 0:
        shorter = max(0.05, round(telemetry.duration_s / (2 * MIN_SAMPLES), 2))
        if shorter < interval_s:
            return {"resources.sample_interval_s": shorter}, [
                f"{seen} are too few to see anything: one every {shorter} s."
            ]
    if telemetry.num_samples > MAX_SAMPLES:
        longer = round(2 * telemetry.duration_s / MAX_SAMPLES, 1)
        if longer > interval_s:
            return {"resources.sample_interval_s": longer}, [
                f"{seen} are more than anyone needs: one every {longer} s."
            ]
    return {}, []


def _profile(evidence: _Evidence) -> Advice:
    gpu = evidence.machine["gpus"][0] if evidence.on_gpu else None
    profile = profile_for(gpu["name"], gpu["vram_total_mib"]) if gpu else profile_for(None, 0.0)
    return {
        "models.preset": profile.preset,
        "training.batch_size": profile.batch_size,
        "training.mixed_precision": profile.mixed_precision,
        "training.dqn.replay_capacity": profile.replay_capacity,
    }, [
        f"No phase has finished training on {evidence.machine['device_name']} yet: these are the starting "
        f"points of the profile {profile.device_name}, to be replaced by what the next plan measures."
    ]


def _fragment(settings: Settings, changes: Mapping[str, Any]) -> dict[str, Any]:
    fragment = settings.model_dump(
        mode="json", exclude_defaults=True, exclude={"output_dir", "models", "tracking"}
    )
    preset = {"preset": settings.models.preset}
    fragment["models"] = (
        preset
        if settings.models == ModelSettings.model_validate(preset)
        else settings.models.model_dump(mode="json")
    )
    training = settings.training
    always = {
        "training.batch_size": training.batch_size,
        "training.micro_batch_size": training.micro_batch_size,
        "training.epochs": training.epochs,
        "training.mixed_precision": training.mixed_precision,
        "training.dqn.replay_capacity": training.dqn.replay_capacity,
    }
    for name, value in {**always, **changes}.items():
        *groups, field = name.split(".")
        group = fragment
        for part in groups:
            group = group.setdefault(part, {})
        group[field] = value
    return fragment


def _times(count: int) -> str:
    return "one attempt" if count == 1 else f"{count} attempts"


def _shortened(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
