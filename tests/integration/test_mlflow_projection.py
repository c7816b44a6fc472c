"""MLflow follows the log: nested runs, once each, however often it is brought up to date."""

from pathlib import Path

import pytest

from core.events.catalogue import EpochFinished, Fact, ModelEvaluated, PhaseFinished, PlanCreated, to_event
from core.events.log import EventLog
from settings.app import load_settings
from settings.layout import Layout
from settings.tracking import TrackingSettings

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

PLAN = "20260101-000000-abcd"


def epoch(number: int, loss: float) -> Fact:
    return EpochFinished(
        dataset="car",
        phase="teacher",
        model="teacher_gat",
        epoch=number,
        train_loss=loss,
        val_loss=loss + 0.1,
        val_metric=None,
        learning_rate=0.001,
        num_steps=50,
        duration_s=1.0,
        graphs_per_s=100.0,
        data_wait_s=0.0,
    )


def append(output_dir: Path, *facts: Fact) -> None:
    EventLog(Layout(output_dir).events).append([to_event(PLAN, fact) for fact in facts])


def test_a_plan_becomes_nested_runs_and_catches_up_without_repeating_itself(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    from tasks.mlflow_projection import project_to_mlflow

    settings = load_settings().model_dump(mode="json")
    append(
        tmp_path,
        PlanCreated(steps=[], settings=settings, machine={}, force=False, previous=None),
        epoch(0, 0.9),
        epoch(1, 0.5),
    )
    tracking = TrackingSettings()
    assert project_to_mlflow(tmp_path, PLAN, tracking) == 3
    assert project_to_mlflow(tmp_path, PLAN, tracking) == 0
    append(
        tmp_path,
        epoch(2, 0.4),
        PhaseFinished(dataset="car", phase="teacher", attempt=1, duration_s=9.0, peak_memory_mib=100.0),
        ModelEvaluated(dataset="car", model="fusion", folder="test_01", metrics={"f1": 0.5, "auroc": None}),
    )
    assert project_to_mlflow(tmp_path, PLAN, tracking) == 3

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("can-ids-retrain")
    assert experiment is not None
    runs = {run.data.tags["can_retrain.key"]: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {PLAN, f"{PLAN}/car", f"{PLAN}/car/teacher"}
    parent = runs[f"{PLAN}/car/teacher"].data.tags["mlflow.parentRunId"]
    assert parent == runs[f"{PLAN}/car"].info.run_id
    curve = client.get_metric_history(runs[f"{PLAN}/car/teacher"].info.run_id, "teacher_gat/train_loss")
    assert [(point.step, point.value) for point in curve] == [(0, 0.9), (1, 0.5), (2, 0.4)]
    assert runs[f"{PLAN}/car"].data.metrics == {"fusion/test_01/f1": 0.5}
    assert runs[PLAN].data.params["training.epochs"] == "10"


def test_mlflow_away_is_an_error_and_the_log_is_untouched(tmp_path: Path) -> None:
    from mlflow.exceptions import MlflowException

    from tasks.mlflow_projection import project_to_mlflow

    append(tmp_path, epoch(0, 0.9))
    before = EventLog(Layout(tmp_path).events).read(PLAN)
    (tmp_path / "a file").touch()
    away = TrackingSettings(mlflow_uri=f"sqlite:///{tmp_path}/a file/mlflow.db")
    with pytest.raises((MlflowException, OSError)):
        project_to_mlflow(tmp_path, PLAN, away)
    assert EventLog(Layout(tmp_path).events).read(PLAN) == before
