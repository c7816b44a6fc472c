"""Settings come from defaults, file, environment and flags, weakest first; mistakes name the field."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from settings.app import load_settings
from settings.errors import SettingsError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text("training:\n  lr: 0.1\n  epochs: 3\n  seed: 1\n")
    return path


def test_flags_win_over_environment_over_file_over_defaults(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAN_RETRAIN__TRAINING__EPOCHS", "4")
    monkeypatch.setenv("CAN_RETRAIN__TRAINING__SEED", "2")
    training = load_settings(config, training={"seed": 3}).training
    assert (training.batch_size, training.lr, training.epochs, training.seed) == (4096, 0.1, 4, 3)


def test_settings_survive_a_round_trip_without_looking_at_the_environment(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(config)
    monkeypatch.setenv("CAN_RETRAIN__TRAINING__LR", "9")
    assert type(settings)(**settings.model_dump(mode="json")) == settings


def test_a_preset_fills_what_is_not_given() -> None:
    sizes = load_settings(models={"preset": "published"}).models
    assert sizes.teacher.vgae.hidden == (480, 240, 64)
    assert sizes.student.vgae.hidden == (80, 40, 16)


def test_settings_are_frozen(config: Path) -> None:
    with pytest.raises(ValidationError):
        load_settings(config).training.lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training:\n  lr: fast\n", r"training\.lr"),
        ("training:\n  learning_rate: 1\n", r"training\.learning_rate"),
        ("trainign: {}\n", "trainign"),
        ("graph: {window: 100, stride: 10, embargo_windows: 1}\n", "embargo_windows=1"),
        ("- a list\n", "mapping"),
        ("a: [unclosed\n", "cannot read"),
        ("models: {preset: huge}\n", r"models\.preset"),
        ("models: {preset: [1]}\n", r"models\.preset"),
        ("training: {lr: .inf}\n", r"training\.lr"),
        ("1: 2\n", "keys"),
    ],
)
def test_a_mistake_in_a_settings_file_names_the_file_and_the_field(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message) as caught:
        load_settings(path)
    assert "bad.yaml" in str(caught.value)


def test_a_missing_settings_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml"):
        load_settings(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "modules",
    [
        "settings.app",
        "flows.cli, core.planning.coordinator, core.planning.plan_text",
        "flows.config",
        "core.resources.environment",
        "core.planning.trainer",
    ],
)
def test_planning_loads_neither_torch_nor_prefect_nor_mlflow(modules: str) -> None:
    code = (
        f"import sys, {modules}\n"
        "print([m for m in ('torch', 'prefect', 'mlflow', 'torch_geometric') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
