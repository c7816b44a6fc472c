"""Whose scores are compared with what, and when drift is news."""

import hashlib
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from core.analytics.drift import Drift
from core.analytics.versions import ModelVersion
from core.events.catalogue import to_event
from core.events.log import EventLog
from core.planning.sensors.drift import (
    DriftMemory,
    DriftSeen,
    Told,
    judge,
    look_for_drift,
    served_version,
    watched_datasets,
)
from core.training.score_curves import measure_scores
from settings.app import Settings, load_settings
from settings.errors import SettingsError
from settings.layout import Layout

RNG = np.random.default_rng(0)
BENIGN = RNG.beta(2, 20, 1000)
DRIFT = Drift(1.0, 0.0, 300, 400, [0.0, 0.5, 1.0], [0.5, 0.5], [0.9, 0.1], 0.1, is_enough=True, is_drift=True)
VERSION = ModelVersion(
    dataset="car", phase="fusion", number=1, plan_id="p1", saved_at=datetime(2026, 11, 3, tzinfo=UTC),
    path="/elsewhere/fusion_agent_car.pth", sha256=hashlib.sha256(b"one").hexdigest(), parent_sha256="",
    data_digest="d1", settings_digest="s", num_parameters={}, role="champion",
)  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(
        data={"data_dir": tmp_path / "data", "datasets": {"car": {"folder": "car"}}},
        drift={"recent_dir": tmp_path / "recent"},
        output_dir=tmp_path / "out",
    )


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    """A plan that said how the scores of its model lay on validation windows."""
    log = EventLog(tmp_path / "log")
    scores = measure_scores("car", "fusion", None, BENIGN, np.zeros(len(BENIGN), bool), 0.5)
    log.append([to_event("p1", scores)])
    return log


def test_only_datasets_with_recent_traffic_are_looked_at(settings: Settings, tmp_path: Path) -> None:
    assert watched_datasets(settings, ()) == []
    (tmp_path / "recent" / "car").mkdir(parents=True)
    (tmp_path / "recent" / "unknown").mkdir()
    assert watched_datasets(settings, ()) == ["car"]
    assert watched_datasets(load_settings(), ()) == []
    with pytest.raises(SettingsError, match="unknown dataset"):
        watched_datasets(settings, ["../../etc"])


def test_without_traffic_or_a_model_there_is_nothing_to_say(settings: Settings, tmp_path: Path) -> None:
    assert look_for_drift(settings, "car", None).status == "nothing recent"
    (tmp_path / "recent" / "car").mkdir(parents=True)
    (tmp_path / "recent" / "car" / "a.csv").write_text("timestamp,arbitration_id,data_field,attack\n")
    assert look_for_drift(settings, "car", None).status == "no model"


def test_the_champion_scores_unless_its_file_was_replaced(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    challenger = replace(VERSION, number=2, sha256=hashlib.sha256(b"two").hexdigest(), role="challenger")
    versions = {("car", "fusion"): (VERSION, challenger)}
    assert served_version(versions, layout, "car") is None
    layout.saved_models.mkdir()
    file = layout.saved_models / "fusion_agent_car.pth"
    for content, version in ((b"one", VERSION), (b"two", challenger), (b"something else", None)):
        file.write_bytes(content)
        assert served_version(versions, layout, "car") == version


def test_drift_is_news_once_for_the_captures_that_the_models_were_trained_on(
    settings: Settings, log: EventLog
) -> None:
    drifted, steady = RNG.beta(6, 6, 600), RNG.beta(2, 20, 600)

    def status(scores: object, told: Told | None) -> str:
        return judge("car", VERSION, log, scores, settings, "1 captures", told).status

    now = time.time()
    assert status(drifted, None) == "drifted"
    assert status(drifted, Told("d1", VERSION.sha256, now)) == "told"
    assert status(drifted, Told("d0", VERSION.sha256, now)) == "drifted"
    assert status(steady, Told("d1", VERSION.sha256, now)) == "steady"
    assert status(drifted[:50], None) == "too few"


def test_drift_that_nobody_acted_on_for_a_day_is_told_once_more(settings: Settings, log: EventLog) -> None:
    drifted, yesterday = RNG.beta(20, 2, 1000), time.time() - 90_000
    for sha256, expected in ((VERSION.sha256, "drifted"), ("the model before it was retrained", "told")):
        told = Told("d1", sha256, yesterday)
        assert judge("car", VERSION, log, drifted, settings, "1 captures", told).status == expected


def test_a_model_whose_scores_were_not_told_cannot_be_compared(settings: Settings, log: EventLog) -> None:
    older = replace(VERSION, plan_id="p0")
    assert judge("car", older, log, BENIGN, settings, "", None).status == "no model"


def test_what_was_told_is_remembered_until_scores_are_steady(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for status, is_told in (("drifted", True), ("told", True), ("too few", True), ("steady", False)):
        memory = DriftMemory.read(layout, "car")
        memory.remember(DriftSeen("car", status, "", VERSION, DRIFT))  # type: ignore[arg-type]
        told = DriftMemory.read(layout, "car").told
        assert bool(told and told.covers(VERSION)) == is_told
    assert [look["status"] for look in memory.seen] == ["drifted", "told", "too few", "steady"]
    for _ in range(300):
        memory.seen.append({})
    memory.remember(DriftSeen("car", "steady", "", VERSION, DRIFT))
    assert len(DriftMemory.read(layout, "car").seen) == 200


@pytest.mark.parametrize("content", ["", "{", "[]", '{"told": "d"}', '{"told": {"d": 1}}'])
def test_a_memory_that_is_damaged_is_forgotten(tmp_path: Path, content: str) -> None:
    layout = Layout(tmp_path)
    layout.watched.mkdir()
    (layout.watched / "drift-car.json").write_text(content)
    assert DriftMemory.read(layout, "car").told is None
