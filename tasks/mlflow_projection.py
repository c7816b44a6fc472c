"""MLflow as one more projection of the log: one writer, in batches, resumable by position, idempotent.

Training never talks to MLflow; when MLflow is away, the same call catches up later.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from core.events.catalogue import EpochFinished, Fact, ModelEvaluated, PhaseFinished, PlanCreated, to_fact
from core.events.event import Event
from core.events.log import EventLog
from settings.layout import Layout
from settings.tracking import TrackingSettings

POSITION = "can_retrain.position"
KEY = "can_retrain.key"
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
    runs = _Runs(client, tracking.experiment, layout.root / "mlartifacts")
    plan_run = runs.get(plan_id)
    events = EventLog(layout.events).read(plan_id, after=int(plan_run.data.tags.get(POSITION, -1)))
    if not events:
        return 0
    metrics: dict[str, list[Metric]] = defaultdict(list)
    for event in events:
        for key, name, value, step in _metrics_of(to_fact(event), plan_id):
            metrics[key].append(Metric(name, value, int(event.occurred_at.timestamp() * 1000), step))
    for key, values in metrics.items():
        run_id = runs.get(key).info.run_id
        for batch in _batches(values, _MAX_METRICS):
            client.log_batch(run_id, metrics=batch)
    for batch in _batches(list(_params_of(events)), _MAX_PARAMS):
        client.log_batch(plan_run.info.run_id, params=batch)
    client.set_tag(plan_run.info.run_id, POSITION, str(events[-1].position))
    return len(events)


class _Runs:
    """MLflow runs by key ``plan``, ``plan/dataset`` or ``plan/dataset/phase``, made when first asked for."""

    def __init__(self, client: MlflowClient, experiment: str, artifacts: Path) -> None:
        self._client = client
        found = client.get_experiment_by_name(experiment)
        self._experiment = (
            found.experiment_id
            if found
            else client.create_experiment(experiment, artifact_location=artifacts.resolve().as_uri())
        )
        self._runs: dict[str, Run] = {}

    def get(self, key: str) -> Run:
        if key not in self._runs:
            found = self._client.search_runs([self._experiment], f"tags.`{KEY}` = '{key}'", max_results=1)
            self._runs[key] = found[0] if found else self._create(key)
        return self._runs[key]

    def _create(self, key: str) -> Run:
        parent, _, name = key.rpartition("/")
        tags = {KEY: key, MLFLOW_RUN_NAME: name}
        if parent:
            tags[MLFLOW_PARENT_RUN_ID] = self.get(parent).info.run_id
        return self._client.create_run(self._experiment, tags=tags)


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
