"""Datasets are found by their layout, in one order, and what is missing is named with its setting."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from core.can.registry import Capture, find_captures, known_datasets
from core.errors import CaptureError, DatasetNotFoundError
from settings.data import DatasetSettings, DataSettings

HEADER = "timestamp,arbitration_id,data_field,attack\n"
PUBLISHED_TESTS = (
    "test_01_known_vehicle_known_attack",
    "test_02_unknown_vehicle_known_attack",
    "test_03_known_vehicle_unknown_attack",
    "test_04_unknown_vehicle_unknown_attack",
    "test_05_suppress",
    "test_06_masquerade",
)


def lay_out(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEADER)


def places(captures: list[Capture], folder: Path) -> list[tuple[str, str, str]]:
    return [(c.path.relative_to(folder).as_posix(), c.role, c.folder) for c in captures]


def own(folder: Path, **layout: object) -> DataSettings:
    return DataSettings(data_dir=folder, datasets={"mine": DatasetSettings(folder="mine", **layout)})


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("hcrl_ch", "hcrl-ch"),
        ("hcrl_ch", "hcrl_ch"),
        ("hcrl_sa", "hcrl-sa"),
        ("set_01", "set_01"),
        ("set_04", "set-04"),
    ],
)
def test_the_published_layout_is_known(tmp_path: Path, name: str, folder: str) -> None:
    tests = [f"{folder}/{test}/a.csv" for test in PUBLISHED_TESTS]
    lay_out(
        tmp_path, f"{folder}/train_02_with_attacks/b.csv", f"{folder}/train_02_with_attacks/deep/a.csv.gz"
    )
    lay_out(tmp_path, f"{folder}/train_01_attack_free/z.csv", *tests)
    lay_out(
        tmp_path, f"{folder}/train_01_attack_free/readme.md", f"{folder}/train_01_attack_free/.hidden.csv"
    )
    assert places(find_captures(name, DataSettings(data_dir=tmp_path)), tmp_path) == [
        (f"{folder}/train_01_attack_free/z.csv", "attack_free", "train_01_attack_free"),
        (f"{folder}/train_02_with_attacks/b.csv", "with_attacks", "train_02_with_attacks"),
        (f"{folder}/train_02_with_attacks/deep/a.csv.gz", "with_attacks", "train_02_with_attacks"),
        *((path, "test", test) for path, test in zip(tests, PUBLISHED_TESTS, strict=True)),
    ]


def test_own_datasets_are_known_and_may_redefine_built_in_ones(tmp_path: Path) -> None:
    data = DataSettings(datasets={"mine": DatasetSettings(folder="x"), "demo": DatasetSettings(folder="y")})
    known = known_datasets(data)
    assert list(known) == ["hcrl_ch", "hcrl_sa", "set_01", "set_02", "set_03", "set_04", "demo", "mine"]
    assert known["demo"].folder == "y"
    with pytest.raises(DatasetNotFoundError, match=r"no folder .*y"):
        find_captures("demo", data.model_copy(update={"data_dir": tmp_path}))


def test_single_files_are_captures_and_a_test_file_is_a_test_folder_named_by_its_stem(tmp_path: Path) -> None:
    lay_out(tmp_path, "mine/normal.log", "mine/b.csv", "mine/a.csv", "mine/check/x.csv.gz")
    data = own(tmp_path, attack_free=("normal.log",), with_attacks=("[ab].csv",), tests=("check/*",))
    assert places(find_captures("mine", data), tmp_path) == [
        ("mine/normal.log", "attack_free", "normal"),
        ("mine/a.csv", "with_attacks", "a"),
        ("mine/b.csv", "with_attacks", "b"),
        ("mine/check/x.csv.gz", "test", "check/x"),
    ]


def test_held_out_data_need_no_test_folders(tmp_path: Path) -> None:
    lay_out(tmp_path, "mine/train_01_attack_free/a.csv", "mine/train_02_with_attacks/b.csv")
    with pytest.raises(DatasetNotFoundError, match=r"mine/test_\*.*data\.datasets\.mine\.tests"):
        find_captures("mine", own(tmp_path))
    assert len(find_captures("mine", own(tmp_path, holdout_fraction=0.2))) == 2


def test_what_is_missing_is_named_with_path_and_setting(tmp_path: Path) -> None:
    data = DataSettings(data_dir=tmp_path)
    with pytest.raises(
        DatasetNotFoundError, match=rf"{tmp_path}/set_01 .*data\.data_dir.*data\.datasets\.set_01\.folder"
    ):
        find_captures("set_01", data)
    (tmp_path / "set_01" / "train_01_attack_free").mkdir(parents=True)
    with pytest.raises(
        DatasetNotFoundError,
        match=rf"{tmp_path}/set_01/train_01_attack_free .*data\.datasets\.set_01\.attack_free",
    ):
        find_captures("set_01", data)
    with pytest.raises(DatasetNotFoundError, match=r"unknown dataset '\.\./x'.*hcrl_ch"):
        find_captures("../x", data)
    (tmp_path / "mine").mkdir()
    with pytest.raises(DatasetNotFoundError, match="mine has no training captures"):
        find_captures("mine", own(tmp_path, attack_free=(), with_attacks=(), tests=()))


def test_a_file_for_training_and_test_is_refused(tmp_path: Path) -> None:
    lay_out(tmp_path, "mine/a.csv", "mine/b.csv")
    with pytest.raises(CaptureError, match=r"a\.csv is matched as training and as test"):
        find_captures("mine", own(tmp_path, attack_free=(), with_attacks=("a.csv",), tests=("*.csv",)))


def test_a_file_without_and_with_attacks_is_refused_with_both_settings(tmp_path: Path) -> None:
    lay_out(tmp_path, "mine/att/a.csv", "mine/free/b.csv")
    both = r"data\.datasets\.mine\.attack_free or data\.datasets\.mine\.with_attacks"
    with pytest.raises(CaptureError, match=rf"a\.csv is matched as attack-free and as with attacks .*{both}"):
        find_captures("mine", own(tmp_path, attack_free=("*/*.csv",), with_attacks=("att",), tests=()))


def test_a_file_is_the_same_by_every_name(tmp_path: Path) -> None:
    lay_out(tmp_path, "mine/free/b.csv", "mine/att/x.csv")
    (tmp_path / "mine/free/c.csv").symlink_to("b.csv")
    (tmp_path / "mine/free/a.csv").symlink_to(tmp_path / "mine/free/b.csv")
    data = own(tmp_path, attack_free=("free", "free/*.csv"), with_attacks=("att",), tests=())
    assert places(find_captures("mine", data), tmp_path) == [
        ("mine/free/a.csv", "attack_free", "free"),
        ("mine/att/x.csv", "with_attacks", "att"),
    ]
    (tmp_path / "mine/test").mkdir()
    (tmp_path / "mine/test/y.csv").symlink_to(tmp_path / "mine/att/x.csv")
    with pytest.raises(
        CaptureError, match=r"y\.csv is matched as training and as test .*same file as .*x\.csv"
    ):
        find_captures("mine", own(tmp_path, attack_free=("free",), with_attacks=("att",), tests=("test",)))
    (tmp_path / "mine/att/z.csv").symlink_to(tmp_path / "mine/free/b.csv")
    with pytest.raises(CaptureError, match=r"z\.csv is matched as attack-free and as with attacks"):
        find_captures("mine", data)


def test_links_are_followed_but_never_in_circles(tmp_path: Path) -> None:
    lay_out(tmp_path, "elsewhere/a.csv")
    train = tmp_path / "mine" / "train"
    train.mkdir(parents=True)
    (train / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(train)
    (tmp_path / "elsewhere" / "self").symlink_to(tmp_path / "elsewhere")
    data = own(tmp_path, attack_free=("train",), with_attacks=(), tests=())
    assert places(find_captures("mine", data), tmp_path) == [
        ("mine/train/linked/a.csv", "attack_free", "train")
    ]


@pytest.mark.parametrize("pattern", ["../other", "/etc", "a/../../b", ""])
def test_patterns_that_leave_the_folder_are_refused(pattern: str) -> None:
    with pytest.raises(ValidationError, match="below the dataset's folder"):
        DatasetSettings(folder="x", tests=(pattern,))


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "a b"])
def test_names_that_cannot_name_files_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        DataSettings(datasets={name: DatasetSettings(folder="x")})


@pytest.mark.parametrize("rule", ["254", "254#1", "XYZ#11", "123456789#00", "1#" + "00" * 65])
def test_label_rules_that_are_no_frames_are_refused(rule: str) -> None:
    with pytest.raises(ValidationError):
        DatasetSettings(folder="x", attack_frames=(rule,))


def test_a_pattern_that_is_no_glob_is_refused_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(CaptureError, match=r"data\.datasets\.mine\.attack_free"):
        find_captures("mine", own(tmp_path, attack_free=("**x",)))
