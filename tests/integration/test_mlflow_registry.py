"""MLflow's registered models are the log's versions: numbers, lineage, aliases; and they heal."""

from pathlib import Path
from typing import Any

import pytest

from core.analytics.versions import fold_versions
from core.events.catalogue import ModelSaved, PlanCreated, ThresholdCalibrated, to_event
from core.events.log import EventLog
from core.training import artifacts
from settings.layout import Layout
from settings.tracking import TrackingSettings
from tests.mlflow_helpers import (
    content,
    empty_store,
    make_template,
    mlflow_server,
    registry,
    sample_history,
)

# MLflow and alembic warn about each other.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

SCORES = (0.90, 0.93, 0.80)
TEACHER = "can-ids-hcrl_sa-teacher"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Path:
    """A store with three versions of each model, and the log below ``out``; only looked at."""
    folder = tmp_path_factory.mktemp("registered")
    sample_history(folder / "out", *SCORES)
    update(folder / "out", empty_store(folder, template))
    return folder


@pytest.fixture
def store(tmp_path: Path, template: Path) -> TrackingSettings:
    return empty_store(tmp_path, template)


def update(output_dir: Path, tracking: TrackingSettings) -> None:
    from tasks.mlflow_projection import catch_up

    catch_up(output_dir, tracking)


def client_of(tracking: TrackingSettings) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking.mlflow_uri.get_secret_value())


def save(output_dir: Path, plan_id: str, dataset: str, sha256: str) -> None:
    """A plan that saved and calibrated a teacher."""
    saved = ModelSaved(
        dataset=dataset, phase="teacher", path="t.pth", sha256=sha256, data_digest="d", settings_digest="s",
        parent_sha256="", num_parameters={"teacher_gat": 1},
    )  # fmt: skip
    facts = [
        PlanCreated(steps=[], settings={}, machine={}, force=False, previous=[]),
        saved,
        ThresholdCalibrated(dataset=dataset, model="teacher_gat", threshold=0.5, val_mcc=0.5),
    ]
    EventLog(Layout(output_dir).events).append([to_event(plan_id, fact) for fact in facts])


def test_versions_roles_and_lineage_are_those_of_the_log(registered: Path) -> None:
    log = EventLog(Layout(registered / "out").events)
    folded = fold_versions([log.read(stream) for stream in log.streams()])
    there = registry(registered)
    assert set(there) == {f"can-ids-{dataset}-{phase}" for dataset, phase in folded}
    for (dataset, phase), versions in folded.items():
        model = there[f"can-ids-{dataset}-{phase}"]
        assert model["aliases"] == {v.role: str(v.number) for v in versions if v.role}
        assert list(model["versions"]) == [str(v.number) for v in versions]
        for version in versions:
            shown = model["versions"][str(version.number)]
            assert shown["run"] == f"{version.plan_id}/{dataset}/{phase}"
            assert shown["source"] == "/artifacts/model"
            tags = {name.removeprefix("can_retrain."): value for name, value in shown["tags"].items()}
            assert tags["number"] == str(version.number)
            assert tags["sha256"] == version.sha256
            assert tags["data_digest"] == version.data_digest
            assert tags["settings_digest"] == version.settings_digest
            assert tags["code_version"] == "1.2.3"
            assert tags["code_commit"] == version.code_commit
            assert tags["plan"] == version.plan_id
            assert tags.get("role", "") == version.role
            assert tags.get("val_mcc") == (None if dataset == "set_01" else str(SCORES[version.number - 1]))
            above = {"student": "teacher", "fusion": "student"}.get(phase)
            assert tags.get("parent") == (above and f"can-ids-{dataset}-{above}/{version.number}")
            assert version.reason.lower() in shown["description"].lower()
    assert there[TEACHER]["aliases"] == {"champion": "2", "challenger": "3"}
    assert there["can-ids-set_01-teacher"]["aliases"] == {"challenger": "3"}  # never calibrated
    assert "validation MCC 0.930, best champion 0.900" in there[TEACHER]["description"]


def test_a_server_registers_the_same_as_a_database_and_again_changes_nothing(
    tmp_path: Path, registered: Path, template: Path
) -> None:
    with mlflow_server(tmp_path / "server", template) as url:
        remote = TrackingSettings(mlflow_uri=url)
        update(registered / "out", remote)
        first = registry(tmp_path / "server")
        touched = [v.last_updated_timestamp for v in client_of(remote).search_model_versions()]
        update(registered / "out", remote)
        assert [v.last_updated_timestamp for v in client_of(remote).search_model_versions()] == touched
    assert first == registry(tmp_path / "server") == registry(registered)


def test_the_champions_files_are_had_by_its_alias(
    tmp_path: Path, store: TrackingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    import torch

    path = Layout(tmp_path).saved_models / "best_teacher_model_car.pth"
    sha256 = artifacts.save(path, {"version": 1, "gat": {"weight": torch.ones(2)}})
    saved = ModelSaved(
        dataset="car", phase="teacher", path=str(path), sha256=sha256, data_digest="d", settings_digest="s",
        parent_sha256="", num_parameters={},
    )  # fmt: skip
    EventLog(Layout(tmp_path).events).append([to_event("plan-1", saved)])
    update(tmp_path, store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.mlflow_uri.get_secret_value())
    folder = Path(mlflow.artifacts.download_artifacts("models:/can-ids-car-teacher@challenger"))
    assert {file.name for file in folder.iterdir()} == {f"{path.stem}.json", f"{path.stem}.safetensors"}


def test_what_people_did_to_the_registry_is_healed_and_what_they_wrote_is_kept(
    tmp_path: Path, store: TrackingSettings
) -> None:
    sample_history(tmp_path / "out", *SCORES)
    update(tmp_path / "out", store)
    before = registry(tmp_path)
    client = client_of(store)
    twin = client.get_model_version(TEACHER, "3")
    client.create_model_version(TEACHER, twin.source, twin.run_id, twin.tags)  # its first answer was lost
    client.delete_model_version(TEACHER, "2")  # the champion
    client.set_registered_model_alias(TEACHER, "champion", "1")
    client.set_registered_model_alias(TEACHER, "production", "1")
    client.set_model_version_tag(TEACHER, "1", "approved_by", "me")
    client.update_model_version(TEACHER, "1", before[TEACHER]["versions"]["1"]["description"] + "\nmine")
    client.delete_registered_model("can-ids-hcrl_sa-fusion")
    client.rename_registered_model("can-ids-hcrl_sa-student", "my student")
    update(tmp_path / "out", store)
    after = registry(tmp_path)

    assert after["can-ids-hcrl_sa-fusion"]["versions"].keys() == {"1", "2", "3"}
    assert after["can-ids-hcrl_sa-fusion"]["aliases"] == before["can-ids-hcrl_sa-fusion"]["aliases"]
    assert "can-ids-hcrl_sa-student" not in after
    assert after["my student"]["versions"].keys() == {"1", "2", "3"}
    teacher = after[TEACHER]
    numbers = {number: v["tags"]["can_retrain.number"] for number, v in teacher["versions"].items()}
    assert numbers == {"1": "1", "3": "3", "5": "2"}  # MLflow gives no number twice
    assert teacher["aliases"] == {"champion": "5", "challenger": "3", "production": "1"}
    assert teacher["versions"]["1"]["tags"]["approved_by"] == "me"
    assert teacher["versions"]["1"]["description"].endswith("\nmine")
    fusion = after["can-ids-hcrl_sa-fusion"]["versions"]["1"]
    assert fusion["tags"]["can_retrain.parent"] == "my student/1"
    update(tmp_path / "out", store)
    assert registry(tmp_path) == after


def test_a_new_plan_moves_the_aliases_and_registers_what_earlier_plans_could_not(
    tmp_path: Path, store: TrackingSettings
) -> None:
    from tasks.mlflow_projection import project_to_mlflow

    sample_history(tmp_path / "out", 0.9)
    update(tmp_path / "out", store)
    assert registry(tmp_path)[TEACHER]["aliases"] == {"champion": "1"}
    sample_history(tmp_path / "all", 0.9, 0.93, 0.95)
    for plan_id in ("plan-02", "plan-03"):
        events = EventLog(Layout(tmp_path / "all").events).read(plan_id)
        EventLog(Layout(tmp_path / "out").events).append(events)
    project_to_mlflow(tmp_path / "out", "plan-03", store)  # plan-02 was never told
    assert registry(tmp_path)[TEACHER]["aliases"] == {"champion": "3"}
    assert registry(tmp_path)[TEACHER]["versions"]["2"]["run"] == "plan-02/hcrl_sa/teacher"
    assert "plan-02/hcrl_sa/teacher" in content(tmp_path)


def test_names_are_allowed_whatever_a_dataset_is_called_and_two_logs_share_a_server_apart(
    tmp_path: Path, store: TrackingSettings
) -> None:
    names = ["a/b", "a:b", "a_b", "quote'd", "..", "ü `x`", "x" * 300]
    for number, name in enumerate(names):
        save(tmp_path / "one", f"plan-{number}", name, f"one-{number}")
    save(tmp_path / "other", "plan-other", "a_b", "other")
    for _ in range(2):
        update(tmp_path / "one", store)
        update(tmp_path / "other", store)
    there = registry(tmp_path)
    assert len(there) == len(names) + 1
    assert all(list(model["versions"]) == ["1"] for model in there.values())
    owners = [m for m in there.values() if m["tags"]["can_retrain.dataset"] == "a_b"]
    assert {m["versions"]["1"]["tags"]["can_retrain.sha256"] for m in owners} == {"one-2", "other"}


def test_a_plan_that_cannot_be_read_leaves_registered_models_as_they_are(
    tmp_path: Path, store: TrackingSettings
) -> None:
    from settings.errors import RetrainError
    from tasks.mlflow_projection import catch_up, project_to_mlflow

    sample_history(tmp_path / "out", *SCORES[:2])
    update(tmp_path / "out", store)
    before = registry(tmp_path)
    segment = next((Layout(tmp_path / "out").events / "plan-02").glob("*.parquet"))
    segment.write_bytes(segment.read_bytes()[:-100])
    with pytest.raises(RetrainError, match=r"models are not registered in MLflow, runs are: .*plan-02"):
        project_to_mlflow(tmp_path / "out", "plan-01", store)
    assert catch_up(tmp_path / "out", store, {"plan-02"}) == 0
    assert registry(tmp_path) == before
