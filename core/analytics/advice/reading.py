"""A recommendation as a colleague would give it: what was found, what to change, what to expect of it.

It is read off the event alone, those of earlier releases included; whoever shows it (a page, markdown, the
comments of a settings file) only decides how it looks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import yaml

from core.analytics.advice.judging import sentence
from core.analytics.advice.measures import format_measure, measure_name
from core.events.resource_facts import RecommendationJudged
from settings.tree import nested


class Recommended(Protocol):
    """What is read: ``ConfigRecommended``, or a record of it."""

    @property
    def device_name(self) -> str:
        """For which device."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """All settings for the next plan that differ from the defaults."""

    @property
    def reasons(self) -> Sequence[str]:
        """Everything that was found."""

    @property
    def advice(self) -> Sequence[Mapping[str, Any]]:
        """Settings, as of ``core.analytics.advice.evidence.Advice``."""


class Bar(NamedTuple):
    """A number beside others: what it is of, how it is written, and from 0 to 1 how long its bar is.

    Where it is uncertain ``low`` and ``high`` are its bounds, on the same scale.
    """

    label: str
    shown: str
    share: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Piece:
    """One setting to change.

    Attributes:
        setting: Its dotted name.
        headline: What to do.
        finding: Why.
        change: The setting alone, as it stands in a settings file.
        gain: What to expect of it; empty where nothing that is measured would show it.
        rests_on: What was measured how often; empty where nothing was.
        confidence: How far to trust it; empty where nothing was measured.
        record: What came of such advice before; empty where none was followed.
        bars_title: What the bars show.
        bars: The evidence in numbers; there may be none.
    """

    setting: str
    headline: str
    finding: str
    change: str
    gain: str
    rests_on: str
    confidence: str
    record: str
    bars_title: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Verdict:
    """What an earlier recommendation came to.

    Attributes:
        headline: The setting and the verdict.
        detail: The measurements.
        tone: ``good``, ``bad`` or empty.
        bars: Before and after.
    """

    headline: str
    detail: str
    tone: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Reading:
    """A recommendation.

    Attributes:
        device_name: For which device.
        summary: All of it in one sentence.
        changes: Settings to change.
        kept: What was looked at and may stay as it is, and what else was found.
        verdicts: What earlier recommendations came to.
        settings: The whole settings file.
    """

    device_name: str
    summary: str
    changes: Sequence[Piece]
    kept: Sequence[str]
    verdicts: Sequence[Verdict]
    settings: str


def read(fact: Recommended, judged: Sequence[RecommendationJudged] = ()) -> Reading:
    """Read a recommendation.

    Args:
        fact: The recommendation.
        judged: What earlier ones, which its plan went by, came to.
    """
    changed = [item for item in fact.advice if item["value"] != item["before"]]
    # Reasons repeat advice and verdicts for those who read nothing else.
    told = [sentence(verdict) for verdict in judged]
    kept = [
        reason
        for reason in fact.reasons
        if reason not in told and not any(reason.startswith(item["reason"]) for item in changed)
    ]
    pieces = [_piece(item) for item in changed]
    return Reading(
        device_name=fact.device_name,
        summary=_summary(pieces, kept),
        changes=pieces,
        kept=kept,
        verdicts=[_verdict(verdict) for verdict in judged],
        settings=yaml.safe_dump(dict(fact.settings), sort_keys=True, allow_unicode=True),
    )


def _summary(pieces: Sequence[Piece], kept: Sequence[str]) -> str:
    if not pieces:
        return "Nothing to change: what was measured speaks for the settings as they are." if kept else ""
    names = [piece.setting.rpartition(".")[2] for piece in pieces]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"I would change {listed} for the next plan; the rest may stay as it is."


def _piece(item: Mapping[str, Any]) -> Piece:
    measured = bool(item["num_observations"])
    return Piece(
        setting=item["setting"],
        headline=headline(item["setting"], item["value"], item["before"]),
        finding=_finding(item["reason"]),
        change=yaml.safe_dump(nested({item["setting"]: item["value"]}), sort_keys=True, allow_unicode=True),
        gain=_gain(item),
        rests_on=item["rests_on"],
        confidence=_confidence(item["confidence"]) if measured else "",
        record=_record(item.get("record")),
        bars_title=item.get("measured_as") or (measure_name(item["metric"]) if item["metric"] else ""),
        bars=_measured(item) or _promised(item),
    )


_HEADLINES = {
    "dataset.num_workers": "Begin with {value} workers instead of {before}",
    "dataset.prefetch_factor": "Hold {value} packs ready per worker instead of {before}",
    "dataset.max_workers": "Allow up to {value} workers instead of {before}",
    "training.batch_size": "Train with batches of {value} graphs instead of {before}",
    "training.micro_batch_size": "Put at most {value} graphs into a pack instead of {before}",
    "training.epochs": "Train for at most {value} epochs instead of {before}",
    "training.num_threads": "Train with {value} threads instead of {before}",
    "training.mixed_precision": "Turn mixed precision {value}",
    "training.dqn.replay_capacity": "Give the replay buffer {value} transitions instead of {before}",
    "resources.sample_interval_s": "Sample resources every {value} s instead of every {before} s",
    "models.preset": "Train the {value} models instead of the {before} ones",
}
_ZEROS = {
    "training.micro_batch_size": "as many as fit",
    "training.num_threads": "as many as there are cores",
}
"""What 0 means."""


def headline(setting: str, value: object, before: object) -> str:
    """What to do, in words."""
    template = _HEADLINES.get(setting, "Set {setting} to {value} instead of {before}")
    return template.format(setting=setting, value=in_words(setting, value), before=in_words(setting, before))


def in_words(setting: str, value: object) -> str:
    """A setting's value as people say it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value == 0 and setting in _ZEROS:
        return _ZEROS[setting]
    return "none" if value is None else str(value)


def _finding(reason: str) -> str:
    """A reason without what to do, which the headline says: it follows the last colon."""
    found, _, _ = reason.rpartition(": ")
    return f"{found}." if found else reason


def _gain(item: Mapping[str, Any]) -> str:
    metric, expected = item["metric"], item["expected"]
    if not metric or expected is None:
        return ""
    now, then = format_measure(metric, item["current"]), format_measure(metric, expected)
    bounds = ""
    if item["low"] is not None and item["high"] is not None:
        low, high = format_measure(metric, item["low"]), format_measure(metric, item["high"])
        bounds = f" (anywhere from {low} to {high})" if low != high else ""
    return f"{measure_name(metric)}: {now} now, {then} with it{bounds}"


def _confidence(confidence: float) -> str:
    word = "high" if confidence >= 0.75 else "fair" if confidence >= 0.45 else "low: worth a try"
    return f"{confidence:.0%} ({word})"


def _record(record: Mapping[str, Any] | None) -> str:
    if not record or not record["num"]:
        return ""
    num, helped = record["num"], record["helped"]
    times = "once" if num == 1 else f"{num} times"
    outcome = ("it helped" if helped else "it did not help") if num == 1 else f"it helped in {helped}"
    return f"Such advice was followed {times} before: {outcome}. Last time: {record['last']}"


def _measured(item: Mapping[str, Any]) -> list[Bar]:
    points: Sequence[Mapping[str, Any]] = item.get("measured") or ()
    most = item.get("measured_of") or max((point["value"] for point in points), default=0.0)
    return [
        Bar(point["label"], point["shown"], max(0.0, point["value"] / most) if most > 0 else 0.0)
        for point in points
    ]


def _promised(item: Mapping[str, Any]) -> list[Bar]:
    """The present and the future, with its bounds."""
    metric, now, then = item["metric"], item["current"], item["expected"]
    if not metric or now is None or then is None:
        return []
    low, high = item["low"], item["high"]
    most = max(value for value in (now, then, low, high) if value is not None)
    if most <= 0:
        return []
    return [
        Bar("now", format_measure(metric, now), now / most),
        Bar(
            "expected",
            format_measure(metric, then),
            max(0.0, then / most),
            None if low is None else max(0.0, low / most),
            None if high is None else max(0.0, high / most),
        ),
    ]


def _verdict(fact: RecommendationJudged) -> Verdict:
    word, tone = ("helped", "good") if fact.helped else ("made no clear difference", "")
    if fact.high < 0:
        word, tone = "made it worse", "bad"
    value, before = (in_words(fact.setting, each) for each in (fact.value, fact.instead_of))
    most = max(fact.before, fact.after)
    bars = [
        Bar(label, format_measure(fact.metric, number), number / most if most > 0 else 0.0)
        for label, number in (("before", fact.before), ("with it", fact.after))
    ]
    compared = "1 comparison" if fact.num_compared == 1 else f"{fact.num_compared} comparisons"
    elsewhere = "" if fact.same_data else " on other captures"
    return Verdict(
        headline=f"{fact.setting} {value} instead of {before} {word}",
        detail=f"{measure_name(fact.metric)}: {bars[0].shown} before, {bars[1].shown} with it "
        f"({compared}{elsewhere}; recommended after plan {fact.recommended_by}).",
        tone=tone,
        bars=bars if most > 0 else [],
    )
