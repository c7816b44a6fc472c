"""MLflow follows the log: nested runs, once each, however often and in whatever pieces it is caught up."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from core.events.catalogue import (
    CATALOGUE,
    CapturesDigested,
    ChainStarted,
    EpochFinished,
    Fact,
    ModelEvaluated,
    ModelSaved,
    PhaseFinished,
    PhaseStarted,
    PlanCreated,
    to_event,
)
from core.events.log import EventLog
from core.events.resource_facts import ConfigRecommended
from core.events.telemetry import ResourceSample, TelemetryWriter
from core.planning.coordinator import RetrainingCoordinator
from settings.app import load_settings
from settings.errors import RetrainError
from settings.layout import Layout
from settings.tracking import TrackingSettings
from tests.commands import config, run
from tests.mlflow_helpers import content, empty_store, make_template, mlflow_server, sample_plan, without_ids
from tests.sample_log import PLAN_ID, START

# MLflow and alembic warn about each other.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

PLAN = "20260101-000000-abcd"
Project = Callable[..., int]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def store(tmp_path: Path, template: Path) -> TrackingSettings:
    return empty_store(tmp_path, template)


@pytest.fixture
def project() -> Project:
    from tasks.mlflow_projection import project_to_mlflow

    return project_to_mlflow


def epoch(number: int, loss: float, dataset: str = "car") -> Fact:
    return EpochFinished(
        dataset=dataset,
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


def created() -> Fact:
    settings = load_settings().model_dump(mode="json", exclude={"tracking"})
    return PlanCreated(steps=[], settings=settings, machine={}, force=False, previous=[])


def started(attempt: int = 1) -> Fact:
    return PhaseStarted(
        dataset="car", phase="teacher", attempt=attempt, device="cpu", precision="fp32", micro_batch_size=8
    )


def append(output_dir: Path, *facts: Fact) -> None:
    EventLog(Layout(output_dir).events).append([to_event(PLAN, fact) for fact in facts])


def curve(run: dict[str, Any], metric: str) -> list[tuple[int, float]]:
    return [(step, value) for name, step, _, value in run["metrics"] if name == metric]


def test_a_plan_becomes_nested_runs_and_catches_up_without_repeating_itself(
    tmp_path: Path, store: TrackingSettings, project: Project
) -> None:
    append(tmp_path, created(), epoch(0, 0.9), epoch(1, 0.5))
    assert project(tmp_path, PLAN, store) == 3
    assert project(tmp_path, PLAN, store) == 0
    append(
        tmp_path,
        epoch(2, 0.4),
        PhaseFinished(dataset="car", phase="teacher", attempt=1, duration_s=9.0, peak_memory_mib=100.0),
        ModelEvaluated(dataset="car", model="fusion", folder="test_01", metrics={"f1": 0.5, "auroc": None}),
    )
    assert project(tmp_path, PLAN, store) == 3

    runs = content(tmp_path)
    assert {key: of_run["tags"].get("parent") for key, of_run in runs.items()} == {
        PLAN: None,
        f"{PLAN}/car": PLAN,
        f"{PLAN}/car/teacher": f"{PLAN}/car",
    }
    assert curve(runs[f"{PLAN}/car/teacher"], "teacher_gat/train_loss") == [(0, 0.9), (1, 0.5), (2, 0.4)]
    assert curve(runs[f"{PLAN}/car"], "fusion/test_01/f1") == [(0, 0.5)]
    assert curve(runs[f"{PLAN}/car"], "fusion/test_01/auroc") == []
    assert runs[PLAN]["params"]["training.epochs"] == "10"


def test_everything_that_is_known_of_a_plan_is_shown(
    tmp_path: Path, store: TrackingSettings, project: Project
) -> None:
    events = sample_plan(tmp_path / "out")
    assert project(tmp_path / "out", PLAN_ID, store) == len(events)
    runs = content(tmp_path)

    plan = runs[PLAN_ID]
    began_ms = int(START.timestamp() * 1000)
    assert plan["run"] == ("FAILED", began_ms, int(events[-1].occurred_at.timestamp() * 1000))
    assert plan["tags"]["can_retrain.machine.device_name"] == "NVIDIA GeForce RTX 3090"
    assert plan["tags"]["recommended.training.batch_size"] == "4096"
    assert set(plan["artifacts"]) == {
        "recommended_settings.yaml", f"{PLAN_ID}_dashboard.html", f"{PLAN_ID}_results.json",
    }  # fmt: skip

    epochs = [e for e in events if e.type == EpochFinished.TYPE and e.payload["model"] == "student_gat"]
    of_first = [e for e in epochs if e.payload["dataset"] == "hcrl_sa"]
    student = runs[f"{PLAN_ID}/hcrl_sa/student"]
    learning = {name: name for name in ("train_loss", "val_loss", "learning_rate")} | {
        "val_metric": "val_mcc"
    }
    speed = {name: f"speed/{name}" for name in ("graphs_per_s", "data_wait_s")}
    for name, title in (learning | speed).items():
        assert [m for m in student["metrics"] if m[0] == f"student_gat/{title}"] == sorted(
            (
                f"student_gat/{title}",
                e.payload["epoch"],
                int(e.occurred_at.timestamp() * 1000),
                e.payload[name],
            )
            for e in of_first
        )
    curves = ("data_load_s", "num_packs", "num_workers", "prefetch_factor", "num_adjustments", "gpu_percent",
              "ram_percent")  # fmt: skip
    for name in curves:
        told = {(e.payload["epoch"], e.payload[name]) for e in of_first}
        assert set(curve(student, f"student_gat/speed/{name}")) == told
    assert student["tags"]["can_retrain.student_gat/num_workers"] == "10"
    assert student["tags"]["can_retrain.student_gat/prefetch_factor"] == "4"
    assert student["tags"]["can_retrain.placement"] == "pinned"
    assert curve(student, "student_gat/summary/num_parameters") == [(0, 55_000.0)]
    # Two adjustments in either attempt, by their number.
    assert curve(student, "student_gat/adjustment/num_workers") == list(enumerate([9.0, 10.0] * 2))
    teacher = runs[f"{PLAN_ID}/hcrl_sa/teacher"]
    assert json.loads(teacher["tags"]["can_retrain.teacher_vgae/pack_limit"])["graphs"] == 241
    assert student["tags"]["can_retrain.attempts"] == "2"
    assert student["tags"]["can_retrain.retries"] == "1"
    assert student["tags"]["can_retrain.failure"] == "cuda_oom"
    assert student["tags"]["can_retrain.model"].startswith("missing")
    assert [step for step, _ in curve(student, "duration_s")] == [2]
    assert len(curve(student, "peak_memory_mib")) == 1

    assert runs[f"{PLAN_ID}/set_01/fusion"]["run"][0] == "FAILED"
    assert f"{PLAN_ID}/set_01/evaluation" not in runs
    assert runs[f"{PLAN_ID}/set_01"]["tags"]["can_retrain.not_reached.evaluation"] == "fusion failed"
    (used,) = runs[f"{PLAN_ID}/hcrl_sa/evaluation"]["datasets"]
    digested = next(e.payload for e in events if e.type == CapturesDigested.TYPE)
    assert used[:2] == ("hcrl_sa", digested["data_digest"][:36])
    assert json.loads(used[2]) == {"uri": "data/hcrl_sa"}
    assert used[3:] == ("local", "evaluation")
    assert [name for name, *_ in plan["datasets"]] == ["hcrl_sa", "set_01"]
    assert plan["tags"]["mlflow.source.name"] == student["tags"]["mlflow.source.name"] == "flows.retrain"
    assert "Retraining plan, **failed** after" in plan["tags"]["mlflow.note.content"]
    assert f"artifacts/{PLAN_ID}_dashboard.html" in plan["tags"]["mlflow.note.content"]
    assert "attempt 1, cuda_oom: CUDA out of memory" in student["tags"]["mlflow.note.content"]

    tested = [e.payload for e in events if e.type == ModelEvaluated.TYPE]
    defined = sum(value is not None for payload in tested for value in payload["metrics"].values())
    shown = [m for m in runs[f"{PLAN_ID}/hcrl_sa"]["metrics"] if "/test_0" in m[0]]
    assert len(shown) == defined > 100


def test_resource_samples_are_mlflows_system_metrics_one_in_ten_seconds_as_they_were_measured(
    tmp_path: Path, store: TrackingSettings, project: Project
) -> None:
    sample_plan(tmp_path / "out")
    project(tmp_path / "out", PLAN_ID, store)
    metrics = content(tmp_path)[f"{PLAN_ID}/hcrl_sa"]["metrics"]
    assert {name for name, *_ in metrics if name.startswith("system/")} == {
        "system/cpu_utilization_percentage", "system/system_memory_usage_megabytes",
        "system/system_memory_usage_percentage", "system/process_memory_usage_megabytes",
        "system/disk_available_megabytes", "system/gpu_0_utilization_percentage",
        "system/gpu_0_memory_usage_megabytes", "system/gpu_0_memory_usage_percentage",
        "system/gpu_0_power_usage_watts", "system/gpu_0_temperature_celsius",
    }  # fmt: skip
    disk = [m for m in metrics if m[0] == "system/disk_available_megabytes"]
    began_ms = int(START.timestamp() * 1000)
    assert [at_ms - began_ms for _, _, at_ms, _ in disk] == [10_000 * step for _, step, _, _ in disk]
    assert disk[0][3] == pytest.approx(410_000 * 1.048576)


def test_resource_samples_are_added_once_in_order_and_also_when_some_come_late(
    tmp_path: Path, store: TrackingSettings, project: Project
) -> None:
    append(tmp_path, created(), ChainStarted(dataset="car"))
    (began, *_) = EventLog(Layout(tmp_path).events).read(PLAN)
    samples = [
        ResourceSample(occurred_at=began.occurred_at + timedelta(seconds=10 * n), cpu_percent=float(n))
        for n in range(1, 7)
    ]
    writer = TelemetryWriter(Layout(tmp_path).telemetry, PLAN, "car")
    for part in (samples[:1], samples[3:5], samples[1:3], samples[5:]):
        writer.write(part)
        project(tmp_path, PLAN, store)
        project(tmp_path, PLAN, store)
    shown = curve(content(tmp_path)[f"{PLAN}/car"], "system/cpu_utilization_percentage")
    assert shown == [(n, float(n)) for n in range(1, 7)]


def test_the_pieces_in_which_a_plan_is_projected_do_not_show(
    tmp_path: Path, template: Path, project: Project
) -> None:
    events = sample_plan(tmp_path / "whole")
    project(tmp_path / "whole", PLAN_ID, empty_store(tmp_path / "at_once", template))
    sample_plan(tmp_path / "empty")
    log = EventLog(Layout(tmp_path / "parts").events)
    store = empty_store(tmp_path / "in_parts", template)
    for start in range(0, len(events), 29):
        log.append(events[start : start + 29])
        project(tmp_path / "parts", PLAN_ID, store)
    sample_plan(tmp_path / "parts")  # appends nothing; adds telemetry and files
    project(tmp_path / "parts", PLAN_ID, store)
    assert without_ids(content(tmp_path / "in_parts")) == without_ids(content(tmp_path / "at_once"))


def test_a_real_server_shows_the_same(tmp_path: Path, template: Path, project: Project) -> None:
    sample_plan(tmp_path / "out")
    project(tmp_path / "out", PLAN_ID, empty_store(tmp_path / "sqlite", template))
    with mlflow_server(tmp_path / "server", template) as url:
        remote = TrackingSettings(mlflow_uri=url)
        assert project(tmp_path / "out", PLAN_ID, remote) > 0
        assert project(tmp_path / "out", PLAN_ID, remote) == 0
    assert without_ids(content(tmp_path / "server")) == without_ids(content(tmp_path / "sqlite"))


def test_a_run_deleted_in_mlflow_comes_back_whole_and_a_twin_is_removed(
    tmp_path: Path, store: TrackingSettings, project: Project
) -> None:
    from mlflow import MlflowClient

    append(tmp_path, created(), epoch(0, 0.9), epoch(1, 0.5))
    project(tmp_path, PLAN, store)
    before = without_ids(content(tmp_path))
    client = MlflowClient(store.mlflow_uri.get_secret_value())
    teacher = content(tmp_path)[f"{PLAN}/car/teacher"]["run_id"]
    client.delete_run(teacher)
    experiment = client.get_run(teacher).info.experiment_id
    for key in (PLAN, f"{PLAN}/car"):  # what a server does whose answer was lost
        client.create_run(experiment, tags={"can_retrain.key": key})
    client.create_run(experiment, tags={"can_retrain.key": f"{PLAN}-of-another-name"})
    project(tmp_path, PLAN, store)
    after = without_ids(content(tmp_path))
    assert after.pop(f"{PLAN}-of-another-name")["metrics"] == []
    assert after == before


def test_models_are_exported_without_pickle_and_bit_for_bit(
    tmp_path: Path, store: TrackingSettings, project: Project
) -> None:
    import torch

    from core.training import artifacts

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5))
    payload: dict[str, Any] = {
        "version": 1,
        "gat": net.state_dict(),
        "vgae": {
            "transposed": torch.randn(4, 2).t(),
            "half": torch.randn(3).bfloat16(),
            "none": torch.empty(0),
        },
        "thresholds": {"teacher_gat": [0.1 + 0.2, None]},
        "scaler": {"low": [1e-300, -0.0]},
    }
    path = Layout(tmp_path).saved_models / "best_teacher_model_car.pth"
    sha256 = artifacts.save(path, payload)
    saved = ModelSaved(
        dataset="car", phase="teacher", path=f"elsewhere/{path.name}", sha256=sha256, data_digest="d",
        settings_digest="s", parent_sha256="", num_parameters={"teacher_gat": 30},
    )  # fmt: skip
    append(tmp_path, created(), started(), saved)
    project(tmp_path, PLAN, store)
    project(tmp_path, PLAN, store)

    teacher = content(tmp_path)[f"{PLAN}/car/teacher"]
    assert set(teacher["artifacts"]) == {
        "model/best_teacher_model_car.safetensors", "model/best_teacher_model_car.json",
    }  # fmt: skip
    (folder,) = (tmp_path / "mlartifacts").glob("*/artifacts/model")
    tensors = load_file(folder / "best_teacher_model_car.safetensors")
    back = with_tensors(json.loads((folder / "best_teacher_model_car.json").read_text()), tensors)
    assert not tensors, "a tensor that nothing refers to"
    assert back.keys() == payload.keys()
    for part in ("gat", "vgae"):
        assert back[part].keys() == payload[part].keys()
        for name, tensor in payload[part].items():
            assert back[part][name].dtype == tensor.dtype
            assert torch.equal(back[part][name], tensor)
    assert {name: back[name] for name in ("version", "thresholds", "scaler")} == {
        name: payload[name] for name in ("version", "thresholds", "scaler")
    }


def with_tensors(value: Any, tensors: dict[str, Any]) -> Any:
    """A model's JSON with its tensors put back; each is used up."""
    if isinstance(value, dict):
        if value.keys() == {"tensor"}:
            return tensors.pop(value["tensor"])
        return {name: with_tensors(inner, tensors) for name, inner in value.items()}
    return value


@pytest.mark.parametrize(
    ("there", "state"),
    [(b"another plan's model", "replaced"), (b"no model", "unreadable"), (None, "missing")],
)
def test_a_model_file_that_is_no_longer_what_was_saved_is_said_and_no_error(
    tmp_path: Path, store: TrackingSettings, project: Project, there: bytes | None, state: str
) -> None:
    path = Layout(tmp_path).saved_models / "m.pth"
    path.parent.mkdir()
    if there is not None:
        path.write_bytes(there)
    saved = ModelSaved(
        dataset="car", phase="teacher", path=str(path), sha256=hashlib.sha256(b"no model").hexdigest(),
        data_digest="d", settings_digest="s", parent_sha256="", num_parameters={},
    )  # fmt: skip
    append(tmp_path, created(), saved)
    assert project(tmp_path, PLAN, store) == 2
    teacher = content(tmp_path)[f"{PLAN}/car/teacher"]
    assert teacher["tags"]["can_retrain.model"].startswith(state)
    assert teacher["artifacts"] == {}


def test_torch_is_loaded_only_when_there_is_a_model_to_export(tmp_path: Path, template: Path) -> None:
    sample_plan(tmp_path / "out")
    uri = empty_store(tmp_path, template).mlflow_uri.get_secret_value()
    loaded = subprocess.run(
        [
            sys.executable, "-c",
            "import sys; from pathlib import Path; from settings.tracking import TrackingSettings\n"
            "from tasks.mlflow_projection import project_to_mlflow\n"
            f"project_to_mlflow(Path({str(tmp_path / 'out')!r}), {PLAN_ID!r}, "
            f"TrackingSettings(mlflow_uri={uri!r}))\n"
            "print('mlflow' in sys.modules, 'torch' in sys.modules)",
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert loaded.stdout == "True False\n"


def test_folders_whose_names_mlflow_refuses_are_shown_under_names_of_their_own(
    tmp_path: Path, store: TrackingSettings, project: Project
) -> None:
    folders = ["a#b", "a?b", "..", "ü x", "x" * 300, "x" * 299 + "y", "quote'd"]
    append(
        tmp_path,
        created(),
        *(ModelEvaluated(dataset="c'ar", model="m", folder=f, metrics={"f1": 0.5}) for f in folders),
        epoch(0, 0.5, dataset="50 %_'x"),
    )
    project(tmp_path, PLAN, store)
    assert project(tmp_path, PLAN, store) == 0
    runs = content(tmp_path)
    assert len({name for name, *_ in runs[f"{PLAN}/c'ar"]["metrics"]}) == len(folders)
    assert f"{PLAN}/50 %_'x/teacher" in runs


def test_a_plan_that_goes_on_is_running_again_and_a_new_recommendation_takes_the_place_of_the_old(
    tmp_path: Path, store: TrackingSettings, project: Project
) -> None:
    finished = PhaseFinished(dataset="car", phase="teacher", attempt=1, duration_s=1.0, peak_memory_mib=1.0)
    old = ConfigRecommended(device_name="cpu", settings={"training": {"epochs": 5, "lr": 0.1}}, reasons=[])
    new = ConfigRecommended(device_name="cpu", settings={"training": {"epochs": 7}}, reasons=["why"])
    append(tmp_path, created(), started(), finished, old)
    project(tmp_path, PLAN, store)
    assert content(tmp_path)[f"{PLAN}/car/teacher"]["run"][0] == "FINISHED"
    append(tmp_path, started(attempt=2), new)
    project(tmp_path, PLAN, store)
    runs = content(tmp_path)
    assert runs[f"{PLAN}/car/teacher"]["run"][0] == "RUNNING"
    recommended = {n: v for n, v in runs[PLAN]["tags"].items() if n.startswith("recommended.")}
    assert recommended == {"recommended.training.epochs": "7"}
    (written,) = (tmp_path / "mlartifacts").glob("*/artifacts/recommended_settings.yaml")
    assert "why" in written.read_text()


def test_every_event_type_can_be_projected(tmp_path: Path, store: TrackingSettings, project: Project) -> None:
    sampled = {event.type for event in sample_plan(tmp_path / "out")}
    assert project(tmp_path / "out", PLAN_ID, store) > 0
    known = {"dataset": "car", "phase": "teacher", "model": "m", "path": "p", "remaining": [], "reason": "r"}
    unseen = [
        CATALOGUE[name](**{field.name: known.get(field.name) for field in fields(CATALOGUE[name])})
        for name in sorted(set(CATALOGUE) - sampled)
    ]
    append(tmp_path, created(), *unseen)
    assert project(tmp_path, PLAN, store) == 1 + len(unseen)


def test_no_secret_reaches_mlflow_or_an_error(
    tmp_path: Path, store: TrackingSettings, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAN_RETRAIN__TRACKING__MLFLOW_URI", "http://me:hunter2@127.0.0.1:9")
    settings = load_settings(output_dir=tmp_path, data={"demo": {"duration_s": 8.0}})
    coordinator = RetrainingCoordinator(settings)
    plan = coordinator.create_retraining_plan(datasets=["demo"])
    coordinator.begin(plan)
    with pytest.raises(RetrainError, match=r"me:\*\*\*@127.0.0.1") as raised:
        project(tmp_path, plan.plan_id, settings.tracking)
    assert "hunter2" not in f"{raised.value} {raised.value.__cause__}"
    project(tmp_path, plan.plan_id, store)
    shown = content(tmp_path)
    assert shown[plan.plan_id]["params"]["training.epochs"]
    assert "hunter2" not in json.dumps(shown)
    assert "hunter2" not in f"{settings!r} {settings.model_dump(mode='json')}"  # what Prefect shows of it


def test_the_analyze_command_catches_up_with_every_plan_and_says_in_one_line_that_it_could_not(
    tmp_path: Path, template: Path
) -> None:
    sample_plan(tmp_path / "out", "plan-1")
    arguments = ("flows.analyze", "--output-dir", str(tmp_path / "out"), "--config")
    away = run(*arguments, str(config(tmp_path, tracking={"mlflow_uri": "http://127.0.0.1:9"})))
    assert away.returncode == 1
    assert "MLflow is not up to date" in away.stderr
    assert "127.0.0.1" in away.stderr
    assert away.stderr.count("\n") == 1
    assert "plan-1_dashboard.html" in away.stdout
    quick = run(*arguments, str(tmp_path / "settings.yaml"), CAN_RETRAIN__ENVIRONMENT="ci")
    assert (quick.returncode, "MLflow" in quick.stdout + quick.stderr) == (0, False)

    sample_plan(tmp_path / "out", "plan-11")
    store = empty_store(tmp_path, template)
    settings = config(tmp_path, tracking={"mlflow_uri": store.mlflow_uri.get_secret_value()})
    there = run(*arguments, str(settings), "--plan", "plan-11")
    assert there.returncode == 0, there.stderr
    assert "events projected" in there.stdout
    runs = content(tmp_path)
    assert runs["plan-1"]["tags"]["can_retrain.position"] == runs["plan-11"]["tags"]["can_retrain.position"]
    assert len(runs) == 24
    assert {"plan-11_dashboard.png", "plan-11_dashboard.html"} <= set(runs["plan-11"]["artifacts"])
