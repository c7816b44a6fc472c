"""The functions that scripts call."""

from pathlib import Path

import pytest

from core.events.catalogue import Fact, ModelSaved, PhaseFinished
from core.events.log import EventLog
from core.events.telemetry import read_telemetry
from core.planning.phases import MODEL_PHASES, PHASES
from core.planning.trainer import Trainer
from core.resources.environment import create_optimized_config
from settings.app import load_settings
from settings.layout import Layout

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


def test_a_dry_run_returns_what_would_run_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.retrain import run_complete_retraining

    car = tmp_path / "data" / "car"
    for folder in ("train_01_attack_free", "train_02_with_attacks", "test_01"):
        (car / folder).mkdir(parents=True)
        (car / folder / "a.csv").write_text("timestamp,arbitration_id,data_field,attack\n0.1,1A0,00,0\n")
    monkeypatch.setenv("CAN_RETRAIN__DATA__DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CAN_RETRAIN__DATA__DATASETS", '{"car": {"folder": "car"}}')
    monkeypatch.setenv("CAN_RETRAIN__OUTPUT_DIR", str(tmp_path / "out"))
    results = run_complete_retraining(dry_run=True)
    assert results.status == "unfinished"
    assert {phase.status for phase in results.datasets["car"].phases.values()} == {"pending"}
    assert not (tmp_path / "out").exists()


def test_a_trainer_trains_the_whole_chain_with_an_optimized_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.training.artifacts import load

    layout = Layout(tmp_path / "out")
    monkeypatch.setenv("CAN_RETRAIN__OUTPUT_DIR", str(layout.root))
    config = create_optimized_config("ci")
    config.write(tmp_path / "ci.yaml")
    assert load_settings(tmp_path / "ci.yaml") == config.settings
    seen: list[Fact] = []
    result = Trainer(config.settings).train_complete_pipeline("demo", 100, seen.append)
    assert result.status == "completed"
    assert {(phase.status, phase.device) for phase in result.phases.values()} == {("completed", "cpu")}
    assert result.models.keys() == set(MODEL_PHASES)
    assert [fact.phase for fact in seen if isinstance(fact, PhaseFinished)] == list(PHASES)
    assert all(folder["num_windows"] for folder in result.metrics["student_gat"].values())
    [teacher] = [fact for fact in seen if isinstance(fact, ModelSaved) and fact.phase == "teacher"]
    saved = load(layout.saved_models / "best_teacher_model_demo.pth", teacher.sha256)
    assert saved["vgae"]["ids.table.weight"].shape == saved["gat"]["ids.table.weight"].shape == (128, 16)
    [plan_id] = EventLog(layout.events).streams()
    assert next(iter(EventLog(layout.events).read(plan_id))).payload["force"] is True
    logged = (layout.coordinator_logs / f"{plan_id}.jsonl").read_text(encoding="utf-8")
    assert all(f"demo: {phase} done" in logged for phase in PHASES)
    assert "adjustments, now" in logged
    assert read_telemetry(layout.telemetry, plan_id)["training_rss_mib"].drop_nulls().max()
