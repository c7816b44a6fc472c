"""``python -m flows.config``, and settings as the commands take and show them."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import ROOT, run, start


def without_gpu(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """A command on this machine's CPU."""
    return run(*arguments, cwd=ROOT, CUDA_VISIBLE_DEVICES="", **variables)


def shown(*arguments: str, **variables: str) -> dict[str, Any]:
    done = without_gpu("flows.config", "--json", *arguments, **variables)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_written_file_handed_back_gives_the_same_settings_each_from_its_line(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "data:\n  datasets:\n    car: {folder: here, holdout_fraction: 0.2}\ntraining: {lr: 0.1}\n"
    )
    variables = {
        "CAN_RETRAIN__TRAINING__EPOCHS": "4",
        "CAN_RETRAIN__TRACKING__MLFLOW_URI": "http://me:hunter2@x",
    }
    flags = ("--config", str(mine), "--output-dir", str(tmp_path / "out"), "--environment", "cpu")
    before = shown(*flags, **variables)
    said = {name: setting["from"] for name, setting in before["settings"].items()}
    assert said["training.lr"] == f"{mine}:4"
    assert said["data.datasets.car.holdout_fraction"] == f"{mine}:3"
    assert said["training.epochs"] == "environment variable CAN_RETRAIN__TRAINING__EPOCHS"
    assert said["output_dir"] == "flag --output-dir"
    assert said["training.batch_size"] == "profile CPU"
    assert said["training.patience"] == "default"
    assert all(setting["description"] for setting in before["settings"].values())

    written = tmp_path / "written.yaml"
    done = without_gpu("flows.config", "--write", str(written), *flags, **variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert "hunter2" not in written.read_text() + done.stdout + json.dumps(before)
    after = shown("--config", str(written))
    lines = written.read_text().splitlines()
    for name, setting in before["settings"].items():
        if name != "tracking.mlflow_uri":
            again = after["settings"][name]
            assert again["value"] == setting["value"]
            assert again["level"] == "file"
            line = lines[int(again["from"].rpartition(":")[2]) - 1]
            assert line.strip().startswith(f"{name.rpartition('.')[2]}:")

    refused = run("flows.config", "--write", str(written))
    assert (refused.returncode, "exists and is not overwritten" in refused.stderr) == (2, True)


def test_the_table_shows_whole_names_and_only_what_is_changed_if_asked() -> None:
    everything = without_gpu("flows.config")
    changed = without_gpu("flows.config", "--changed", CAN_RETRAIN__TRAINING__NUM_THREADS="999")
    assert everything.returncode == changed.returncode == 0
    names = shown()["settings"]
    assert all(f"\n{name} " in everything.stdout for name in names)
    assert "profile CPU" in everything.stdout
    assert "\ntraining.batch_size " in changed.stdout
    assert "\ntraining.patience " not in changed.stdout
    assert "warning: training.num_threads: 999 threads on" in changed.stdout


@pytest.mark.parametrize("command", ["flows.config", "flows.retrain", "flows.status"])
def test_bad_settings_are_bad_usage_and_name_the_line(command: str, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("training:\n  batch_size: 0\n")
    done = run(command, "--config", str(config))
    assert done.returncode == 2
    assert done.stderr == (
        f"error: bad settings: training.batch_size: 0 is less than 2 ({config}:2); give 2 or more\n"
    )


def test_a_gpu_that_is_asked_for_and_is_not_there_is_bad_usage() -> None:
    for arguments in (("flows.config",), ("flows.retrain", "--dry-run", "--datasets", "demo")):
        done = without_gpu(*arguments, "--environment", "gpu")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: environment is gpu, but this machine has no GPU")


def test_a_dry_run_warns_of_what_is_unwise(tmp_path: Path) -> None:
    flags = ("--dry-run", "--datasets", "demo", "--output-dir", str(tmp_path / "out"), "--environment", "ci")
    done = without_gpu("flows.retrain", *flags, CAN_RETRAIN__RESOURCES__HANG_TIMEOUT_S="5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("resources.hang_timeout_s: 5 s may pass while") == 1
    assert "small models" in done.stdout
    assert not (tmp_path / "out").exists()


def test_an_environment_has_no_meaning_for_a_plan_that_is_made() -> None:
    done = run("flows.retrain", "--resume", "some-plan", "--environment", "ci")
    assert done.returncode == 2
    assert "--environment has no meaning with --resume" in done.stderr


def test_the_variable_of_the_environment_counts_and_the_flag_wins() -> None:
    quick = shown("--changed", CAN_RETRAIN__ENVIRONMENT="ci")["settings"]
    assert quick["environment"]["from"] == "environment variable CAN_RETRAIN__ENVIRONMENT"
    assert quick["training.epochs"]["from"] == "environment ci"
    flag = shown("--changed", "--environment", "cpu", CAN_RETRAIN__ENVIRONMENT="ci")["settings"]
    assert flag["environment"]["value"] == "cpu"
    assert "training.epochs" not in flag


@pytest.mark.parametrize(
    "arguments",
    [
        ("flows.config",),
        ("flows.config", "--help"),
        ("flows.retrain", "--help"),
        ("flows.retrain", "--dry-run", "--datasets", "demo"),
    ],
)
def test_no_command_that_trains_nothing_loads_what_trains(arguments: tuple[str, ...], tmp_path: Path) -> None:
    process = start(*arguments, CAN_RETRAIN__OUTPUT_DIR=str(tmp_path / "out"), PYTHONPROFILEIMPORTTIME="1")
    loaded = {line.rpartition("|")[2].strip() for line in process.communicate()[1].splitlines()}
    assert process.returncode == 0
    assert "settings.app" in loaded
    assert loaded & {"torch", "prefect", "mlflow", "torch_geometric"} == set()
    if arguments[0] == "flows.config":
        assert "polars" not in loaded


def test_the_written_file_is_yaml_with_a_comment_for_every_setting(tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    assert without_gpu("flows.config", "--write", str(path)).returncode == 0
    assert yaml.safe_load(path.read_text())["training"]["lr"] == 0.001
    lines = path.read_text().splitlines()
    for above, line in zip(lines[lines.index("") :], lines[lines.index("") + 1 :], strict=False):
        if line.strip() and not line.lstrip().startswith("#"):
            assert above.lstrip().startswith("#"), line


@pytest.mark.parametrize("width", ["60", "80", "120"])
def test_names_paths_and_origins_stay_whole_on_narrow_terminals(width: str) -> None:
    variable = "CAN_RETRAIN__TRAINING__EPOCHS"
    for variables in ({}, {variable: "4"}):
        done = without_gpu("flows.config", COLUMNS=width, **variables)
        assert done.returncode == 0, done.stderr
        for word in ("models.student.gat.jumping_knowledge", "outputs/enhanced_retraining", *variables):
            assert word in done.stdout
