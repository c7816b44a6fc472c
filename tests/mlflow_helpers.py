"""Plans to project, stores to project them to, and what is in a store afterwards."""

import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from core.events.catalogue import (
    CheckpointWritten,
    EpochFinished,
    ModelSaved,
    PlanCreated,
    ThresholdCalibrated,
)
from core.events.event import Event
from core.events.log import EventLog
from settings.layout import Layout
from settings.tracking import TrackingSettings
from tests.commands import BUSY_S, answers, environment, free_port, wait_for
from tests.sample_log import FOLDERS, PLAN_ID, sample_events, write_telemetry

_OF_EPOCHS = {EpochFinished.TYPE, CheckpointWritten.TYPE}
_DATASETS = """
SELECT d.name, d.digest, d.dataset_source, d.dataset_source_type, t.value
FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id JOIN input_tags t ON t.input_uuid = i.input_uuid
WHERE i.destination_id = ?
"""
_VOLATILE = ("can_retrain.version", "mlflow.user")


def sample_plan(output_dir: Path, plan_id: str = PLAN_ID, seed: int = 7) -> list[Event]:
    """A finished plan with telemetry and the files that are made of it."""
    events = sample_events(plan_id, seed=seed, scores=PLAN_ID)
    layout = Layout(output_dir)
    EventLog(layout.events).append(events)
    write_telemetry(layout.telemetry, events)
    layout.plan_file(plan_id, "results.json").write_text('{"status": "failed"}')
    layout.plan_file(plan_id, "dashboard.html").write_text("<html></html>")
    return events


def sample_history(output_dir: Path, *scores: float) -> list[str]:
    """Plans a day apart, each of which trained every model anew; the second dataset's fusion always failed.
    Epochs are left out: they are most of a log, and no version depends on them.

    Args:
        output_dir: Where to.
        scores: Validation MCC of all models, a plan each.

    Returns:
        The plans.
    """
    plans = [f"plan-{number:02}" for number in range(1, len(scores) + 1)]
    for number, (plan_id, score) in enumerate(zip(plans, scores, strict=True)):
        events = sample_events(plan_id, folders=FOLDERS[:1], seed=number)
        kept = [_retrained(event, number, score) for event in events if event.type not in _OF_EPOCHS]
        EventLog(Layout(output_dir).events).append(kept)
    return plans


def _retrained(event: Event, number: int, score: float) -> Event:
    """An event as it happens in the plan of that number."""
    payload = dict(event.payload)
    if event.type == ModelSaved.TYPE:
        name = f"{payload['dataset']}/{number}/"
        parent = {"student": "teacher", "fusion": "student"}.get(payload["phase"])
        payload["sha256"] = hashlib.sha256(f"{name}{payload['phase']}".encode()).hexdigest()
        payload["parent_sha256"] = hashlib.sha256(f"{name}{parent}".encode()).hexdigest() if parent else ""
    if event.type == ThresholdCalibrated.TYPE:
        payload["val_mcc"] = score
    if event.type == PlanCreated.TYPE:
        code = {"code_version": "1.2.3", "code_commit": f"{number:040x}"}
        payload["machine"] = payload["machine"] | code
    return event._replace(payload=payload, occurred_at=event.occurred_at + timedelta(days=number))


def empty_store(folder: Path, template: Path) -> TrackingSettings:
    """A SQLite store without runs, at a copy's price."""
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / "store.db"
    shutil.copyfile(template, database)
    return TrackingSettings(mlflow_uri=f"sqlite:///{database}")


def make_template(folder: Path) -> Path:
    """An empty SQLite store to copy: MLflow takes seconds to make one."""
    from tasks.mlflow_writer import create_database

    create_database(folder / "template.db", folder / "mlartifacts")
    return folder / "template.db"


@contextmanager
def mlflow_server(folder: Path, template: Path) -> Iterator[str]:
    """A real MLflow server on loopback with its database at ``{folder}/store.db``; yields its address."""
    empty_store(folder, template)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
            "--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'store.db'}",
            "--artifacts-destination", str(folder / "server-artifacts"),
        ],
        env=environment(DO_NOT_TRACK="true", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(lambda: server.poll() is not None or answers(url))
        assert server.poll() is None
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def patient(project: Callable[..., int], *arguments: Path | str | TrackingSettings | float) -> None:
    """Project in a process of its own, which waits for a server that is busy."""
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(round(BUSY_S))
    project(*arguments)


def content(folder: Path) -> dict[str, dict[str, Any]]:
    """All that ``{folder}/store.db`` and its artifacts hold, by run key; two runs of one key are an error."""
    found: dict[str, dict[str, Any]] = {}
    with closing(sqlite3.connect(folder / "store.db")) as database:
        tags: dict[str, dict[str, str]] = {}
        for run_id, name, value in database.execute("SELECT run_uuid, key, value FROM tags"):
            tags.setdefault(run_id, {})[name] = value
        runs = database.execute(
            "SELECT run_uuid, status, start_time, end_time, artifact_uri FROM runs "
            "WHERE lifecycle_stage = 'active'"
        ).fetchall()
        for run_id, status, began_ms, ended_ms, artifacts in runs:
            of_run = {name: value for name, value in tags[run_id].items() if name not in _VOLATILE}
            if parent := of_run.pop("mlflow.parentRunId", None):
                of_run["parent"] = tags[parent]["can_retrain.key"]
            key = of_run["can_retrain.key"]
            if note := of_run.get("mlflow.note.content"):
                of_run["mlflow.note.content"] = note.replace(run_id, key)
            assert key not in found
            found[key] = {
                "run_id": run_id,
                "run": (status, began_ms, ended_ms),
                "tags": of_run,
                "params": dict(_rows(database, "key, value", "params", run_id)),
                "metrics": sorted(_rows(database, "key, step, timestamp, value", "metrics", run_id)),
                "artifacts": _artifacts(folder, artifacts),
                "datasets": sorted(database.execute(_DATASETS, [run_id])),
            }
    return found


def registry(folder: Path) -> dict[str, dict[str, Any]]:
    """All registered models that ``{folder}/store.db`` holds; a run is named by its key."""
    with closing(sqlite3.connect(folder / "store.db")) as database:

        def by_version(columns: str, table: str) -> dict[tuple[str, str], list[Any]]:
            rows: dict[tuple[str, str], list[Any]] = {}
            for name, version, *rest in database.execute(f"SELECT name, version, {columns} FROM {table}"):  # noqa: S608
                rows.setdefault((name, str(version)), []).append(tuple(rest))
            return rows

        keys = dict(database.execute("SELECT run_uuid, value FROM tags WHERE key = 'can_retrain.key'"))
        tags = by_version("key, value", "model_version_tags")
        models = {
            name: {"description": description, "versions": {}, "aliases": {}, "tags": {}}
            for name, description in database.execute("SELECT name, description FROM registered_models")
        }
        for name, key, value in database.execute("SELECT name, key, value FROM registered_model_tags"):
            models[name]["tags"][key] = value
        for (name, version), rows in by_version("alias", "registered_model_aliases").items():
            models[name]["aliases"] |= {alias: version for (alias,) in rows}
        columns = "source, run_id, description, current_stage"
        for (name, version), ((source, run_id, description, stage),) in by_version(
            columns, "model_versions"
        ).items():
            if stage != "Deleted_Internal":
                models[name]["versions"][version] = {
                    "run": keys[run_id],
                    "source": source.rpartition(run_id)[2],
                    "description": description,
                    "tags": dict(tags[name, version]),
                }
        return models


def without_ids(runs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Content that can be compared with another store's."""
    return {key: {name: v for name, v in run.items() if name != "run_id"} for key, run in runs.items()}


def _rows(database: sqlite3.Connection, columns: str, table: str, run_id: str) -> list[Any]:
    return database.execute(f"SELECT {columns} FROM {table} WHERE run_uuid = ?", [run_id]).fetchall()  # noqa: S608


def _artifacts(folder: Path, uri: str) -> dict[str, str]:
    parts = urlsplit(uri)
    root = (
        folder / "server-artifacts" / parts.path.lstrip("/") if parts.scheme != "file" else Path(parts.path)
    )
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }
