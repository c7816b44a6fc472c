"""MLflow as one more projection of the log: one writer, in batches, resumable by position, idempotent.

Training never talks to MLflow; when MLflow is away, the same call catches up later.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from core.events.catalogue import (
    ChainFinished,
    ChainStarted,
    EpochFinished,
    Fact,
    ModelEvaluated,
    PhaseFailed,
    PhaseFinished,
    PhaseStarted,
    PlanCreated,
    PlanFinished,
    to_fact,
)
from core.events.event import Event
from core.events.log import EventLog
from settings.errors import RetrainError
from settings.layout import Layout
from settings.tracking import TrackingSettings

POSITION = "can_retrain.position"
KEY = "can_retrain.key"
_STATUS = {"completed": "FINISHED", "failed": "FAILED"}
_MAX_METRICS, _MAX_PARAMS = 1000, 100


def project_to_mlflow(output_dir: Path, plan_id: str, tracking: TrackingSettings) -> int:
    """Bring MLflow up to date with a plan: nested runs plan > dataset > phase.

    Args:
        output_dir: The plan's output directory.
        plan_id: The plan.
        tracking: Where MLflow is.

    Returns:
        Number of events projected now; 0 if MLflow was up to date.

    Raises:
        mlflow.exceptions.MlflowException: MLflow cannot be reached or refuses.
    """
    layout = Layout(output_dir)
    client = MlflowClient(tracking.mlflow_uri or f"sqlite:///{(layout.root / 'mlflow.db').resolve()}")
    all_events = EventLog(layout.events).read(plan_id)
    if not all_events:
        return 0
    runs = _Runs(client, tracking.experiment, layout.root / "mlartifacts", plan_id)
    plan_run = runs.get(plan_id, _ms(all_events[0]))
    events = all_events[int(plan_run.data.tags.get(POSITION, -1)) + 1 :]
    if not events:
        return 0
    metrics: dict[str, list[Metric]] = defaultdict(list)
    for event in events:
        fact, at_ms = to_fact(event), _ms(event)
        runs.follow(fact, at_ms)
        for key, name, value, step in _metrics_of(fact, plan_id):
            metrics[key].append(Metric(name, value, at_ms, step))
    for key, values in metrics.items():
        run_id = runs.get(key).info.run_id
        for batch in _batches(values, _MAX_METRICS):
            client.log_batch(run_id, metrics=batch)
    for batch in _batches(list(_params_of(events)), _MAX_PARAMS):
        client.log_batch(plan_run.info.run_id, params=batch)
    client.set_tag(plan_run.info.run_id, POSITION, str(events[-1].position))
    return len(events)


def catch_up(output_dir: Path, tracking: TrackingSettings) -> int:
    """Bring MLflow up to date with every plan of an output directory.

    Returns:
        Number of events projected now.

    Raises:
        RetrainError: MLflow cannot be reached or refuses; the log is untouched.
    """
    try:
        plans = EventLog(Layout(output_dir).events).streams()
        return sum(project_to_mlflow(output_dir, plan_id, tracking) for plan_id in plans)
    except MlflowException as error:
        raise RetrainError(f"MLflow is not up to date, the same command catches up later: {error}") from error


def _ms(event: Event) -> int:
    return int(event.occurred_at.timestamp() * 1000)


class _Runs:
    """MLflow runs by key ``plan``, ``plan/dataset`` or ``plan/dataset/phase``, made when first asked for."""

    def __init__(self, client: MlflowClient, experiment: str, artifacts: Path, plan_id: str) -> None:
        self._client, self._plan_id = client, plan_id
        found = client.get_experiment_by_name(experiment)
        self._experiment = (
            found.experiment_id
            if found
            else client.create_experiment(experiment, artifact_location=artifacts.resolve().as_uri())
        )
        self._runs: dict[str, Run] = {}

    def get(self, key: str, began_ms: int | None = None) -> Run:
        if key not in self._runs:
            found = self._client.search_runs([self._experiment], f"tags.`{KEY}` = '{key}'", max_results=1)
            self._runs[key] = found[0] if found else self._create(key, began_ms)
        return self._runs[key]

    def follow(self, fact: Fact, at_ms: int) -> None:
        """Begin and end runs as plans, chains and phases do."""
        key, status = self._plan_id, "FINISHED"
        match fact:
            case PhaseStarted():
                self.get(f"{key}/{fact.dataset}/{fact.phase}", at_ms)
                return
            case ChainStarted():
                self.get(f"{key}/{fact.dataset}", at_ms)
                return
            case PhaseFinished() | PhaseFailed():
                key = f"{key}/{fact.dataset}/{fact.phase}"
                status = "FAILED" if isinstance(fact, PhaseFailed) else status
            case ChainFinished():
                key, status = f"{key}/{fact.dataset}", _STATUS[fact.status]
            case PlanFinished():
                status = _STATUS[fact.status]
            case _:
                return
        self._client.set_terminated(self.get(key, at_ms).info.run_id, status, at_ms)

    def _create(self, key: str, began_ms: int | None) -> Run:
        parent, _, name = key.rpartition("/")
        tags = {KEY: key, MLFLOW_RUN_NAME: name}
        if parent:
            tags[MLFLOW_PARENT_RUN_ID] = self.get(parent, began_ms).info.run_id
        return self._client.create_run(self._experiment, start_time=began_ms, tags=tags)


def _metrics_of(fact: Fact, plan_id: str) -> Iterator[tuple[str, str, float, int]]:
    """Metrics of one fact: run key, name, value, step."""
    match fact:
        case EpochFinished():
            key = f"{plan_id}/{fact.dataset}/{fact.phase}"
            for name in (
                "train_loss",
                "val_loss",
                "val_metric",
                "learning_rate",
                "graphs_per_s",
                "duration_s",
            ):
                if (value := getattr(fact, name)) is not None:
                    yield key, f"{fact.model}/{name}", float(value), fact.epoch
        case PhaseFinished():
            key = f"{plan_id}/{fact.dataset}/{fact.phase}"
            yield key, "duration_s", fact.duration_s, fact.attempt
            yield key, "peak_memory_mib", fact.peak_memory_mib, fact.attempt
        case ModelEvaluated():
            for name, value in fact.metrics.items():
                if value is not None:
                    yield f"{plan_id}/{fact.dataset}", f"{fact.model}/{fact.folder}/{name}", float(value), 0
        case _:
            return


def _params_of(events: Iterable[Event]) -> Iterator[Param]:
    for event in events:
        if event.type == PlanCreated.TYPE:
            yield from (Param(name, str(value)[:6000]) for name, value in _flat(event.payload["settings"]))


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _batches(values: list[Any], size: int) -> Iterator[list[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))
