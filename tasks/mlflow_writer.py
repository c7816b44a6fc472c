"""Writes what a plan's log says into MLflow: only what is missing there, so any call finishes the one before.

Everything may be killed at any moment. Runs are found again by their keys; tags and parameters are compared
with what is there; MLflow's databases hold a metric's value once however often it is sent, and a position is
written after what it stands for.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import polars as pl
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME
from sqlalchemy.exc import SQLAlchemyError

from core.errors import ArtifactError
from core.events.catalogue import ModelSaved
from core.events.log import EventLog
from core.events.telemetry import read_telemetry
from settings.layout import Layout
from tasks.mlflow_content import RECOMMENDED, Point, RunContent, fold_content, system_points

KEY = "can_retrain.key"
POSITION = "can_retrain.position"
_VERSION = "can_retrain.version"
_TELEMETRY = "can_retrain.telemetry"
_MODEL = "can_retrain.model"
_FILE = "can_retrain.file."
_PLAN_FILES = ("results.json", "dashboard.html", "dashboard.png")
_MAX_METRICS, _MAX_PARAMS_OR_TAGS, _MAX_RUNS = 1000, 100, 50_000

STORE_ERRORS = (MlflowException, SQLAlchemyError, OSError)
"""What is raised when MLflow, or what it stands on, fails."""

_T = TypeVar("_T")


class PlanWriter:
    """Brings the runs of one plan up to date.

    Args:
        uri: MLflow's tracking URI.
        experiment: Name of the experiment; made if it is not there.
        artifacts: Where a new experiment's artifacts go; None leaves that to MLflow's server.
        layout: The plan's output directory.
        plan_id: The plan.

    Raises:
        *STORE_ERRORS: MLflow cannot be reached or refuses.
    """

    def __init__(
        self, uri: str, experiment: str, artifacts: str | None, layout: Layout, plan_id: str
    ) -> None:
        self._client = MlflowClient(uri)
        self._experiment = _experiment_id(self._client, experiment, artifacts)
        self._layout, self._plan_id = layout, plan_id

    def write(self) -> int:
        """Write what is missing.

        Returns:
            Number of events that MLflow did not show before.

        Raises:
            *STORE_ERRORS: MLflow cannot be reached or refuses.
            EventLogError: Events or resource samples cannot be read.
        """
        events = EventLog(self._layout.events).read(self._plan_id)
        content = fold_content(events)
        if not content:
            return 0
        runs = self._runs(content)
        telemetry = read_telemetry(self._layout.telemetry, self._plan_id)
        began_ms = content[self._plan_id].began_ms
        for key, wanted in reversed(content.items()):  # the plan's own run last: its position is the plan's
            run = runs[key]
            if wanted.parent:
                wanted.tags[MLFLOW_PARENT_RUN_ID] = runs[wanted.parent].info.run_id
            if wanted.parent == self._plan_id:
                samples = telemetry.filter(pl.col("dataset") == wanted.name)
                self._write_telemetry(run, system_points(samples, began_ms))
            if wanted.model:
                self._write_model(run, wanted.model)
            for name, text in wanted.texts.items():
                self._write_file(run, name, text.encode())
            if not wanted.parent:
                for path in (self._layout.plan_file(self._plan_id, name) for name in _PLAN_FILES):
                    if path.exists():
                        self._write_file(run, path.name, path.read_bytes())
            self._write_content(run, wanted, events[-1].position)
        return events[-1].position - int(runs[self._plan_id].data.tags.get(POSITION, -1))

    def _runs(self, content: dict[str, RunContent]) -> dict[str, Run]:
        """MLflow's runs by key; those that are missing are made."""
        runs = self._found()
        if all(key in runs for key in content):
            return runs
        for key, wanted in content.items():
            if key not in runs:
                tags = {KEY: key, MLFLOW_RUN_NAME: wanted.name, _VERSION: version("can-ids-retrain")}
                if wanted.parent:
                    tags[MLFLOW_PARENT_RUN_ID] = runs[wanted.parent].info.run_id
                runs[key] = self._client.create_run(self._experiment, start_time=wanted.began_ms, tags=tags)
        return self._found()  # a server may have made one twice: its answer was lost, and it was asked again

    def _found(self) -> dict[str, Run]:
        """The plan's runs that are there, by key; of two with one key the emptier is deleted."""
        runs: dict[str, Run] = {}
        found = self._client.search_runs(
            [self._experiment], f"tags.`{KEY}` LIKE '{self._plan_id}%'", max_results=_MAX_RUNS
        )
        for run in sorted(found, key=_fullness):
            key = run.data.tags[KEY]
            if not f"{key}/".startswith(f"{self._plan_id}/"):
                continue  # another plan, whose id only begins alike
            if twin := runs.get(key):
                self._client.delete_run(twin.info.run_id)
            runs[key] = run
        return runs

    def _write_content(self, run: Run, wanted: RunContent, last_position: int) -> None:
        """Metrics first, then parameters and tags, the position among them, then how the run ended."""
        there, run_id = run.data.tags, run.info.run_id
        after = int(there.get(POSITION, -1))
        position = wanted.points[-1].position if wanted.points else -1
        if not wanted.parent:
            position = last_position
        self._log_points(run_id, [point for point in wanted.points if point.position > after])
        params = [Param(name, value) for name, value in wanted.params.items() if name not in run.data.params]
        for batch in _batches(params, _MAX_PARAMS_OR_TAGS):
            self._client.log_batch(run_id, params=batch)
        tags = {name: value for name, value in wanted.tags.items() if there.get(name) != value}
        for name in there:
            if name.startswith(RECOMMENDED) and name not in wanted.tags:
                self._client.delete_tag(run_id, name)
        self._write_end(run, wanted)
        if position > after:
            tags[POSITION] = str(position)
        for named in _batches([RunTag(name, value) for name, value in tags.items()], _MAX_PARAMS_OR_TAGS):
            self._client.log_batch(run_id, tags=named)

    def _write_end(self, run: Run, wanted: RunContent) -> None:
        if wanted.ended_ms is None:
            if run.info.status != wanted.status:
                self._client.update_run(run.info.run_id, wanted.status)
        elif (run.info.status, run.info.end_time) != (wanted.status, wanted.ended_ms):
            self._client.set_terminated(run.info.run_id, wanted.status, wanted.ended_ms)

    def _write_telemetry(self, run: Run, moments: list[tuple[int, list[Point]]]) -> None:
        """Resource samples after those that are there; all of them if some came late."""
        if not moments:
            return
        count, last_ms = json.loads(run.data.tags.get(_TELEMETRY, "[0, 0]"))
        in_order = 0 < count <= len(moments) and moments[count - 1][0] == last_ms
        fresh = moments[count:] if in_order else moments
        if fresh:
            self._log_points(run.info.run_id, [point for _, points in fresh for point in points])
            self._client.set_tag(run.info.run_id, _TELEMETRY, json.dumps([len(moments), moments[-1][0]]))

    def _write_model(self, run: Run, saved: ModelSaved) -> None:
        """A model's tensors and all else it holds, if its file is still the one that this run saved."""
        exported = f"exported {saved.sha256}"
        if run.data.tags.get(_MODEL) == exported:
            return
        path = self._layout.saved_models / Path(saved.path).name
        state = self._export(run, path, saved.sha256) or exported
        if run.data.tags.get(_MODEL) != state:
            self._client.set_tag(run.info.run_id, _MODEL, state)

    def _export(self, run: Run, path: Path, sha256: str) -> str:
        """Log a model; returns why it cannot be, if it cannot."""
        if not path.exists():
            return f"missing: {path.name} is not there"
        if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != sha256:
            return f"replaced: {path.name} is {found[:12]} by now"
        from tasks.model_export import export_model  # loads torch

        try:
            tensors, rest = export_model(path, sha256)
        except ArtifactError as error:
            return f"unreadable: {error}"
        self._log_file(run, "model", f"{path.stem}.safetensors", tensors)
        self._log_file(run, "model", f"{path.stem}.json", rest)
        return ""

    def _write_file(self, run: Run, name: str, content: bytes) -> None:
        """An artifact, unless this content is there."""
        sha256 = hashlib.sha256(content).hexdigest()
        if run.data.tags.get(_FILE + name) != sha256:
            self._log_file(run, None, name, content)
            self._client.set_tag(run.info.run_id, _FILE + name, sha256)

    def _log_file(self, run: Run, folder: str | None, name: str, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / name
            path.write_bytes(content)
            self._client.log_artifact(run.info.run_id, str(path), folder)

    def _log_points(self, run_id: str, points: Sequence[Point]) -> None:
        metrics = [Metric(p.name, p.value, p.at_ms, p.step) for p in points]
        for batch in _batches(metrics, _MAX_METRICS):
            self._client.log_batch(run_id, metrics=batch)


def _fullness(run: Run) -> tuple[int, str]:
    return len(run.data.metrics) + len(run.data.params) + len(run.data.tags), run.info.run_id


def create_database(database: Path, artifacts: Path) -> None:
    """Make an empty SQLite store, whole or not at all: MLflow cannot go on with one that it half made.

    Args:
        database: The file, which nobody else makes at the same time.
        artifacts: Where artifacts of MLflow's default experiment go.

    Raises:
        *STORE_ERRORS: The folder cannot be written.
    """
    temporary = database.with_name(f".{database.name}.tmp")
    for rest in (temporary, temporary.with_name(f"{temporary.name}-journal")):
        rest.unlink(missing_ok=True)
    SqlAlchemyStore(f"sqlite:///{temporary}", artifacts.as_uri()).engine.dispose()  # type: ignore[no-untyped-call]
    temporary.replace(database)


def _experiment_id(client: MlflowClient, name: str, artifacts: str | None) -> str:
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    try:
        return client.create_experiment(name, artifact_location=artifacts)
    except MlflowException as error:
        made = client.get_experiment_by_name(name)  # by another plan, just now
        if made is None or error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
        return str(made.experiment_id)


def _batches(values: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    return (values[start : start + size] for start in range(0, len(values), size))
