"""The functions that scripts call."""

from pathlib import Path

import pytest

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
