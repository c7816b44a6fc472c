"""Where captures are."""

from pathlib import Path

import pytest

from settings.app import load_settings
from settings.data import DatasetSettings, DataSettings, DemoSettings
from settings.layout import Layout

PLANNED = DataSettings(
    data_dir=Path("/old/data"),
    datasets={
        "below": DatasetSettings(folder="car"),
        "absolute": DatasetSettings(folder="/old/data/deep/car"),
        "elsewhere": DatasetSettings(folder="/elsewhere/car"),
    },
)


def test_absolute_folders_do_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = DataSettings(data_dir=Path("here"), demo=DemoSettings(cache_dir=Path("there"))).absolute()
    assert (data.data_dir, data.demo.cache_dir) == (tmp_path / "here", tmp_path / "there")
    monkeypatch.chdir("/")
    assert data.absolute() == data


def test_what_lay_below_the_folder_of_captures_moves_with_it_and_nothing_else_does() -> None:
    moved = PLANNED.moved_to(Path("/new"))
    assert moved.data_dir == Path("/new")
    assert {name: str(moved.data_dir / layout.folder) for name, layout in moved.datasets.items()} == {
        "below": "/new/car",
        "absolute": "/new/deep/car",
        "elsewhere": "/elsewhere/car",
    }
    assert moved.demo.cache_dir == Path("/new")


def test_resource_samples_are_part_of_the_event_log() -> None:
    layout = Layout(Path("out"))
    assert layout.telemetry.is_relative_to(layout.events)


def test_a_folder_may_begin_at_home_but_not_at_that_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/rita")
    settings = load_settings(
        output_dir="~/outputs", data={"data_dir": "~", "demo": {"cache_dir": "~nobody-here/x"}}
    )
    assert settings.output_dir == Path("/home/rita/outputs")
    assert settings.data.data_dir == Path("/home/rita")
    assert settings.data.demo.cache_dir == Path("~nobody-here/x")
