"""Which captures are news: changed, settled, not at work, and not told before."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core.can.digest import digest_captures
from core.can.registry import find_captures
from core.events.catalogue import CapturesDigested, ModelSaved, to_event
from core.events.leases import Leases
from core.events.open import open_log, open_store
from core.planning.sensors.captures import CaptureMemory, Watched, is_at_work, look_at_captures
from settings.app import Settings, load_settings
from settings.data import DataSettings
from settings.errors import SettingsError
from settings.layout import Layout

HEADER = "timestamp,arbitration_id,data_field,attack\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    for dataset in ("car", "bus"):
        for folder in ("train_01_attack_free", "train_02_with_attacks", "test_01_known"):
            path = tmp_path / "data" / dataset / folder
            path.mkdir(parents=True)
            (path / "a.csv").write_text(f"{HEADER}0.1,1A0,00FF,0\n# {dataset} {folder}\n")
    return load_settings(
        data={"data_dir": tmp_path / "data", "datasets": {n: {"folder": n} for n in ("car", "bus")}},
        output_dir=tmp_path / "out",
    )


class Sensor:
    """Looks at captures, as the flow does, and counts how often it had to wait."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.layout, self.num_waits = settings, Layout(settings.output_dir), 0

    def look(
        self,
        *datasets: str,
        meanwhile: Callable[[], object] = lambda: None,
        is_at_work: Callable[[str], bool] = lambda dataset: False,
    ) -> dict[str, Watched]:
        def wait() -> None:
            self.num_waits += 1
            meanwhile()

        memory = CaptureMemory.read(self.layout)
        found = look_at_captures(self.settings, memory, datasets, wait, is_at_work)
        memory.write()
        for dataset in found:
            if dataset.status == "changed":
                memory.remember_told(dataset)
        return {dataset.dataset: dataset for dataset in found}

    def statuses(self, *datasets: str) -> dict[str, str]:
        return {name: found.status for name, found in self.look(*datasets).items()}

    def train(self, dataset: str) -> None:
        """Say that a dataset was trained on the captures that are there."""
        digest, rows = digest_captures(find_captures(dataset, self.settings.data), {})
        digested = CapturesDigested(dataset=dataset, data_digest=digest, captures=rows)
        saved = ModelSaved(
            dataset=dataset, phase="teacher", path="t.pth", sha256="s", data_digest=digest,
            settings_digest="s", parent_sha256="", num_parameters={},
        )  # fmt: skip
        open_log(self.layout).append([to_event("p1", digested), to_event("p1", saved)])

    def add(self, dataset: str, text: str = "more") -> Path:
        path = self.settings.data.data_dir / dataset / "train_01_attack_free" / "b.csv"
        path.write_text(f"{HEADER}0.1,1A0,00FF,0\n# {text}\n")
        return path


@pytest.fixture
def sensor(settings: Settings) -> Sensor:
    sensor = Sensor(settings)
    for dataset in ("car", "bus"):
        sensor.train(dataset)
    return sensor


def test_captures_that_models_were_trained_on_are_no_news_and_need_no_wait(sensor: Sensor) -> None:
    assert sensor.statuses() == {"car": "unchanged", "bus": "unchanged"}
    assert sensor.num_waits == 0


def test_only_the_dataset_with_a_new_capture_is_news_and_only_once(sensor: Sensor) -> None:
    sensor.add("car")
    assert sensor.statuses() == {"car": "changed", "bus": "unchanged"}
    assert sensor.statuses() == {"car": "told", "bus": "unchanged"}
    sensor.add("car", "even more")
    assert sensor.statuses()["car"] == "changed"
    sensor.train("car")
    assert sensor.statuses()["car"] == "unchanged"


def test_a_capture_that_was_taken_away_is_news(sensor: Sensor) -> None:
    added = sensor.add("car")
    sensor.train("car")
    added.unlink()
    assert sensor.statuses()["car"] == "changed"


def test_a_dataset_that_was_never_trained_is_news(settings: Settings) -> None:
    assert Sensor(settings).statuses() == {"car": "changed", "bus": "changed"}


def test_the_demo_is_looked_at_only_by_name_since_other_settings_simulate_it_otherwise(
    settings: Settings, tmp_path: Path
) -> None:
    demo = {"seed": 1, "duration_s": 2.0, "cache_dir": tmp_path / "simulated"}
    sensor = Sensor(settings.model_copy(update={"data": DataSettings.model_validate({"demo": demo})}))
    sensor.train("demo")
    assert sensor.statuses() == {}
    assert sensor.statuses("demo") == {"demo": "unchanged"}


def test_captures_that_grow_while_they_are_looked_at_are_left_for_the_next_look(sensor: Sensor) -> None:
    growing = sensor.add("car")

    def grow() -> None:
        with growing.open("a") as file:
            file.write("0.2,1A0,00FF,0\n")

    found = sensor.look(meanwhile=grow)
    assert found["car"].status == "unsettled"
    assert "b.csv" in found["car"].reason
    assert found["bus"].status == "unchanged"
    assert sensor.statuses()["car"] == "changed"


def test_captures_that_change_without_growing_are_not_settled_either(sensor: Sensor) -> None:
    changing = sensor.add("car")
    later = changing.stat().st_mtime_ns + 10**9
    found = sensor.look(meanwhile=lambda: os.utime(changing, ns=(later, later)))
    assert found["car"].status == "unsettled"


def test_a_capture_that_appears_meanwhile_is_not_settled(sensor: Sensor) -> None:
    other = sensor.add("car").with_name("c.csv")
    assert sensor.look(meanwhile=lambda: other.write_text(HEADER))["car"].status == "unsettled"


def test_a_change_that_nobody_acted_on_for_a_day_is_told_once_more(
    sensor: Sensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor.add("car")
    assert sensor.statuses()["car"] == "changed"
    later = time.time() + 90_000
    monkeypatch.setattr(time, "time", lambda: later)
    assert sensor.statuses()["car"] == "changed"
    assert sensor.statuses()["car"] == "told"


def test_a_dataset_at_work_is_left_alone_and_told_afterwards(sensor: Sensor) -> None:
    sensor.add("car")
    assert sensor.look(is_at_work=lambda dataset: dataset == "car")["car"].status == "at work"
    assert sensor.statuses()["car"] == "changed"


def test_unchanged_files_are_not_read_again_even_where_no_plan_read_them(
    sensor: Sensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor.add("car")
    sensor.look()

    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("hashlib.file_digest", refuse)
    assert sensor.statuses()["car"] == "told"
    assert sensor.num_waits == 1


def test_a_missing_folder_is_told_and_keeps_nobody_else_from_being_looked_at(sensor: Sensor) -> None:
    shutil.rmtree(sensor.settings.data.data_dir / "car")
    sensor.add("bus")
    found = sensor.look()
    assert found["car"].status == "unreadable"
    assert "car" in found["car"].reason
    assert found["bus"].status == "changed"


def test_a_folder_that_goes_while_it_is_looked_at_is_told(sensor: Sensor) -> None:
    sensor.add("car")
    folder = sensor.settings.data.data_dir / "car"
    assert sensor.look(meanwhile=lambda: shutil.rmtree(folder))["car"].status == "unreadable"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"rows": 1, "told": {}}', '{"rows": {"car": [{}]}, "told": {}}']
)
def test_a_memory_that_is_lost_or_damaged_costs_one_more_telling(sensor: Sensor, content: str) -> None:
    sensor.add("car")
    sensor.look()
    (sensor.layout.watched / "captures.json").write_text(content)
    assert sensor.statuses()["car"] == "changed"
    assert json.loads((sensor.layout.watched / "captures.json").read_text())["told"]


def test_only_known_datasets_can_be_asked_for(sensor: Sensor) -> None:
    assert list(sensor.look("bus")) == ["bus"]
    with pytest.raises(SettingsError, match="unknown dataset"):
        sensor.look("../etc")


def test_who_holds_a_dataset_is_at_work(settings: Settings) -> None:
    layout = Layout(settings.output_dir)
    assert not is_at_work(layout, "car")
    lease = Leases(open_store(layout, "leases")).take("car", "p1", 60.0)
    assert is_at_work(layout, "car")
    assert not is_at_work(layout, "bus")
    lease.give_back()
    assert not is_at_work(layout, "car")
