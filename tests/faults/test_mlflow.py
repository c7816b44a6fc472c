"""MLflow killed, away, silent, locked or crowded: nothing is lost or doubled, and training never notices."""

import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from mlflow import MlflowClient

from core.events.catalogue import EpochFinished
from core.events.log import EventLog
from core.planning.plan_state import PLAN_STATE
from core.planning.shared.lock import acquire
from settings.errors import RetrainError
from settings.layout import Layout
from settings.tracking import TrackingSettings
from tasks.mlflow_process import live_curves, update_in_time
from tasks.mlflow_projection import catch_up, project_to_mlflow
from tests.commands import BUSY_S, HANG_S, ROOT, config, environment, processes_that_name, run, wait_for
from tests.forkservers import forkserver
from tests.mlflow_helpers import (
    content,
    empty_store,
    make_template,
    mlflow_server,
    patient,
    registry,
    sample_history,
    sample_plan,
    without_ids,
)
from tests.sample_log import PLAN_ID

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.filterwarnings("default")]

NUM_PLANS = 10
SOONEST_S, LATER = 0.03, 1.15


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes that have MLflow loaded when they start: what is killed or raced is the projection."""
    return forkserver()


def kill_until_one_survives(
    context: ForkServerContext, project: Callable[..., int], *arguments: Path | str | TrackingSettings
) -> int:
    """Start a projector again and again, killed ever later, until one ends by itself; returns the kills.

    Ever later by a share: a slow machine does not take the square of its time.
    """
    kills, jitter = 0, random.Random(5)
    while True:
        projector = context.Process(target=patient, args=(project, *arguments))
        projector.start()
        projector.join(SOONEST_S * LATER**kills * jitter.uniform(0.8, 1.0))
        projector.kill()
        projector.join()
        if projector.exitcode == 0:
            return kills
        assert projector.exitcode == -signal.SIGKILL
        kills += 1


def test_a_projector_killed_at_any_moment_loses_and_doubles_nothing(
    tmp_path: Path, template: Path, processes: ForkServerContext
) -> None:
    sample_plan(tmp_path / "out")
    plan = (tmp_path / "out", PLAN_ID)
    calm = empty_store(tmp_path / "calm", template)
    project_to_mlflow(tmp_path / "out", PLAN_ID, calm)
    harassed = TrackingSettings(mlflow_uri=f"sqlite:///{tmp_path}/harassed/store.db")  # made under fire, too
    assert kill_until_one_survives(processes, project_to_mlflow, *plan, harassed) > 1
    assert project_to_mlflow(tmp_path / "out", PLAN_ID, harassed) == 0
    assert without_ids(content(tmp_path / "harassed")) == without_ids(content(tmp_path / "calm"))
    assert registry(tmp_path / "harassed") == registry(tmp_path / "calm") != {}

    again = empty_store(tmp_path / "again", template)
    assert kill_until_one_survives(processes, project_to_mlflow, *plan, again) > 1
    assert without_ids(content(tmp_path / "again")) == without_ids(content(tmp_path / "calm"))


def test_registered_models_are_the_same_however_often_their_writer_was_killed(
    tmp_path: Path, template: Path, processes: ForkServerContext
) -> None:
    sample_history(tmp_path / "out", 0.9, 0.93)
    calm = empty_store(tmp_path / "calm", template)
    catch_up(tmp_path / "out", calm)
    harassed = TrackingSettings(mlflow_uri=f"sqlite:///{tmp_path}/harassed/store.db")
    (tmp_path / "harassed").mkdir()
    shutil.copyfile(tmp_path / "calm" / "store.db", tmp_path / "harassed" / "store.db")
    client = MlflowClient(harassed.mlflow_uri.get_secret_value())
    for name in registry(tmp_path / "harassed"):
        client.delete_registered_model(name)  # what is killed is the making of versions and aliases
    assert kill_until_one_survives(processes, catch_up, tmp_path / "out", harassed) > 1
    assert registry(tmp_path / "harassed") == registry(tmp_path / "calm") != {}
    assert {tuple(model["aliases"].items()) for model in registry(tmp_path / "calm").values()} == {
        (("champion", "2"),), (("challenger", "2"),),
    }  # fmt: skip


def test_a_real_server_is_left_whole_by_killed_projectors_and_loses_nothing_of_ten_plans_at_once(
    tmp_path: Path, template: Path, processes: ForkServerContext
) -> None:
    sample_plan(tmp_path / "out")
    plan = (tmp_path / "out", PLAN_ID)
    project_to_mlflow(*plan, empty_store(tmp_path / "calm", template))
    with mlflow_server(tmp_path / "server", template) as url:
        remote = TrackingSettings(mlflow_uri=url)
        assert kill_until_one_survives(processes, project_to_mlflow, *plan, remote) > 1
        assert without_ids(content(tmp_path / "server")) == without_ids(content(tmp_path / "calm"))
        assert registry(tmp_path / "server") == registry(tmp_path / "calm")
        ten_plans_at_once(processes, tmp_path, remote)
    assert_ten_plans_are_there(tmp_path / "server", without_ids(content(tmp_path / "calm")))


def test_ten_plans_at_once_make_one_sqlite_store_and_lose_nothing(
    tmp_path: Path, template: Path, processes: ForkServerContext
) -> None:
    sample_plan(tmp_path / "out")
    project_to_mlflow(tmp_path / "out", PLAN_ID, empty_store(tmp_path / "calm", template))
    shared = TrackingSettings(mlflow_uri=f"sqlite:///{tmp_path}/new/store.db")
    ten_plans_at_once(processes, tmp_path, shared)
    assert_ten_plans_are_there(tmp_path / "new", without_ids(content(tmp_path / "calm")))


def ten_plans_at_once(context: ForkServerContext, folder: Path, tracking: TrackingSettings) -> None:
    for number in range(NUM_PLANS):
        sample_plan(folder / f"out-{number}", f"plan-{number}")
    projectors = [
        context.Process(
            target=patient,
            args=(project_to_mlflow, folder / f"out-{number}", f"plan-{number}", tracking, HANG_S),
        )
        for number in range(NUM_PLANS)
    ]
    for projector in projectors:
        projector.start()
    for projector in projectors:
        projector.join()
    assert [projector.exitcode for projector in projectors] == [0] * NUM_PLANS


def assert_ten_plans_are_there(folder: Path, one: dict[str, dict[str, object]]) -> None:
    there = content(folder)
    for number in range(NUM_PLANS):
        for key, run_of_one in one.items():
            of_plan = there[key.replace(PLAN_ID, f"plan-{number}")]
            assert of_plan["metrics"] == run_of_one["metrics"]
            assert of_plan["params"] == run_of_one["params"]
            assert of_plan["run"] == run_of_one["run"]
    registered = registry(folder).values()
    assert len({model["tags"]["can_retrain.log"] for model in registered}) >= NUM_PLANS
    assert all(model["versions"].keys() == {"1"} for model in registered)
    assert sum(key.startswith("plan-") and not key.startswith(PLAN_ID) for key in there) == NUM_PLANS * len(
        one
    )


def test_a_locked_database_is_said_and_caught_up_with_later(tmp_path: Path, template: Path) -> None:
    sample_plan(tmp_path / "out")
    store = empty_store(tmp_path, template)
    with closing(sqlite3.connect(tmp_path / "store.db")) as stranger:
        stranger.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RetrainError, match="catches up later: database is locked"):
            project_to_mlflow(tmp_path / "out", PLAN_ID, store)
    assert catch_up(tmp_path / "out", store) > 0


def test_a_second_writer_waits_its_time_and_says_who_is_writing(tmp_path: Path, template: Path) -> None:
    sample_plan(tmp_path / "out")
    store = empty_store(tmp_path, template)
    for lock in (tmp_path / "out" / ".mlflow.lock", tmp_path / "store.db.lock"):
        with (
            acquire(lock, 0.0),
            pytest.raises(RetrainError, match=f"catches up later: process {os.getpid()} holds {lock}"),
        ):
            project_to_mlflow(tmp_path / "out", PLAN_ID, store, patience_s=0.1)
    assert project_to_mlflow(tmp_path / "out", PLAN_ID, store) > 0


def test_a_server_that_is_away_or_too_slow_is_given_up_in_time_with_one_line(tmp_path: Path) -> None:
    sample_plan(tmp_path)
    with pytest.raises(RetrainError, match="catches up later: API request") as raised:
        update_in_time(tmp_path, PLAN_ID, TrackingSettings(mlflow_uri="http://127.0.0.1:9"))
    assert "\n" not in str(raised.value)
    with silent_server() as url, pytest.raises(RetrainError, match=r"longer than 5 s .* catches up later"):
        update_in_time(tmp_path, PLAN_ID, TrackingSettings(mlflow_uri=url, mlflow_limit_s=5.0))
    assert not processes_that_name(str(tmp_path))


@contextmanager
def silent_server() -> Iterator[str]:
    """A server that takes every connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_curves_are_live_while_a_plan_runs_and_nothing_is_left_running(
    tmp_path: Path, template: Path
) -> None:
    events = sample_plan(tmp_path / "whole")
    log = EventLog(Layout(tmp_path / "out").events)
    store = empty_store(tmp_path, template).model_copy(update={"mlflow_every_s": 0.2})
    last = max(event.position for event in events if event.type == EpochFinished.TYPE)
    with live_curves(tmp_path / "out", PLAN_ID, store):
        log.append(events[: last // 2])
        wait_for(lambda: position(tmp_path) == last // 2 - 1)
        log.append(events[last // 2 : last])
        wait_for(lambda: position(tmp_path) == last - 1)
    assert not processes_that_name(str(tmp_path))


def position(folder: Path) -> int:
    """How far MLflow is; asked in one statement, as somebody writes meanwhile."""
    with closing(sqlite3.connect(folder / "store.db", timeout=BUSY_S)) as database:
        found = database.execute(
            "SELECT p.value FROM tags p JOIN tags k ON k.run_uuid = p.run_uuid "
            "WHERE p.key = 'can_retrain.position' AND k.key = 'can_retrain.key' AND k.value = ?",
            [PLAN_ID],
        ).fetchone()
    return int(found[0]) if found else -1


def test_who_follows_a_plan_ends_with_the_process_that_began_it(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [
            sys.executable, "-c",
            "import time; from pathlib import Path; from settings.tracking import TrackingSettings\n"
            "from tasks.mlflow_process import live_curves\n"
            f"with live_curves(Path({str(tmp_path)!r}), 'plan-1', TrackingSettings()): time.sleep(600)",
        ],
        cwd=ROOT, env=environment(),
    )  # fmt: skip
    wait_for(lambda: len(processes_that_name(f"{tmp_path}\0plan-1\0--follow")) == 1)
    parent.kill()
    parent.wait()
    wait_for(lambda: not processes_that_name(f"{tmp_path}\0plan-1"))


def test_training_goes_well_with_a_server_that_never_answers_and_mlflow_is_caught_up_with_later(
    tmp_path: Path, template: Path
) -> None:
    output_dir, store = tmp_path / "out", empty_store(tmp_path, template)
    with silent_server() as url:
        tracking = {
            "mlflow_uri": url.replace("//", "//me:hunter2@"),
            "mlflow_every_s": 1.0,
            "mlflow_limit_s": BUSY_S,
        }
        shown = run(
            "flows.retrain", "--config", str(config(tmp_path, tracking=tracking)), "--datasets", "demo",
            "--output-dir", str(output_dir),
        )  # fmt: skip
    assert shown.returncode == 0, shown.stdout + shown.stderr
    said = [line for line in shown.stdout.splitlines() if "MLflow is not up to date" in line]
    assert len(said) == 1
    assert "hunter2" not in shown.stdout + shown.stderr
    assert not [p for p in output_dir.rglob("*") if p.is_file() and b"hunter2" in p.read_bytes()]
    assert "python -m flows.analyze catches up later" in said[0]
    (plan_id,) = EventLog(Layout(output_dir).events).streams()
    assert PLAN_STATE.fold(EventLog(Layout(output_dir).events).read(plan_id)).status == "completed"
    (log,) = Layout(output_dir).process_logs.glob("*-mlflow.log")
    assert log.read_text().count("MLflow is not up to date") <= 1

    assert catch_up(output_dir, store) > 0
    runs = content(tmp_path)
    names = {"teacher": "best_teacher_model", "student": "final_student_model", "fusion": "fusion_agent"}
    for phase, name in names.items():
        shown_files = set(runs[f"{plan_id}/demo/{phase}"]["artifacts"])
        assert shown_files == {f"model/{name}_demo.safetensors", f"model/{name}_demo.json"}
    assert runs[plan_id]["run"][0] == "FINISHED"
    assert any(name.startswith("system/cpu") for name, *_ in runs[f"{plan_id}/demo"]["metrics"])
