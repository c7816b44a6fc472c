"""Whether advice that was taken did what it promised: plans with it against plans before it."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

from core.analytics.advice.measures import MEASURES, NUM_OOMS, Measure, Part, format_measure, measure_name
from core.analytics.canonical import digest
from core.analytics.histograms import decay
from core.analytics.observations import PlanRecord
from core.events.resource_facts import RecommendationJudged

_BOUNDS = 2.0
"""Standard errors to either side of the mean change: about 19 of 20 lie within."""


def judge(history: Sequence[PlanRecord]) -> list[RecommendationJudged]:
    """Measure the effect of every recommendation that the newest plan goes by and no plan has judged yet.

    Adopted is what the plans before it had recommended, that it (and perhaps the plans just before it) was
    set to, and that the plans before those were not.

    Args:
        history: Plans on one device, oldest first; the last is the one that judges.

    Returns:
        One judgement per setting; none where nothing was adopted, or nothing can be compared.
    """
    return [
        judged
        for setting in dict.fromkeys(item["setting"] for record in history for item in record.advice)
        if (judged := _judge(history, setting))
    ]


def conditions(record: PlanRecord) -> str:
    """Digest of what a judgement holds for: captures, models, number format and torch."""
    return digest({"data": dict(record.data_digests), "how": list(record.conditions)})[:16]


def helped_not(judged: Sequence[RecommendationJudged], now: PlanRecord) -> Mapping[str, RecommendationJudged]:
    """What was last tried in vain under a plan's conditions, by setting and value (see `tried`)."""
    newest = {tried(fact.setting, fact.value): fact for fact in judged if fact.conditions == conditions(now)}
    return {name: fact for name, fact in newest.items() if not fact.helped}


def tried(setting: str, value: Any) -> str:
    """A name for a value of a setting."""
    return f"{setting} {value!r}"


def sentence(fact: RecommendationJudged) -> str:
    """A judgement for people."""
    scale, unit = (1, "") if fact.metric == NUM_OOMS else (100, " %")
    verdict = "helped" if fact.helped else "made it worse" if fact.high < 0 else "made no clear difference"
    elsewhere = "" if fact.same_data else ", on other captures"
    before, after = (format_measure(fact.metric, value) for value in (fact.before, fact.after))
    value, instead = (
        str(each).lower() if isinstance(each, bool) else each for each in (fact.value, fact.instead_of)
    )
    return (
        f"{fact.setting} {value} instead of {instead}, recommended after plan "
        f"{fact.recommended_by}, {verdict}: {measure_name(fact.metric).lower()} {before} before and {after} "
        f"with it, better by {scale * fact.gain:.1f}{unit} ({scale * fact.low:.1f} to "
        f"{scale * fact.high:.1f}; {fact.num_compared} compared{elsewhere})."
    )


def track_record(judged: Sequence[RecommendationJudged], setting: str) -> Mapping[str, Any] | None:
    """What came of advice on a setting, for ``Advice.record``; None where none was judged."""
    found = [fact for fact in judged if fact.setting == setting]
    if not found:
        return None
    return {"num": len(found), "helped": sum(fact.helped for fact in found), "last": sentence(found[-1])}


def _judge(history: Sequence[PlanRecord], setting: str) -> RecommendationJudged | None:
    plan = history[-1]
    value = plan.setting(setting)
    adopters = list(takewhile(lambda record: record.setting(setting) == value, reversed(history)))
    before = history[: len(history) - len(adopters)]
    found = next(_recommended(before, setting, value), None)
    if found is None or any(f.setting == setting and f.value == value for r in adopters for f in r.judged):
        return None
    recommended_by, item = found
    baseline = [record for record in before if record.setting(setting) == item["before"]]
    measure = MEASURES.get(item.get("metric") or "")
    if measure is None:
        return None
    after = measure.values(plan)
    for same_data in (True, False):
        compared = {
            part: (usual, after[part])
            for part in after
            if (usual := _usual(measure, part, plan, baseline, same_data=same_data)) is not None
        }
        if compared:
            break
    else:
        return None
    gains = [_gain(measure, *pair) for pair in compared.values()]
    gain = statistics.fmean(gains)
    spread = max(measure.noise, statistics.stdev(gains) if len(gains) > 1 else 0.0)
    error = _BOUNDS * spread / len(gains) ** 0.5
    return RecommendationJudged(
        device_name=plan.device_name,
        recommended_by=recommended_by,
        setting=setting,
        value=value,
        instead_of=item["before"],
        metric=item["metric"],
        before=statistics.fmean(usual for usual, _ in compared.values()),
        after=statistics.fmean(now for _, now in compared.values()),
        gain=gain,
        low=gain - error,
        high=gain + error,
        num_compared=len(compared),
        plans=[record.plan_id for record in baseline],
        same_data=same_data,
        conditions=conditions(plan),
        helped=gain > error,
    )


def _recommended(
    before: Sequence[PlanRecord], setting: str, value: Any
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Plans that recommended a value of a setting to change to, newest first, and what they said."""
    for record in reversed(before):
        for item in record.advice:
            if item["setting"] == setting and item["value"] == value != item["before"]:
                yield record.plan_id, item


def _usual(
    measure: Measure, part: Part, plan: PlanRecord, baseline: Sequence[PlanRecord], *, same_data: bool
) -> float | None:
    """Weighted mean of what plans like this one measured before; None where none of them did."""
    data_digest = plan.data_digests.get(part.dataset)
    values, weights = [], []
    for record in baseline:
        alike = record.conditions == plan.conditions
        value = measure.values(record).get(part)
        if value is None or not alike or (same_data and record.data_digests.get(part.dataset) != data_digest):
            continue
        values.append(value)
        weights.append(decay(plan.ended_s - record.ended_s))
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights) if values else None


def _gain(measure: Measure, before: float, after: float) -> float:
    """How much better it is: a share of what it was where the measure is relative."""
    change = after - before if measure.higher_is_better else before - after
    return change / abs(before) if measure.relative and before else change
