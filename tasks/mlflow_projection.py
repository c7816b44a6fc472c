"""MLflow as one more projection of the log: one writer, in batches, resumable by position, idempotent.

Training never talks to MLflow; when MLflow is away, slow or locked, the same call catches up later. MLflow
itself is loaded when its store is known to be free.
"""

import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from core.analytics.versions import DECIDED_BY
from core.errors import EventLogError
from core.events.open import open_log
from core.planning.shared.lock import HeldError, acquire
from settings.errors import RetrainError
from settings.layout import Layout
from settings.tracking import TrackingSettings

if TYPE_CHECKING:
    from mlflow import MlflowClient

PATIENCE_S = 30.0
"""Seconds to wait for another process that writes to the same store."""

_UNLOCKED_WITHIN_S = 5.0
_DEFAULTS = {
    # MLflow would wait for 120 s, eight times over; what fails here is tried again as a whole.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    # What goes wrong is raised, and said once.
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # Nothing is ever sent to anyone.
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def project_to_mlflow(
    output_dir: Path,
    plan_id: str,
    tracking: TrackingSettings,
    patience_s: float = PATIENCE_S,
    *,
    in_passing: bool = False,
) -> int:
    """Bring MLflow up to date with a plan: nested runs plan > dataset > phase, and registered models.

    Args:
        output_dir: The plan's output directory.
        plan_id: The plan.
        tracking: Where MLflow is.
        patience_s: Seconds to wait for another process that writes to the same store.
        in_passing: Look at registered models only if something happened to the plan's models, as all plans
            have to be read for that.

    Returns:
        Number of events projected now; 0 if MLflow was up to date.

    Raises:
        RetrainError: MLflow cannot be reached, is locked or refuses, or the log cannot be read.
    """
    layout = Layout(output_dir)
    with _opened(layout, tracking, patience_s) as (client, experiment_id):
        from tasks.mlflow_writer import PlanWriter

        events = PlanWriter(client, experiment_id, layout, plan_id).write()
        if not in_passing or any(event.type in DECIDED_BY for event in events):
            _register(client, experiment_id, layout)
        return len(events)


def catch_up(output_dir: Path, tracking: TrackingSettings, left_out: Collection[str] = ()) -> int:
    """Bring MLflow up to date with every plan of an output directory.

    Args:
        output_dir: The output directory.
        tracking: Where MLflow is.
        left_out: Plans that cannot be read; while there are any, registered models stay as they are.

    Returns:
        Number of events projected now.

    Raises:
        RetrainError: As of `project_to_mlflow`; the log is untouched.
    """
    layout = Layout(output_dir)
    num_events = 0
    for plan_id in open_log(layout).streams():
        if plan_id not in left_out:
            # Each on its own, so that others who wait for the same store get their turn.
            with _opened(layout, tracking, PATIENCE_S) as (client, experiment_id):
                from tasks.mlflow_writer import PlanWriter

                num_events += len(PlanWriter(client, experiment_id, layout, plan_id).write())
    if not left_out:
        with _opened(layout, tracking, PATIENCE_S) as (client, experiment_id):
            _register(client, experiment_id, layout)
    return num_events


def _register(client: "MlflowClient", experiment_id: str, layout: Layout) -> None:
    from tasks.mlflow_registry import register_models

    try:
        register_models(client, experiment_id, layout)
    except EventLogError as error:
        raise RetrainError(f"models are not registered in MLflow, runs are: {error}") from error


@contextmanager
def _opened(
    layout: Layout, tracking: TrackingSettings, patience_s: float
) -> Iterator[tuple["MlflowClient", str]]:
    """MLflow's client and the experiment's id, for this process alone."""
    uri = tracking.mlflow_uri.get_secret_value() or f"sqlite:///{(layout.root / 'mlflow.db').resolve()}"
    database = Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None
    with ExitStack() as held:
        try:
            for lock in _locks(layout, database):
                lock.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(acquire(lock, patience_s))
            if database:
                _require_unlocked(database)
        except (HeldError, OSError, sqlite3.Error) as error:
            raise _behind(error, uri) from error
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        from tasks.mlflow_writer import STORE_ERRORS, create_database, open_experiment

        artifacts = (database.parent if database else layout.root.resolve()) / "mlartifacts"
        on_server = uri.startswith(("http://", "https://"))
        try:
            if database and not _is_there(database):
                create_database(database, artifacts)
            yield open_experiment(uri, tracking.experiment, None if on_server else artifacts.as_uri())
        except STORE_ERRORS as error:
            raise _behind(error, uri) from None  # the cause may name the password


def _locks(layout: Layout, database: Path | None) -> Iterator[Path]:
    """One writer for an output directory, and one for a database file: SQLite allows no second one."""
    yield layout.root / ".mlflow.lock"
    if database:
        yield database.with_name(f"{database.name}.lock")


def _require_unlocked(database: Path) -> None:
    """Wait a moment for a stranger's transaction to end: MLflow would wait for minutes.

    Raises:
        sqlite3.Error: It did not end, or this is no database.
    """
    if _is_there(database):
        with closing(sqlite3.connect(database, timeout=_UNLOCKED_WITHIN_S)) as connection:
            connection.execute("BEGIN IMMEDIATE")


def _is_there(database: Path) -> bool:
    """Whether a database file holds anything."""
    return database.exists() and database.stat().st_size > 0


def _behind(error: Exception, uri: str) -> RetrainError:
    reason = str(error).partition("\n")[0]
    if "@" in uri and (password := urlsplit(uri).password):
        reason = reason.replace(password, "***")
    return RetrainError(f"MLflow is not up to date; python -m flows.analyze catches up later: {reason}")
