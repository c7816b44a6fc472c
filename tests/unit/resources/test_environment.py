"""The configuration manager: every setting with its origin, written as a file that gives it back."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from core.resources.cautions import Caution
from core.resources.environment import TrainingEnvironmentConfig, create_optimized_config, fit_config
from core.resources.machine import Machine, probe_machine
from core.resources.profiles import ENVIRONMENTS, fit_to_machine
from settings.app import load_settings, read_settings
from settings.errors import SettingsError
from settings.tree import leaves
from tests.machines import CPU_MACHINE, RTX_3080, gpu, machine

T4 = machine(gpu("Tesla T4", 15_360.0, (7, 5)))


def fitted(here: Machine, config: Path | None = None, **overrides: Any) -> TrainingEnvironmentConfig:
    return fit_config(read_settings(config, **overrides), here)


def test_every_setting_says_which_place_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(
        "training:\n  lr: 0.1\n  epochs: 3\n  seed: 4\n\n  batch_size: 64\n  num_threads: 2\n"
        "models:\n  teacher: {vgae: {latent: 9}}\n"
    )
    monkeypatch.setenv("CAN_RETRAIN__TRAINING__EPOCHS", "4")
    monkeypatch.setenv("CAN_RETRAIN__TRAINING", '{"dropout": 0.2, "seed": 5}')
    buckets = "can_retrain__models__student__ids__num_buckets"
    monkeypatch.setenv(buckets, "64")
    found = fitted(T4, config, output_dir=tmp_path, data={"data_dir": tmp_path}, training={"seed": 6})
    said = {name: str(origin) for name, origin in found.origins.items()}
    t4 = "profile Tesla T4 (interpolated between RTX 3080 and RTX 3090)"
    assert (
        said
        | {
            "output_dir": "flag --output-dir",
            "data.data_dir": "flag --data-dir",
            "training.seed": "argument training.seed",
            "training.epochs": "environment variable CAN_RETRAIN__TRAINING__EPOCHS",
            "training.dropout": "environment variable CAN_RETRAIN__TRAINING",
            "models.student.ids.num_buckets": f"environment variable {buckets}",
            "training.lr": f"{config}:2",
            "training.batch_size": f"{config}:6",
            "training.num_threads": f"{config}:7",
            "models.teacher.vgae.latent": f"{config}:9",
            "models.preset": t4,
            "training.mixed_precision": t4,
            "dataset.num_workers": f"{t4}, with 4 cores for 8 CPUs",
            "models.teacher.vgae.heads": "preset published",
            "training.patience": "default",
        }
        == said
    )
    values = {leaf.name: leaf.value for leaf in leaves(found.settings)}
    assert (values["training.seed"], values["training.epochs"], values["training.lr"]) == (6, 4, 0.1)
    assert (values["training.dropout"], values["training.batch_size"]) == (0.2, 64)
    assert (values["models.teacher.vgae.latent"], values["models.student.ids.num_buckets"]) == (9, 64)
    assert values["models.teacher.vgae.hidden"] == [480, 240, 64]


def test_an_environment_is_a_source_of_defaults_and_no_more() -> None:
    found = fitted(CPU_MACHINE, environment="ci", training={"epochs": 7})
    assert str(found.origins["training.batch_size"]) == "environment ci"
    assert found.settings.training.epochs == 7
    assert found.origins["training.epochs"].level == "flag"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_setting_that_has_not_its_default_has_an_origin(environment: str) -> None:
    found = fitted(RTX_3080, environment=environment)
    default = {leaf.name: leaf.value for leaf in leaves(load_settings(models={"preset": "published"}))}
    for leaf in leaves(found.settings):
        if found.origins[leaf.name].level == "default" and not leaf.name.startswith("models."):
            assert leaf.value == default[leaf.name]


MINE: dict[str, Any] = {
    "data": {
        "data_dir": "/some where/it's: here",
        "datasets": {
            "my-car": {"folder": "a # b", "tests": ["x*", "- y"], "attack_frames": ["254#918FFE0603A60FFF"]},
            "on": {"folder": "line\nbreak", "holdout_fraction": 0.25},
            "123": {"folder": "null"},
        },
    },
    "training": {"lr": 1e-05, "curriculum": {"tau_epochs": 2}, "checkpoint_interval_s": 0},
    "models": {"student": {"vgae": {"hidden": [7, 5]}}},
    "tracking": {"experiment": "ünïcode \u2028 {x}"},
}


@pytest.mark.parametrize("here", [CPU_MACHINE, RTX_3080, T4])
@pytest.mark.parametrize("given", [{}, MINE, {"environment": "ci"}, {"environment": "cpu"}])
@pytest.mark.parametrize("only_changed", [False, True])
def test_the_file_gives_the_settings_back(
    tmp_path: Path, here: Machine, given: dict[str, Any], only_changed: bool
) -> None:
    found = fitted(here, **given)
    found.write(tmp_path / "settings.yaml", only_changed)
    again = load_settings(tmp_path / "settings.yaml")
    assert again == found.settings
    assert fit_to_machine(again, CPU_MACHINE) == found.settings
    assert fitted(here, tmp_path / "settings.yaml").warnings == found.warnings


def test_the_file_says_what_each_setting_means_and_where_it_came_from() -> None:
    text = fitted(T4, training={"lr": 0.5}).to_yaml()
    lines = text.splitlines()
    assert "from profile Tesla T4 (interpolated between RTX 3080 and RTX 3090)" in " ".join(
        line.removeprefix("# ") for line in lines[:4]
    )
    assert lines[lines.index("  lr: 0.5") - 1] == "  # AdamW learning rate. [argument training.lr]"
    assert lines[lines.index("  batch_size: 2048") - 1].startswith(
        "  # Graphs per optimizer step, at most. [pr"
    )
    assert list(yaml.safe_load(text)) == list(yaml.safe_load(fitted(CPU_MACHINE).to_yaml()))


def test_only_what_is_changed_is_written_if_asked() -> None:
    changed = yaml.safe_load(fitted(RTX_3080, training={"lr": 0.5}).to_yaml(only_changed=True))
    assert changed["training"].keys() == {"mixed_precision", "batch_size", "lr", "num_threads", "dqn"}
    assert changed["models"] == {"preset": "published"}
    assert changed.keys() == {"dataset", "models", "training"}


@pytest.mark.parametrize("only_changed", [False, True])
def test_a_password_is_written_nowhere(
    monkeypatch: pytest.MonkeyPatch, only_changed: bool, tmp_path: Path
) -> None:
    monkeypatch.setenv("CAN_RETRAIN__TRACKING__MLFLOW_URI", "postgresql://me:hunter2@there/db")
    found = fitted(CPU_MACHINE)
    text = found.to_yaml(only_changed)
    assert "hunter2" not in text + repr(found) + str(list(leaves(found.settings)))
    assert "CAN_RETRAIN__TRACKING__MLFLOW_URI" in text or only_changed
    (tmp_path / "x.yaml").write_text(text)
    assert load_settings(tmp_path / "x.yaml") == found.settings  # the variable still gives it


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("training: {lr: 0.5}\n")
    with pytest.raises(SettingsError, match=r"mine\.yaml exists"):
        fitted(CPU_MACHINE).write(path)
    assert path.read_text() == "training: {lr: 0.5}\n"
    with pytest.raises(SettingsError, match=r"cannot write .*nowhere"):
        fitted(CPU_MACHINE).write(tmp_path / "nowhere" / "x.yaml")


def test_an_optimized_configuration_is_made_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAN_RETRAIN__TRAINING__NUM_THREADS", "999")
    found = create_optimized_config()
    assert found.machine == probe_machine()
    assert found.settings == fit_to_machine(load_settings(), found.machine)
    assert [caution.setting for caution in found.warnings] == ["training.num_threads"]
    assert isinstance(found.warnings[0], Caution)
    quick = create_optimized_config("ci")
    assert quick.settings.environment == "ci"
    assert quick.settings.training.device == "cpu"


def test_the_name_of_an_environment_wins_over_its_variable_and_auto_leaves_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CAN_RETRAIN__ENVIRONMENT", "ci")
    assert create_optimized_config().settings.environment == "ci"
    assert create_optimized_config("cpu").settings.environment == "cpu"
    with pytest.raises(SettingsError, match=r"environment: 'tpu' is not allowed .*'gpu', 'cpu' or 'ci'"):
        create_optimized_config("tpu")
