"""Files and environment variables: what is wrong is named with its value, its place and a remedy."""

import ast
import re
from pathlib import Path

import pytest

from settings.app import Settings, load_settings, read_settings
from settings.errors import SettingsError
from settings.tree import flat, merge, names_of, nested
from tests.commands import ROOT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mine.yaml"


def complaint(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    return str(caught.value).replace(str(path), "mine.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "training:\n\n  batch_size: 0\n",
            "training.batch_size: 0 is less than 2 (mine.yaml:3); give 2 or more",
        ),
        ("training: {lr: 0}\n", "training.lr: 0 is not more than 0.0 (mine.yaml:1); give more than 0.0"),
        (
            "training: {dropout: 1}\n",
            "training.dropout: 1 is not less than 1.0 (mine.yaml:1); give less than 1.0",
        ),
        (
            "graph: {val_fraction: 2}\n",
            "graph.val_fraction: 2 is not less than 0.9 (mine.yaml:1); give less than",
        ),
        (
            "training: {max_ram_usage: 80}\n",
            "training.max_ram_usage: 80 is more than 1.0 (mine.yaml:1); give 1.0 or less",
        ),
        ("training:\n  lr: fast\n", "training.lr: 'fast' is not a number (mine.yaml:2)"),
        ("training: {epochs: 2.5}\n", "training.epochs: 2.5 is not a whole number (mine.yaml:1)"),
        ("training: {epochs: }\n", "training.epochs: None is not a whole number (mine.yaml:1)"),
        (
            "training: {deterministic: maybe}\n",
            "training.deterministic: 'maybe' is not true or false (mine.yaml:1)",
        ),
        ("training: {lr: .inf}\n", "training.lr: inf is not a finite number (mine.yaml:1)"),
        (
            "models: {preset: huge}\n",
            "models.preset: 'huge' is not allowed (mine.yaml:1); give 'published' or 'small'",
        ),
        (
            "environment: tpu\n",
            "environment: 'tpu' is not allowed (mine.yaml:1); give 'auto', 'gpu', 'cpu' or",
        ),
        (
            "training: 5\n",
            "training: what is given is not a group (mine.yaml:1); write its settings below it",
        ),
        ("data: {data_dir: [1]}\n", "data.data_dir: [1] is not a path (mine.yaml:1)"),
        (
            "models:\n  teacher:\n    vgae:\n      hidden:\n      - 64\n      - wide\n",
            "models.teacher.vgae.hidden.1: 'wide' is not a whole number (mine.yaml:6)",
        ),
        (
            "data:\n  datasets:\n    car: {}\n",
            "data.datasets.car.folder: is missing (mine.yaml:3); it has no default",
        ),
        (
            "data:\n  datasets:\n    my car: {folder: a}\n",
            "data.datasets.my car: 'my car' does not match the pattern",
        ),
        (
            "graph:\n  window: 100\n  stride: 10\n",
            "graph: embargo_windows=1 lets validation windows share frames",
        ),
        ("trainign: {}\n", "trainign: there is no such setting (mine.yaml:1); did you mean training?"),
        (
            "training:\n  epoch: 3\n",
            "training.epoch: there is no such setting (mine.yaml:2); did you mean training.epochs?",
        ),
        ("training:\n  learning_rate: 1\n", "did you mean training.lr?"),
        ("training:\n  num_workers: 1\n", "did you mean dataset.num_workers?"),
        ("batch_size: 3\n", "did you mean training.batch_size?"),
        (
            "graph: {xyzzy: 3}\n",
            "there is no such setting (mine.yaml:1); known here: window, stride, val_fraction",
        ),
        ("data: {datasets: {car: {fodler: b, folder: a}}}\n", "did you mean data.datasets.car.folder?"),
        ("a: [unclosed\n", "cannot read the settings file mine.yaml"),
        ("- a list\n", "mine.yaml: a settings file is a mapping of groups, not a list"),
        ("1: 2\n", "mine.yaml:1: the keys of a settings file are names; quote a number"),
        ("data: {datasets: {123: {folder: a}}}\n", "mine.yaml:1: the keys of a settings file are names"),
        ("graph: {}\ntraining: {}\ngraph: {}\n", "mine.yaml:3: graph was given in line 1 already"),
        ("x: &x {y: *x}\n", "mine.yaml:1: a settings file cannot hold a part that contains itself"),
        (
            "training: {epochs: 2024-99-99}\n",
            "cannot read the settings file mine.yaml: month must be in 1..12",
        ),
        ("--- {}\n--- {}\n", "expected a single document"),
        (
            "!!python/object/apply:os.getcwd []\n",
            "cannot read the settings file mine.yaml: could not determine",
        ),
        ("training: {epochs: \x07}\n", "cannot read the settings file mine.yaml: unacceptable character"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_its_value_its_line_and_a_remedy(
    path: Path, text: str, message: str
) -> None:
    assert message in complaint(path, text)


def test_a_file_that_is_no_text_is_refused(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="cannot read the settings file"):
        load_settings(path)


def test_all_mistakes_are_named_at_once(path: Path) -> None:
    found = complaint(path, "training: {lr: fast, epoch: 3}\ngraf: {}\n").splitlines()
    assert found[0] == "3 bad settings:"
    assert [line.split(":")[0].strip() for line in found[1:]] == ["training.lr", "training.epoch", "graf"]


@pytest.mark.parametrize(
    "text",
    [
        "tracking: postgresql://me:hunter2@there/db\n",
        "tracking: {mlflow_url: postgresql://me:hunter2@there/db}\n",
        "tracking: {mlflow_uri: [hunter2]}\n",
        "tracking: {mlflow_uri: {password: hunter2}}\n",
        "tracking: [hunter2]\n",
    ],
)
def test_no_message_shows_a_password(path: Path, text: str) -> None:
    assert "hunter2" not in complaint(path, text)


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "training:\n", "training:\n  dqn:\n  # episodes: 3\ngraph:\n", "---\n"]
)
def test_an_empty_group_says_nothing(path: Path, text: str) -> None:
    path.write_text(text)
    assert load_settings(path) == Settings()


def test_what_a_merge_key_brings_in_has_its_line(path: Path) -> None:
    path.write_text("training: &shared\n  lr: 0.1\n  dqn:\n    <<: {episodes: 0}\n")
    with pytest.raises(SettingsError, match=r"training\.dqn\.episodes: 0 is less than 1 \(.*mine\.yaml:4\)"):
        load_settings(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CAN_RETRAIN__TRANING__EPOCHS", "3", "there is no setting 'traning.epochs'; did you mean training?"),
        (
            "CAN_RETRAIN__TRAINING__EPOCS",
            "3",
            "there is no such setting (environment variable CAN_RETRAIN__TRAINI",
        ),
        ("CAN_RETRAIN__TRAINING", "{not json", "CAN_RETRAIN__TRAINING: a list or a group is given as JSON"),
        (
            "CAN_RETRAIN__MODELS__TEACHER__VGAE__HIDDEN",
            "6,3",
            "VGAE__HIDDEN: a list or a group is given as JSON",
        ),
        (
            "CAN_RETRAIN__TRAINING__EPOCHS",
            "0",
            "training.epochs: '0' is less than 1 (environment variable CAN_RETRAIN__TRAINING__EPOCHS); give",
        ),
        (
            "CAN_RETRAIN__TRAINING__EPOCHS",
            "",
            "training.epochs: '' is not a whole number (environment variable",
        ),
        ("CAN_RETRAIN__OUTPUT_DIR__X", "1", "there is no setting 'output_dir.x'; output_dir is no group"),
        ("CAN_RETRAIN__", "1", "there is no setting ''; known here: environment, output_dir"),
        (
            "CAN_RETRAIN__TRAINING",
            "5",
            "training: what is given is not a group (environment variable CAN_RETRAIN",
        ),
    ],
)
def test_a_mistake_in_a_variable_is_named_with_it(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert message in str(caught.value)
    assert name in str(caught.value)


def test_variables_reach_every_depth_and_the_longer_name_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAN_RETRAIN__TRAINING__DQN__EPISODES", "7")
    monkeypatch.setenv("CAN_RETRAIN__TRAINING__DQN", '{"episodes": 6, "num_actions": 5}')
    monkeypatch.setenv("CAN_RETRAIN__MODELS__TEACHER__VGAE__HIDDEN", "[9, 8]")
    monkeypatch.setenv("CAN_RETRAIN__DATA__DATASETS__CAR__FOLDER", "here")
    monkeypatch.setenv("CAN_RETRAIN__ENVIRONMENT", "cpu")
    settings = load_settings()
    assert (settings.training.dqn.episodes, settings.training.dqn.num_actions) == (7, 5)
    assert settings.models.teacher.vgae.hidden == (9, 8)
    assert settings.data.datasets["car"].folder == "here"
    assert settings.environment == "cpu"


def test_a_variable_beside_a_file_changes_only_its_own_setting(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("models:\n  preset: published\n  teacher:\n    vgae:\n      latent: 9\n")
    monkeypatch.setenv("CAN_RETRAIN__MODELS__TEACHER__VGAE__HEADS", "3")
    vgae = load_settings(path).models.teacher.vgae
    assert (vgae.latent, vgae.heads, vgae.hidden) == (9, 3, (480, 240, 64))


def test_the_strongest_origin_is_remembered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("output_dir: a\ntraining:\n  seed: 1\n  lr: 0.1\n")
    monkeypatch.setenv("CAN_RETRAIN__TRAINING__SEED", "2")
    monkeypatch.setenv("CAN_RETRAIN__OUTPUT_DIR", "b")
    loaded = read_settings(path, output_dir=Path("c"))
    assert {name: origin.level for name, origin in loaded.origins.items() if name != "training"} == {
        "output_dir": "flag",
        "training.seed": "variable",
        "training.lr": "file",
    }
    assert (str(loaded.settings.output_dir), loaded.settings.training.seed) == ("c", 2)


def test_values_by_dotted_name_and_nested_ones_are_the_same() -> None:
    values = {"a.b.c": 1, "a.d": [2], "e": {}}
    assert {name: value for name, value in flat(nested(values)) if name in values} == values
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9}, "d": {"x": 1}}) == {
        "a": {"b": 9, "c": 2},
        "d": {"x": 1},
    }


def test_every_setting_has_a_description() -> None:
    for name in names_of(Settings):
        *groups, last = name.split(".")
        group: type = Settings
        for part in groups:
            group = group.model_fields[part].annotation  # type: ignore[attr-defined]
        field = group.model_fields[last]  # type: ignore[attr-defined]
        assert field.description or field.annotation.__doc__, name


def test_every_setting_that_the_code_names_exists() -> None:
    groups = [name for name in Settings.model_fields if f"{name}." in " ".join(names_of(Settings))]
    pattern = re.compile(rf"({'|'.join(groups)})\.[a-z0-9_.]+")
    known = set(names_of(Settings))
    named = {
        node.value
        for package in ("core", "flows", "tasks", "settings")
        for source in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and pattern.fullmatch(node.value)
    }
    assert "training.batch_size" in named
    assert {name for name in named if name.removesuffix(".") not in known} == set()
