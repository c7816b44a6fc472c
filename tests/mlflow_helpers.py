"""Plans to project, stores to project them to, and what is in a store afterwards."""

import hashlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from core.events.event import Event
from core.events.log import EventLog
from settings.layout import Layout
from settings.tracking import TrackingSettings
from tests.commands import answers, environment, wait_for
from tests.sample_log import PLAN_ID, sample_events, write_telemetry

_VOLATILE = ("can_retrain.version", "mlflow.user")


def sample_plan(output_dir: Path, plan_id: str = PLAN_ID, seed: int = 7) -> list[Event]:
    """A finished plan with telemetry and the files that are made of it."""
    events = sample_events(plan_id, seed=seed)
    layout = Layout(output_dir)
    EventLog(layout.events).append(events)
    write_telemetry(layout.telemetry, events)
    layout.plan_file(plan_id, "results.json").write_text('{"status": "failed"}')
    layout.plan_file(plan_id, "dashboard.html").write_text("<html></html>")
    return events


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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
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
            assert key not in found
            found[key] = {
                "run_id": run_id,
                "run": (status, began_ms, ended_ms),
                "tags": of_run,
                "params": dict(_rows(database, "key, value", "params", run_id)),
                "metrics": sorted(_rows(database, "key, step, timestamp, value", "metrics", run_id)),
                "artifacts": _artifacts(folder, artifacts),
            }
    return found


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
