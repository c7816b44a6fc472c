"""Plans carried out where a test can look at, kill and move everything that they leave."""

import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from core.analytics.results import DatasetResult, fold_results
from core.events.catalogue import EpochFinished, Fact, to_fact
from core.events.event import Event
from core.events.log import EventLog
from settings.layout import Layout
from tests.commands import ROOT, TINY, ended, processes_that_name, start, wait_for


@dataclass(frozen=True)
class Place:
    """A folder with captures, settings and outputs, as a working directory that settings are relative to."""

    folder: Path

    @property
    def layout(self) -> Layout:
        return Layout(self.folder / "out")

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return start(
            "tests.in_process", "settings.yaml", "out", *arguments, cwd=self.folder, PYTHONPATH=str(ROOT)
        )

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return ended(self.start(*arguments))

    def plan(self) -> str:
        (plan_id,) = EventLog(self.layout.events).streams()
        return plan_id

    def events(self) -> list[Event]:
        """What is in the log; nothing before a plan is made."""
        log = EventLog(self.layout.events)
        return [event for plan_id in log.streams() for event in log.read(plan_id)]

    def facts(self) -> list[Fact]:
        return [to_fact(event) for event in self.events()]

    def models(self) -> dict[str, str]:
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.layout.saved_models.iterdir()
            if not path.name.startswith(".")
        }

    def results(self) -> DatasetResult:
        return fold_results(self.events()).datasets["car"]


def make_place(folder: Path, captures: Path, training: Mapping[str, Any] = MappingProxyType({})) -> Place:
    settings: dict[str, Any] = {
        **TINY,
        "data": {"data_dir": "captures", "datasets": {"car": {"folder": "car"}}},
        "tracking": {"mlflow": False},
        "training": {**TINY["training"], "epochs": 2, "num_threads": 1, **training},
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    shutil.copytree(captures, folder / "captures" / "car")
    return Place(folder)


def require_same(place: Place, uninterrupted: Place, left_behind: list[list[Event]]) -> None:
    """Models, thresholds and metrics are those of a plan that nobody disturbed, and the log has it all."""
    assert place.models() == uninterrupted.models()
    results, expected = place.results(), uninterrupted.results()
    assert (results.thresholds, results.metrics) == (expected.thresholds, expected.metrics)
    assert results.status == "completed"
    events = place.events()
    assert [event.position for event in events] == list(range(len(events)))
    for before in left_behind:
        assert events[: len(before)] == before
    assert epochs(place) == epochs(uninterrupted)
    wait_for(lambda: not processes_that_name(place.plan()))


def epochs(place: Place) -> dict[str, list[int]]:
    """Epochs of each model that the log knows of, one that came twice counted once."""
    found: dict[str, set[int]] = {}
    for fact in place.facts():
        if isinstance(fact, EpochFinished):
            found.setdefault(fact.model, set()).add(fact.epoch)
    return {model: sorted(numbers) for model, numbers in found.items()}
