"""Versions of each saved model file over all plans, and which of them is champion.

Every model file with bytes of its own is a version, numbered in the order of saving; bytes saved again are
the version that they were before. A version is *complete* once the phase that saved it has finished and its
deciding model (``DECIDING_MODEL``) was calibrated on validation windows.

Which version is champion is decided on validation windows alone. Test folders are shown, never used to
choose: a model chosen by them would look better there than it is.

1. The first complete version is the champion.
2. The version saved last is the challenger, unless it is the champion; the one before it is none any more.
3. A complete challenger becomes champion if the captures changed since the champion was trained (it has never
   seen the new ones, and its score is of other windows), or if the validation MCC of its deciding model is
   not lower than the best of all champions on these captures by more than the tolerance. An undefined MCC is
   lower than any other.
4. Else it stays the challenger.

The tolerance is one standard error of the MCC on as many validation windows as there were, so that chance
alone does not keep a newer model (newer settings, newer code) from taking over; comparing with the best
champion rather than the last one keeps small losses from adding up. With ``n`` windows, a share ``p`` of them
attacks, and about as many wrong alarms as missed attacks, that standard error is about
``sqrt((1 - mcc**2) / (4 p (1 - p) n))``. The log tells the share of attacks of all windows only: it stands
for that of validation windows.
"""

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, NamedTuple

from core.events.catalogue import (
    Fact,
    GraphsBuilt,
    ModelEvaluated,
    ModelSaved,
    PhaseFinished,
    PlanCreated,
    ThresholdCalibrated,
    to_fact,
)
from core.events.event import Event

DECIDING_MODEL: Mapping[str, str] = {"teacher": "teacher_gat", "student": "student_gat", "fusion": "fusion"}
"""The model of each phase whose validation score counts: in a pair the one that learns from labels, beside
baselines the one that is used."""
PARENT_PHASE: Mapping[str, str] = {"student": "teacher", "fusion": "student"}
"""The phase whose model file a phase learns from."""
DEFAULT_TOLERANCE = 0.01
"""Of the MCC, where the log does not tell how many validation windows there were."""

DECIDED_BY = {
    PlanCreated.TYPE,
    GraphsBuilt.TYPE,
    ModelSaved.TYPE,
    PhaseFinished.TYPE,
    ThresholdCalibrated.TYPE,
    ModelEvaluated.TYPE,
}
"""Types of the events that versions and their roles are decided by."""

Role = Literal["champion", "challenger", ""]
Metrics = Mapping[str, float | int | None]
VersionKey = tuple[str, str]
"""Dataset and phase."""


@dataclass(frozen=True)
class ModelVersion:
    """One version of a model file.

    Attributes:
        dataset: Its dataset.
        phase: The phase that makes it: ``teacher``, ``student`` or ``fusion``.
        number: 1 for the oldest.
        plan_id: The plan that saved it first.
        saved_at: When that was, UTC.
        path: The file, as it was named then; a later version takes its place.
        sha256: Of the file.
        parent_sha256: Of the model file that it was trained from; empty for a teacher.
        data_digest: Digest of its captures.
        settings_digest: Digest of the settings that decide what is learned.
        num_parameters: By model.
        code_version: Release that made its plan; empty where the log does not tell.
        code_commit: Git commit of that, with ``-dirty`` if files were changed; empty where unknown.
        finished: Whether the phase that saved it ended well.
        thresholds: Alarm threshold by model.
        val_mcc: MCC on validation windows by calibrated model; None where it is undefined.
        metrics: Test metrics by model and folder, of the plan that evaluated it last.
        evaluated_by: That plan; empty if there is none.
        role: ``champion``, ``challenger`` or neither.
        reason: Why it has, or lost, its role.
    """

    dataset: str
    phase: str
    number: int
    plan_id: str
    saved_at: datetime
    path: str
    sha256: str
    parent_sha256: str
    data_digest: str
    settings_digest: str
    num_parameters: Mapping[str, int]
    code_version: str = ""
    code_commit: str = ""
    finished: bool = False
    thresholds: Mapping[str, float] = field(default_factory=dict)
    val_mcc: Mapping[str, float | None] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Metrics]] = field(default_factory=dict)
    evaluated_by: str = ""
    role: Role = ""
    reason: str = ""

    @property
    def complete(self) -> bool:
        """Whether it may become champion."""
        return self.finished and DECIDING_MODEL.get(self.phase) in self.val_mcc

    @property
    def score(self) -> float | None:
        """Validation MCC of its deciding model; None where it is undefined or not known yet."""
        value = self.val_mcc.get(DECIDING_MODEL.get(self.phase, ""))
        return value if value is not None and math.isfinite(value) else None


Versions = Mapping[VersionKey, tuple[ModelVersion, ...]]


def fold_versions(streams: Iterable[Sequence[Event]]) -> dict[VersionKey, tuple[ModelVersion, ...]]:
    """Find all versions of all model files, oldest first.

    Args:
        streams: The events of each plan, each in its own order; the order of plans does not matter.

    Returns:
        Versions by dataset and phase. A plan that is added never changes the number of an older version.

    Raises:
        UnknownEventError: A newer release wrote one of the events.
    """
    relevant = ([event for event in events if event.type in DECIDED_BY] for events in streams)
    ordered = sorted(filter(None, relevant), key=lambda events: events[0].stream)
    fold = _Fold()
    for event in heapq.merge(*ordered, key=lambda event: event.occurred_at):
        fold.apply(to_fact(event), event)
    return {key: tuple(line.versions) for key, line in sorted(fold.lines.items())}


def parent_version(versions: Versions, child: ModelVersion) -> ModelVersion | None:
    """The version that another was trained from; None for a teacher, or where the log does not hold it."""
    candidates = versions.get((child.dataset, PARENT_PHASE.get(child.phase, "")), ())
    return next((version for version in candidates if version.sha256 == child.parent_sha256), None)


def mcc_tolerance(mcc: float, num_windows: int, attack_share: float) -> float:
    """One standard error of an MCC, at least what one misjudged window makes.

    Args:
        mcc: The Matthews correlation.
        num_windows: Windows that it was measured on.
        attack_share: Share of attacks among them, 0 to 1.

    Returns:
        The tolerance; `DEFAULT_TOLERANCE` where there are no windows of one class.
    """
    balance = 4 * attack_share * (1 - attack_share) * num_windows
    if balance <= 0:
        return DEFAULT_TOLERANCE
    return max(math.sqrt(max(1 - mcc * mcc, 0.0) / balance), 2 / balance)


class _Windows(NamedTuple):
    """Number of validation windows, and share of attacks of all windows."""

    num: int
    attack_share: float


class _Line:
    """The versions of one model file while they are folded."""

    def __init__(self) -> None:
        self.versions: list[ModelVersion] = []
        self._champion, self._newest = 0, 0
        self._best = -1.0
        """MCC of the best champion on the captures of the present one; -1 where none is defined."""

    def at(self, sha256: str) -> int | None:
        """The number of the version with these bytes."""
        return next((version.number for version in self.versions if version.sha256 == sha256), None)

    def change(self, number: int, **changes: object) -> ModelVersion:
        """Replace fields of a version."""
        changed = replace(self.versions[number - 1], **changes)  # type: ignore[arg-type]
        self.versions[number - 1] = changed
        return changed

    def save(self, version: ModelVersion) -> int:
        """Add a version, unless its bytes are known; either way it was saved last. Returns its number."""
        number = self.at(version.sha256)
        if number is None:
            number = len(self.versions) + 1
            self.versions.append(replace(version, number=number))
        if self._newest not in (0, number, self._champion):
            self.change(self._newest, role="", reason=f"version {number} was saved after it")
        self._newest = number
        if number != self._champion:
            self.change(number, role="challenger", reason="not calibrated yet")
        return number

    def decide(self, number: int, windows: _Windows | None) -> None:
        """Make a version champion if it is due: see the module."""
        version = self.versions[number - 1]
        if not version.complete or number == self._champion:
            return
        score = -1.0 if version.score is None else version.score
        if not self._champion:
            self._promote(version, score, "the first complete version")
        elif number == self._newest:
            champion = self.versions[self._champion - 1]
            tolerance = mcc_tolerance(self._best, *windows) if windows else DEFAULT_TOLERANCE
            evidence = f"validation MCC {_shown(score)}, best champion {_shown(self._best)}"
            if version.data_digest != champion.data_digest:
                reason = f"trained on other captures than version {champion.number}, which has not seen them"
                self._promote(version, score, reason)
            elif score >= self._best - tolerance:
                self._promote(version, max(score, self._best), f"{evidence}, tolerance {tolerance:.3f}")
            else:
                self.change(number, reason=f"{evidence}: lower by more than {tolerance:.3f}")

    def _promote(self, version: ModelVersion, best: float, reason: str) -> None:
        if self._champion:
            self.change(self._champion, role="", reason=f"version {version.number} took its place")
        self._champion, self._best = version.number, best
        self.change(version.number, role="champion", reason=reason)


class _Fold:
    """All lines of versions, and what plans say that concerns them."""

    def __init__(self) -> None:
        self.lines: dict[VersionKey, _Line] = {}
        self._own: dict[tuple[str, str, str], int] = {}
        """Number of the version that a plan saved last, by plan, dataset and phase."""
        self._last: dict[VersionKey, int] = {}
        self._code: dict[str, tuple[str, str]] = {}
        self._windows: dict[tuple[str, str], _Windows] = {}

    def apply(self, fact: Fact, event: Event) -> None:
        """Take in the next event."""
        match fact:
            case PlanCreated(machine=machine):
                self._code[event.stream] = (machine.get("code_version", ""), machine.get("code_commit", ""))
            case GraphsBuilt():
                share = fact.num_attack_graphs / fact.num_graphs if fact.num_graphs else 0.0
                self._windows[event.stream, fact.dataset] = _Windows(fact.splits.get("val", 0), share)
            case ModelSaved():
                self._save(fact, event)
            case PhaseFinished():
                if number := self._own.get((event.stream, fact.dataset, fact.phase)):
                    line = self.lines[fact.dataset, fact.phase]
                    line.change(number, finished=True)
                    self._decide(line, number, event, fact.dataset)
            case ThresholdCalibrated():
                for line, version in self._holding(fact.dataset, fact.model, event.stream):
                    line.change(
                        version.number,
                        thresholds={**version.thresholds, fact.model: fact.threshold},
                        val_mcc={**version.val_mcc, fact.model: fact.val_mcc},
                    )
                    self._decide(line, version.number, event, fact.dataset)
            case ModelEvaluated():
                for line, version in self._holding(fact.dataset, fact.model, event.stream):
                    metrics = version.metrics if version.evaluated_by == event.stream else {}
                    folders = {**metrics.get(fact.model, {}), fact.folder: fact.metrics}
                    changed = {**metrics, fact.model: folders}
                    line.change(version.number, metrics=changed, evaluated_by=event.stream)
            case _:
                pass

    def _save(self, fact: ModelSaved, event: Event) -> None:
        code_version, code_commit = self._code.get(event.stream, ("", ""))
        version = ModelVersion(
            dataset=fact.dataset,
            phase=fact.phase,
            number=0,
            plan_id=event.stream,
            saved_at=event.occurred_at,
            path=fact.path,
            sha256=fact.sha256,
            parent_sha256=fact.parent_sha256,
            data_digest=fact.data_digest,
            settings_digest=fact.settings_digest,
            num_parameters=fact.num_parameters,
            code_version=code_version,
            code_commit=code_commit,
        )
        key = fact.dataset, fact.phase
        line = self.lines.setdefault(key, _Line())
        number = line.save(version)
        self._own[event.stream, *key] = self._last[key] = number
        self._decide(line, number, event, fact.dataset)

    def _decide(self, line: _Line, number: int, event: Event, dataset: str) -> None:
        line.decide(number, self._windows.get((event.stream, dataset)))

    def _holding(self, dataset: str, model: str, plan_id: str) -> list[tuple[_Line, ModelVersion]]:
        """The version that a plan means by a model: its own, else the last one saved by any plan."""
        found = []
        for key, last in self._last.items():
            version = self.lines[key].versions[self._own.get((plan_id, *key), last) - 1]
            if key[0] == dataset and model in (DECIDING_MODEL.get(key[1]), *version.num_parameters):
                found.append((self.lines[key], version))
        return found


def _shown(mcc: float) -> str:
    return "undefined" if mcc <= -1 else f"{mcc:.3f}"
