"""Settings for the next plan, learned from all plans on the device; every change says its numbers."""

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import PurePath
from typing import Any

from core.analytics.advice import course, judging
from core.analytics.advice.evidence import Advice, Evidence, Finding
from core.analytics.advice.inputs import inputs
from core.analytics.advice.memory import memory, out_of_memory
from core.analytics.advice.reading import read
from core.analytics.advice.throughput import throughput
from core.events.resource_facts import ConfigRecommended, RecommendationJudged
from settings.app import Settings
from settings.models import ModelSettings
from settings.tree import merge, nested

Rule = Callable[[Evidence], Iterator[Finding]]

_RULES: Sequence[Rule] = (memory, throughput, inputs, course.bottlenecks, course.epochs, course.threads)
_WITHOUT_HISTORY: Sequence[Rule] = (out_of_memory, course.profile)
_LEARNED = ("training.batch_size", "training.epochs")
"""Settings that change what models learn."""


def recommend(evidence: Evidence) -> ConfigRecommended:
    """Recommend settings for the next plan on this kind of machine; pure.

    Args:
        evidence: The plan, and all plans before it on its device.

    Returns:
        A fragment of settings that ``load_settings`` accepts - what differed from the defaults, and what is
        recommended - with a reason, and the numbers behind it, for every recommendation.
    """
    rules = (*(_RULES if evidence.last else _WITHOUT_HISTORY), course.sampling)
    advice: dict[str, Advice] = {}
    reasons: list[str] = []
    for found in (*_setbacks(evidence), *(found for rule in rules for found in rule(evidence))):
        if isinstance(found, str):
            reasons.append(found)
        elif found.setting in advice:
            continue  # the first rule to speak of a setting is the one to be heard
        elif vain := _in_vain(evidence, found):
            reasons.append(vain)
        else:
            advice[found.setting] = found
            reasons.append(found.sentence())
    learned = [name for name in _LEARNED if name in advice and advice[name].value != advice[name].before]
    if learned and evidence.last:
        names = " and ".join(name.partition(".")[2] for name in sorted(learned))
        reasons.append(f"Changing {names} changes what models learn: a plan with it trains all of them anew.")
    reasons += [judging.sentence(fact) for fact in evidence.plan.judged]
    return ConfigRecommended(
        device_name=evidence.plan.device_name,
        settings=_fragment(evidence.settings, {name: found.value for name, found in advice.items()}),
        reasons=reasons,
        advice=[
            asdict(replace(found, record=judging.track_record(evidence.judged, found.setting)))
            for found in advice.values()
        ],
    )


def _setbacks(evidence: Evidence) -> Iterator[Advice]:
    """Back to what it was where following a recommendation has just made things worse."""
    for fact in evidence.plan.judged:
        if fact.high < 0:
            yield Advice(
                setting=fact.setting,
                value=fact.instead_of,
                before=fact.value,
                reason=f"{fact.setting} {fact.value} made {fact.metric} worse: back to {fact.instead_of}.",
                rests_on=f"{fact.num_compared} comparisons with {len(fact.plans)} plans before",
                num_observations=fact.num_compared,
                confidence=evidence.confidence([evidence.plan], fact.setting),
                metric=fact.metric,
                current=fact.after,
                expected=fact.before,
                low=min(fact.before, fact.after),
                high=max(fact.before, fact.after),
            )


def _in_vain(evidence: Evidence, advice: Advice) -> str:
    """Why advice is not repeated: it was followed in these conditions and did not help; empty if it may."""
    vain = judging.helped_not(evidence.judged, evidence.plan)
    fact: RecommendationJudged | None = vain.get(judging.tried(advice.setting, advice.value))
    if fact is None or advice.value == advice.before:
        return ""
    return f"Not recommended again while data, models and torch stay the same: {judging.sentence(fact)}"


def config_yaml(fact: ConfigRecommended, plan_id: str) -> str:
    """Write a recommendation as a settings file for ``--config``, with its reasons as comments."""
    reading = read(fact)
    # Wrapping also takes line breaks out of names and messages: none can leave its comment.
    lines = textwrap.wrap(f"Recommended for {fact.device_name} after plan {plan_id}. {reading.summary}", 98)
    for piece in reading.changes:
        lines += ["", *textwrap.wrap(f"{piece.headline}.", 98)]
        trust = f"Confidence {piece.confidence}." if piece.confidence else ""
        rests_on = f"Rests on {piece.rests_on}." if piece.rests_on else ""
        gain = f"{piece.gain}." if piece.gain else ""
        said = " ".join(filter(None, [piece.finding, gain, rests_on, trust, piece.record]))
        lines += textwrap.wrap(said, 96, initial_indent="  ", subsequent_indent="  ")
    if reading.kept:
        lines += ["", "Besides:"]
    for reason in reading.kept:
        lines += textwrap.wrap(f"- {reason}", 98, subsequent_indent="  ")
    comments = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    return comments + "\n" + reading.settings


def device_slug(device_name: str) -> str:
    """A device's name as a file name: ``nvidia-geforce-rtx-3090``."""
    return re.sub(r"[^a-z0-9]+", "-", device_name.lower()).strip("-") or "unknown-device"


def _fragment(settings: Settings, changes: Mapping[str, Any]) -> dict[str, Any]:
    fragment = settings.model_dump(
        mode="json", exclude_defaults=True, exclude={"output_dir", "models", "tracking"}
    )
    _unpin(fragment)
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
        "dataset.num_workers": settings.dataset.num_workers,
        "dataset.prefetch_factor": settings.dataset.prefetch_factor,
    }
    return merge(fragment, nested({**always, **changes}))


def _unpin(fragment: dict[str, Any]) -> None:
    """Leave out where captures are on one machine: settings for a kind of device must fit all of them."""
    data = fragment.get("data", {})
    for group, name in ((data, "data_dir"), (data.get("demo", {}), "cache_dir")):
        if PurePath(group.get(name, "")).is_absolute():
            del group[name]
    for group, name in ((data, "demo"), (fragment, "data")):
        if not group.get(name, True):
            del group[name]
