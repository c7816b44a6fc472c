"""How well models tell attacks apart, as numbers: curves, confusion, scores, changes between versions."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from core.analytics.metrics import (
    HIGHER_IS_BETTER,
    LOWER_IS_BETTER,
    folder_order,
    fusion_verdict,
    model_order,
)
from core.analytics.results import DatasetResult
from core.analytics.versions import DECIDING_MODEL, Metrics, ModelVersion, Versions
from core.events.catalogue import ScoresMeasured, to_fact
from core.events.event import Event

VALIDATION = "validation windows"
"""What stands in the place of a test folder for the windows that thresholds were chosen on."""

FolderScores = Mapping[str, ScoresMeasured]
"""By model."""


class CurvePoint(NamedTuple):
    """An operating point; rates from 0 to 1, precision None where nothing alarms, cut None for that point."""

    cut: float | None
    false_positive_rate: float
    recall: float
    precision: float | None


class Confusion(NamedTuple):
    """Windows by what they are and what was said of them."""

    true_positives: int
    false_negatives: int
    false_positives: int
    true_negatives: int

    @property
    def num_attacks(self) -> int:
        """Attack windows."""
        return self.true_positives + self.false_negatives

    @property
    def num_benign(self) -> int:
        """Benign windows."""
        return self.false_positives + self.true_negatives


@dataclass(frozen=True)
class Change:
    """A metric before and now."""

    metric: str
    before: float
    now: float

    @property
    def difference(self) -> float:
        """How much higher it is now."""
        return self.now - self.before

    @property
    def improved(self) -> bool | None:
        """Whether it is better now; None where it is the same or neither direction is better."""
        if self.difference == 0 or self.metric not in HIGHER_IS_BETTER | LOWER_IS_BETTER:
            return None
        return (self.difference > 0) == (self.metric in HIGHER_IS_BETTER)


@dataclass(frozen=True)
class Standing:
    """A model's version in a plan, and the version before it.

    Attributes:
        version: What the plan made or evaluated.
        previous: The latest version before it that was evaluated; None where there is none.
    """

    version: ModelVersion
    previous: ModelVersion | None

    @property
    def same_captures(self) -> bool:
        """Whether both saw the same captures, so that their test windows are the same."""
        return self.previous is not None and self.previous.data_digest == self.version.data_digest


@dataclass(frozen=True)
class Choice:
    """Which model of a dataset to use.

    Attributes:
        model: Fusion where it earned its place, else what is most often the best of all simpler ones; empty
            where nothing tells.
        mcc: Its mean MCC over the test folders that define it.
        num_folders: Those folders.
        false_alarms_per_hour: Lowest and highest of its test folders; None where undefined in all.
        changes: Its MCC in each test folder that the version before was evaluated on too.
    """

    model: str
    mcc: float | None
    num_folders: int
    false_alarms_per_hour: tuple[float, float] | None
    changes: Sequence[Change]

    @property
    def mean_change(self) -> float:
        """Mean change of the MCC; 0 where there is nothing to compare."""
        return statistics.fmean(change.difference for change in self.changes) if self.changes else 0.0


def fold_scores(events: Iterable[Event]) -> dict[str, dict[str, dict[str, ScoresMeasured]]]:
    """Find how scores lie, by dataset, test folder (or `VALIDATION`) and model; the last event of each holds.

    Raises:
        UnknownEventError: A newer release wrote one of the events.
    """
    found: dict[str, dict[str, dict[str, ScoresMeasured]]] = {}
    for event in events:
        if event.type == ScoresMeasured.TYPE and isinstance(fact := to_fact(event), ScoresMeasured):
            folder = VALIDATION if fact.folder is None else fact.folder
            found.setdefault(fact.dataset, {}).setdefault(folder, {})[fact.model] = fact
    return found


def curve(scores: ScoresMeasured) -> list[CurvePoint]:
    """The operating points from "nothing alarms" on; none where a class or all labels are missing."""
    if gap(scores):
        return []
    num_attacks, num_benign = scores.true_positives[-1], scores.false_positives[-1]
    points = zip(scores.cuts, scores.true_positives, scores.false_positives, strict=True)
    return [
        CurvePoint(None, 0.0, 0.0, None),
        *(
            CurvePoint(cut, wrong / num_benign, hits / num_attacks, hits / (hits + wrong))
            for cut, hits, wrong in points
        ),
    ]


def gap(scores: ScoresMeasured) -> str:
    """Why there is no curve; empty where there is one."""
    if sum(scores.num_windows_by_score) == 0:
        return "no window"
    if scores.num_attacks_by_score is None:
        return "its labels mean nothing"
    num_attacks = sum(scores.num_attacks_by_score)
    if num_attacks == 0:
        return "no window is an attack"
    return "every window is an attack" if num_attacks == sum(scores.num_windows_by_score) else ""


def confusion(metrics: Metrics) -> Confusion | None:
    """Confusion counts at the threshold; None where they were not measured or labels mean nothing."""
    counts = [metrics.get(name) for name in Confusion._fields]
    if any(count is None for count in counts):
        return None
    return Confusion(*(int(count or 0) for count in counts))


def confusion_of_scores(scores: ScoresMeasured) -> Confusion | None:
    """The same from how scores lie; None where labels mean nothing."""
    if scores.num_attacks_by_score is None:
        return None
    num_attacks = sum(scores.num_attacks_by_score)
    num_benign = sum(scores.num_windows_by_score) - num_attacks
    at = sum(cut > scores.threshold for cut in scores.cuts)
    hits, wrong = (scores.true_positives[at - 1], scores.false_positives[at - 1]) if at else (0, 0)
    return Confusion(hits, num_attacks - hits, wrong, num_benign - wrong)


def compare(now: Metrics, before: Metrics) -> dict[str, Change]:
    """Changes of the metrics that are defined both times, by name."""
    return {
        name: Change(name, old, new)
        for name, new in now.items()
        if new is not None and (old := before.get(name)) is not None
    }


def phase_of(model: str) -> str:
    """The phase that makes a model: its name says so, and the baselines are made with the agent."""
    family = model.partition("_")[0]
    return family if family in DECIDING_MODEL else "fusion"


def standing(versions: Versions, plan_id: str, dataset: str, model: str) -> Standing | None:
    """A model's version in a plan; None where the plan neither made nor evaluated one."""
    line = versions.get((dataset, phase_of(model)), ())
    own = [version for version in line if plan_id in (version.plan_id, version.evaluated_by)]
    if not own:
        return None
    earlier = [version for version in line if version.number < own[-1].number and version.metrics.get(model)]
    return Standing(own[-1], earlier[-1] if earlier else None)


def choose(dataset: DatasetResult, before: Mapping[str, Mapping[str, Metrics]]) -> Choice:
    """Find which model to use.

    Args:
        dataset: What was measured.
        before: Metrics of each model's previous version, by model and test folder.
    """
    verdict = fusion_verdict(dataset)
    model = "fusion" if verdict.earned else verdict.rival
    folders = dataset.metrics.get(model, {})
    defined = {name: mcc for name, metrics in folders.items() if (mcc := metrics.get("mcc")) is not None}
    alarms = [rate for m in folders.values() if (rate := m.get("false_alarms_per_hour")) is not None]
    old = {name: metrics.get("mcc") for name, metrics in before.get(model, {}).items()}
    return Choice(
        model=model,
        mcc=statistics.fmean(defined.values()) if defined else None,
        num_folders=len(defined),
        false_alarms_per_hour=(min(alarms), max(alarms)) if alarms else None,
        changes=[
            Change("mcc", was, mcc)
            for name, mcc in sorted(defined.items())
            if (was := old.get(name)) is not None
        ],
    )


class TrendPoint(NamedTuple):
    """A metric of one version: its mean over the test folders that all versions shown have in common."""

    phase: str
    model: str
    number: int
    value: float
    role: str


def trend(versions: Versions, dataset: str, metric: str) -> list[TrendPoint]:
    """A metric over the versions of each phase's deciding model, where at least two can be compared."""
    points: list[TrendPoint] = []
    for phase, model in DECIDING_MODEL.items():
        line = [version for version in versions.get((dataset, phase), ()) if version.metrics.get(model)]
        defined = [
            {name for name, m in version.metrics[model].items() if m.get(metric) is not None}
            for version in line
        ]
        common = sorted(set.intersection(*defined)) if defined else []
        if len(line) > 1 and common:
            points += [
                TrendPoint(
                    phase, model, version.number, _mean(version.metrics[model], common, metric), version.role
                )
                for version in line
            ]
    return points


def folders_of(dataset: DatasetResult, scores: Mapping[str, FolderScores]) -> list[str]:
    """Test folders by name, then the validation windows where their scores were measured."""
    return folder_order(dataset) + [VALIDATION] * (VALIDATION in scores)


def models_of(dataset: DatasetResult, scores: Mapping[str, FolderScores]) -> list[str]:
    """Models with metrics or scores, in the order of the chain."""
    return model_order(dict.fromkeys([*dataset.metrics, *(model for f in scores.values() for model in f)]))


def _mean(folders: Mapping[str, Metrics], names: Sequence[str], metric: str) -> float:
    return statistics.fmean(value for name in names if (value := folders[name].get(metric)) is not None)
