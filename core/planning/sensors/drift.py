"""Whether the scores of a dataset's recent traffic have drifted, and what was seen of that before.

What was seen is kept in ``{output_dir}/watched/drift-{dataset}.json``. Drift is told once for the captures
that the models were trained on: to retrain on the same ones once more cannot cure it, so it would be told,
and retrained, for ever. It is told again when they have changed, when scores were steady in between, or when
a day later the model is still the one that it was told of: then nobody has retrained it.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from core.analytics.detection import VALIDATION, fold_scores
from core.analytics.drift import Drift, measure_drift
from core.analytics.versions import DECIDING_MODEL, ModelVersion, Versions, fold_versions
from core.can.registry import captures_below, known_datasets
from core.errors import UNREADABLE, CaptureError
from core.events.files import replace_file
from core.events.log import EventLog
from core.events.open import open_log
from core.planning.live.progress import LOG
from core.planning.phases import FUSION, STUDENT
from core.planning.sensors.captures import TELL_AGAIN_S
from core.planning.shared.files import fetch_models
from core.resources.process import TrainingProcess
from settings.app import Settings
from settings.errors import RetrainError, SettingsError
from settings.layout import Layout

Status = Literal["drifted", "told", "steady", "too few", "nothing recent", "no model", "failed"]
_MODEL = DECIDING_MODEL[FUSION]
_MOST_KEPT = 200


class DriftSeen(NamedTuple):
    """What became of one dataset's recent traffic.

    Attributes:
        dataset: Its name.
        status: ``drifted`` is news; ``told`` was news before.
        reason: Why, for people.
        version: The version of the fusion agent that scored; None where there is none.
        drift: What was measured; None where nothing could be.
    """

    dataset: str
    status: Status
    reason: str
    version: ModelVersion | None = None
    drift: Drift | None = None


class Told(NamedTuple):
    """What drift was told of.

    Attributes:
        data_digest: The captures that the model was trained on.
        sha256: The model.
        at: When, seconds since 1970.
    """

    data_digest: str
    sha256: str
    at: float

    def covers(self, version: ModelVersion) -> bool:
        """Whether to tell of a version as well would change nothing."""
        was_retrained = self.sha256 != version.sha256
        return self.data_digest == version.data_digest and (
            was_retrained or time.time() - self.at < TELL_AGAIN_S
        )


@dataclass
class DriftMemory:
    """What was seen of a dataset's recent traffic before.

    Attributes:
        path: Its file.
        told: What drift was told of; None if scores were steady since.
        seen: What was measured, oldest first.
    """

    path: Path
    told: Told | None = None
    seen: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, layout: Layout, dataset: str) -> "DriftMemory":
        """What is remembered; nothing where the file is gone or damaged."""
        path = layout.watched / f"drift-{dataset}.json"
        try:
            content = json.loads(path.read_bytes())
            told = Told(**content["told"]) if content["told"] else None
            return cls(path, told, list(content["seen"]))
        except FileNotFoundError:
            return cls(path)
        except UNREADABLE as error:
            LOG.warning("what was seen of drift is forgotten: %s: %s", path, error)
            return cls(path)

    def remember(self, found: DriftSeen) -> None:
        """Write down what was measured; told drift counts as told.

        Raises:
            OSError: The output directory cannot be written.
        """
        if found.drift is None or found.version is None:
            return
        if found.status == "drifted":
            self.told = Told(found.version.data_digest, found.version.sha256, time.time())
        elif found.status == "steady":
            self.told = None
        version = {"version": found.version.number, "sha256": found.version.sha256}
        now = {"at": datetime.now(UTC).isoformat(), "status": found.status, **version}
        self.seen = [*self.seen, {**now, **asdict(found.drift)}][-_MOST_KEPT:]
        content = {"told": self.told and self.told._asdict(), "seen": self.seen}
        replace_file(self.path, json.dumps(content, indent=1).encode())


def watched_datasets(settings: Settings, datasets: Sequence[str]) -> list[str]:
    """Datasets whose recent traffic is looked at: those asked for, else all with a folder of it.

    Raises:
        SettingsError: An unknown dataset.
    """
    known = known_datasets(settings.data)
    if unknown := [name for name in datasets if name not in known]:
        raise SettingsError(f"unknown dataset {unknown[0]!r}: known are {', '.join(known)}")
    recent_dir = settings.drift.recent_dir
    if recent_dir is None:
        return []
    return list(dict.fromkeys(datasets)) or [name for name in known if (recent_dir / name).is_dir()]


def look_for_drift(settings: Settings, dataset: str, told: Told | None) -> DriftSeen:
    """Score a dataset's recent traffic with its champion, and compare.

    The champion's file may have been replaced by a later version that is not champion: then that one scores,
    as it does for ``flows.detect``, and is compared with its own validation windows.

    Args:
        settings: Where recent traffic and models are, and what counts as drift.
        dataset: The dataset.
        told: What drift was told of before.

    Raises:
        EventLogError: The event log cannot be read.
    """
    layout = Layout(settings.output_dir)
    try:
        captures = _newest_first(settings, dataset)
        if not captures:
            return DriftSeen(dataset, "nothing recent", f"no captures in {settings.drift.recent_dir}")
        log = open_log(layout)
        fetch_models(layout, dataset, (STUDENT, FUSION))
        version = served_version(fold_versions(map(log.read, log.streams())), layout, dataset)
        if version is None:
            return DriftSeen(dataset, "no model", "never trained, or its file is not one that was saved")
        scores, num_captures, num_refused = _score(captures, dataset, version, settings, layout)
    except (RetrainError, OSError) as error:
        return DriftSeen(dataset, "failed", str(error))
    refused = f", {num_refused} cannot be read" if num_refused else ""
    return judge(dataset, version, log, scores, settings, f"{num_captures} captures{refused}", told)


def served_version(versions: Versions, layout: Layout, dataset: str) -> ModelVersion | None:
    """The version of the fusion agent whose file is there; the champion, unless it was replaced."""
    line = versions.get((dataset, FUSION), ())
    for version in sorted(line, key=lambda version: (version.role != "champion", -version.number)):
        if _sha256(layout.saved_models / Path(version.path).name) == version.sha256:
            return version
    return None


def judge(
    dataset: str,
    version: ModelVersion,
    log: EventLog,
    scores: Any,
    settings: Settings,
    source: str,
    told: Told | None,
) -> DriftSeen:
    """Compare scores with those of a version's validation windows.

    Args:
        dataset: The dataset.
        version: Whose scores they are.
        log: Where its plan said how its scores lay.
        scores: float64 ``[K]`` in order of time.
        settings: What counts as drift.
        source: What was scored, for people.
        told: What drift was told of before.
    """
    reference = fold_scores(log.read(version.plan_id)).get(dataset, {}).get(VALIDATION, {}).get(_MODEL)
    if reference is None:
        return DriftSeen(dataset, "no model", "trained by a release that did not say how scores lay", version)
    drift = measure_drift(reference, scores, settings.drift)
    numbers = f"PSI {drift.psi:.3f}, p {drift.p_value:.2g}, {drift.num_windows} windows of {source}"
    if not drift.is_enough:
        least = f"at least {settings.drift.min_windows} recent and validation windows are needed"
        return DriftSeen(dataset, "too few", f"{numbers}: {least}", version, drift)
    status: Status = "drifted" if drift.is_drift else "steady"
    if drift.is_drift and told and told.covers(version):
        status = "told"
    return DriftSeen(dataset, status, numbers, version, drift)


def _newest_first(settings: Settings, dataset: str) -> list[Path]:
    folder = settings.drift.recent_dir
    if folder is None or not (folder / dataset).is_dir():
        return []
    try:
        return sorted(
            captures_below(folder / dataset), key=lambda path: path.stat().st_mtime_ns, reverse=True
        )
    except OSError as error:
        raise CaptureError(f"cannot read {folder / dataset}: {error}") from error


def _score(
    captures: Sequence[Path], dataset: str, version: ModelVersion, settings: Settings, layout: Layout
) -> tuple[Any, int, int]:
    with TrainingProcess(f"drift-{dataset}", layout.process_logs) as process:
        scores, num_captures, num_refused = process.run(
            "core.training.recent:score_recent",
            captures,
            dataset,
            version.sha256,
            settings,
            on_fact=lambda fact: None,
            timeout_s=settings.resources.hang_timeout_s,
        )
    return scores, num_captures, num_refused


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
