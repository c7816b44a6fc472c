"""Writes what a plan's log says into MLflow: only what is missing there, so any call finishes the one before.

Everything may be killed at any moment. Runs are found again by their keys; tags and parameters are compared
with what is there; MLflow's databases hold a metric's value once however often it is sent, and a position is
written after what it stands for.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import polars as pl
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NAME,
    MLFLOW_RUN_NOTE,
)
from mlflow.utils.validation import MAX_DATASET_DIGEST_SIZE
from sqlalchemy.exc import SQLAlchemyError

from core.errors import ArtifactError
from core.events.catalogue import ModelSaved
from core.events.event import Event
from core.events.open import open_log
from core.events.shared_telemetry import fetched_telemetry
from core.events.telemetry import reduce_telemetry
from core.planning.shared.files import model_path, shared_files
from settings.layout import Layout
from tasks.mlflow_content import RECOMMENDED, Captures, Point, RunContent, fold_content
from tasks.mlflow_notes import with_own_words
from tasks.mlflow_samples import system_points, thin

KEY = "can_retrain.key"
POSITION = "can_retrain.position"
EXPORTED = "can_retrain.model"
"""Tag of a phase's run: whether its model file is among the artifacts, and if not, why."""
_VERSION = "can_retrain.version"
_TELEMETRY = "can_retrain.telemetry"
_FILE = "can_retrain.file."
_PLAN_FILES = ("results.json", "dashboard.html", "dashboard.png")
_MAX_METRICS, _MAX_PARAMS_OR_TAGS, _MAX_RUNS = 1000, 100, 50_000

_EXPERIMENT = {
    # Its pages are those of training, not of prompts and traces.
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": "Retraining of CAN-bus intrusion detection: a run per plan, in it a run per "
    "dataset (test metrics, system metrics), in that a run per phase (curves, model files). Models are "
    "registered as can-ids-{dataset}-{phase}.",
}
"""Tags of a new experiment; people may change them."""

STORE_ERRORS = (MlflowException, SQLAlchemyError, OSError)
"""What is raised when MLflow, or what it stands on, fails."""

_T = TypeVar("_T")


class PlanWriter:
    """Brings the runs of one plan up to date.

    Args:
        client: Of MLflow.
        experiment_id: The experiment that it is part of.
        layout: The plan's output directory.
        plan_id: The plan.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, layout: Layout, plan_id: str) -> None:
        self._client, self._experiment = client, experiment_id
        self._layout, self._plan_id = layout, plan_id

    def complete_runs(self) -> dict[str, Run]:
        """The plan's runs by key, written first if some are missing; errors as of `write`."""
        content = fold_content(open_log(self._layout).read(self._plan_id))
        if not content.keys() <= self._found().keys():
            self.write()
        return self._found()

    def write(self) -> list[Event]:
        """Write what is missing.

        Returns:
            Events that MLflow did not show before.

        Raises:
            *STORE_ERRORS: MLflow cannot be reached or refuses.
            EventLogError: Events or resource samples cannot be read.
        """
        events = open_log(self._layout).read(self._plan_id)
        content = fold_content(events)
        if not content:
            return []
        runs = self._runs(content)
        began_ms = content[self._plan_id].began_ms
        telemetry = reduce_telemetry(
            fetched_telemetry(self._layout, self._plan_id),
            self._plan_id,
            lambda samples: thin(samples, began_ms),
        )
        for key, wanted in reversed(content.items()):  # the plan's own run last: its position is the plan's
            run = runs[key]
            if wanted.parent:
                wanted.tags[MLFLOW_PARENT_RUN_ID] = runs[wanted.parent].info.run_id
            if wanted.parent == self._plan_id:
                samples = telemetry.filter(pl.col("dataset") == wanted.name)
                self._write_telemetry(run, system_points(samples))
            if wanted.model:
                self._write_model(run, wanted.model)
            for name, text in wanted.texts.items():
                self._write_file(run, name, text.encode())
            if not wanted.parent:
                for path in (self._layout.plan_file(self._plan_id, name) for name in _PLAN_FILES):
                    if path.exists():
                        self._write_file(run, path.name, path.read_bytes())
            self._write_content(run, wanted, events[-1].position)
        shown = int(runs[self._plan_id].data.tags.get(POSITION, -1))
        return [event for event in events if event.position > shown]

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
        self._write_captures(run, wanted.captures)
        note = with_own_words(self._with_link(run, wanted), there.get(MLFLOW_RUN_NOTE, ""))
        told = wanted.tags | {MLFLOW_RUN_NOTE: note}
        tags = {name: value for name, value in told.items() if there.get(name) != value}
        for name in there:
            if name.startswith(RECOMMENDED) and name not in wanted.tags:
                self._client.delete_tag(run_id, name)
        self._write_end(run, wanted)
        if position > after:
            tags[POSITION] = str(position)
        for named in _batches([RunTag(name, value) for name, value in tags.items()], _MAX_PARAMS_OR_TAGS):
            self._client.log_batch(run_id, tags=named)

    def _with_link(self, run: Run, wanted: RunContent) -> str:
        """What a run is in words; a plan's leads to its dashboard."""
        path = self._layout.plan_file(self._plan_id, "dashboard.html")
        if wanted.parent or not path.exists():
            return wanted.note
        page = f"#/experiments/{self._experiment}/runs/{run.info.run_id}/artifacts/{path.name}"
        first, _, rest = wanted.note.partition("\n\n")
        return f"{first} **[Open the dashboard]({page})**\n\n{rest}"

    def _write_captures(self, run: Run, captures: Sequence[Captures]) -> None:
        """What the run read, as MLflow's datasets; those that are there are left as they are."""
        used = run.inputs.dataset_inputs if run.inputs else []
        there = {(given.dataset.name, given.dataset.digest) for given in used}
        inputs = [_dataset_input(read) for read in captures]
        missing = [i for i in inputs if (i.dataset.name, i.dataset.digest) not in there]
        if missing:
            self._client.log_inputs(run.info.run_id, datasets=missing)

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
        if run.data.tags.get(EXPORTED) == exported:
            return
        with self._model_file(saved) as path:
            state = self._export(run, path, saved.sha256) or exported
        if run.data.tags.get(EXPORTED) != state:
            self._client.set_tag(run.info.run_id, EXPORTED, state)

    @contextmanager
    def _model_file(self, saved: ModelSaved) -> Iterator[Path]:
        """A model's file, or a copy of what is shared where the one here is another."""
        path, files = model_path(self._layout, saved), shared_files(self._layout)
        if files is None or (path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == saved.sha256):
            yield path
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            with suppress(ArtifactError):
                copy.write_bytes(files.read_model(saved))
            yield copy

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


def _dataset_input(captures: Captures) -> DatasetInput:
    sizes = {"num_captures": captures.num_captures, "num_bytes": captures.num_bytes}
    dataset = Dataset(
        name=captures.name,
        digest=captures.digest[:MAX_DATASET_DIGEST_SIZE],
        source_type="local",
        source=json.dumps({"uri": captures.folder}),
        profile=json.dumps(sizes),
    )
    return DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, captures.used_for)])


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


def open_experiment(uri: str, name: str, artifacts: str | None) -> tuple[MlflowClient, str]:
    """Reach MLflow and find the experiment that plans are part of.

    Args:
        uri: MLflow's tracking URI.
        name: Name of the experiment; made if it is not there.
        artifacts: Where a new experiment's artifacts go; None leaves that to MLflow's server.

    Returns:
        A client, and the experiment's id.

    Raises:
        *STORE_ERRORS: MLflow cannot be reached or refuses.
    """
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client, client.create_experiment(name, artifacts, dict(_EXPERIMENT))
        except MlflowException as error:
            found = client.get_experiment_by_name(name)  # made by another plan, just now
            if found is None or error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
    for tag, value in _EXPERIMENT.items():
        if tag not in found.tags:
            client.set_experiment_tag(found.experiment_id, tag, value)
    return client, str(found.experiment_id)


def _batches(values: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    return (values[start : start + size] for start in range(0, len(values), size))
