"""Machines that share a folder or a bucket: each has an output directory of its own, and they do one plan."""

import re
import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from core.can.demo import ensure_demo
from core.errors import LeaseHeldError, StorageError
from core.events.catalogue import (
    ChainStarted,
    CheckpointWritten,
    Fact,
    GraphsLost,
    ModelSaved,
    PlanCreated,
    TrainingResumed,
    to_event,
    to_fact,
)
from core.events.log import EventLog
from core.events.open import POINTER, bind_storage, open_log
from core.events.shared_telemetry import fetched_telemetry
from core.events.telemetry import read_telemetry
from core.planning.coordinator import RetrainingCoordinator
from core.planning.live.watching import Watch
from core.planning.plan_state import PLAN_STATE
from core.planning.shared.plan_claims import is_carried_out, plan_claimed
from settings.app import Settings, load_settings
from settings.errors import SettingsError
from settings.layout import Layout
from tests.commands import HANG_S, TINY, config, run, start, wait_for
from tests.sample_log import sample_events

LOST_AT = "student_gat"


class Fleet(NamedTuple):
    """Machines that share a storage.

    Attributes:
        folder: Their output directories are in it.
        url: The storage.
        variables: Environment of their commands.
        config: Their settings file.
    """

    folder: Path
    url: str
    variables: dict[str, Any]
    config: Path

    def output_dir(self, host: int) -> Path:
        return self.folder / f"host-{host}"

    def settings(self, host: int) -> Settings:
        return load_settings(self.config, output_dir=self.output_dir(host))

    def bound(self, host: int) -> Layout:
        return bind_storage(self.settings(host))


@pytest.fixture(scope="module", params=["folder", "bucket"])
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "folder":
        url, variables = str(folder / "share"), dict[str, str]()
        Path(url).mkdir()
    else:
        url, variables = _new_bucket(request.getfixturevalue("object_server"))
    settings = config(
        folder,
        storage={"url": url},
        training={**TINY["training"], "checkpoint_interval_s": 0.0},
        tracking={"mlflow": False},
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield Fleet(folder, url, variables, settings)


def _new_bucket(server: str) -> tuple[str, dict[str, str]]:
    from s3fs import S3FileSystem

    bucket = f"fleet-{uuid.uuid4().hex}"
    S3FileSystem(endpoint_url=server, key="key", secret="secret").mkdir(bucket)  # noqa: S106 - of a test's server
    variables = {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    return f"s3://{bucket}/team/can", variables


@pytest.fixture(scope="module")
def plan_id(fleet: Fleet) -> str:
    """A plan that host 1 made, host 2 was lost in the middle of, and host 3 completed."""
    coordinator = RetrainingCoordinator(fleet.settings(1))
    plan = coordinator.create_retraining_plan(datasets=["demo"])
    coordinator.begin(plan)
    job = ("tests.host", str(fleet.config))
    lost = run(*job, str(fleet.output_dir(2)), plan.plan_id, LOST_AT, **fleet.variables)
    assert lost.returncode == -signal.SIGKILL, lost.stdout + lost.stderr
    taken_over = run(*job, str(fleet.output_dir(3)), plan.plan_id, **fleet.variables)
    assert taken_over.stdout.splitlines()[-1:] == ["completed"], taken_over.stdout + taken_over.stderr
    return plan.plan_id


def facts_of(fleet: Fleet, plan_id: str) -> list[Fact]:
    return [to_fact(event) for event in open_log(fleet.bound(1)).read(plan_id)]


def saved_models(facts: list[Fact]) -> dict[str, str]:
    return {fact.phase: fact.sha256 for fact in facts if isinstance(fact, ModelSaved)}


@pytest.mark.slow
def test_a_chain_goes_on_elsewhere_from_its_last_checkpoint_to_the_same_models(
    fleet: Fleet, plan_id: str, finished: Path
) -> None:
    facts = facts_of(fleet, plan_id)
    began = [place for place, fact in enumerate(facts) if isinstance(fact, ChainStarted)]
    assert len(began) == 2
    before, after = facts[: began[1]], facts[began[1] :]
    assert sum(isinstance(fact, GraphsLost) for fact in after) == 1, "graphs are no part of what is shared"
    assert {fact.phase for fact in after if isinstance(fact, ModelSaved)} == {"student", "fusion"}
    last = {fact.model: fact for fact in before if isinstance(fact, CheckpointWritten)}
    resumed = {fact.model: fact for fact in after if isinstance(fact, TrainingResumed)}
    assert resumed.keys() == {"student_vgae", LOST_AT}
    assert {Path(fact.path).name for fact in resumed.values()} == {
        Path(last[model].path).name for model in resumed
    }
    (undisturbed,) = open_log(Layout(finished)).streams()
    local = [to_fact(event) for event in open_log(Layout(finished)).read(undisturbed)]
    assert saved_models(facts) == saved_models(local)


@pytest.mark.slow
def test_every_machine_sees_the_plan_its_samples_and_its_models(fleet: Fleet, plan_id: str) -> None:
    there = ("--config", str(fleet.config), "--output-dir", str(fleet.output_dir(4)))
    status = run("flows.status", *there, **fleet.variables)
    assert status.returncode == 0, status.stderr
    assert plan_id in status.stdout
    assert "completed" in status.stdout
    assert run("flows.verify", *there, **fleet.variables).returncode == 0

    capture = next(ensure_demo(fleet.settings(4).data.demo).rglob("DoS-1.csv"))
    detected = run("flows.detect", str(capture), "--dataset", "demo", *there, **fleet.variables)
    assert re.match(r"\d+ windows, \d+ alarms", detected.stdout), detected.stderr

    # From now on the output directory itself knows where its storage is.
    bound = ("--output-dir", str(fleet.output_dir(4)))
    analyzed = run("flows.analyze", *bound, **fleet.variables)
    assert analyzed.returncode == 0, analyzed.stderr
    layout = Layout(fleet.output_dir(4))
    assert layout.plan_file(plan_id, "dashboard.html").stat().st_size > 10_000
    samples = read_telemetry(fetched_telemetry(layout, plan_id), plan_id)
    assert len(samples) > 5
    assert samples.select("occurred_at", "gpu_index").is_unique().all(), "no sample counts twice"
    assert not list(Layout(fleet.output_dir(3)).unshared_telemetry.rglob("*.parquet"))
    again = RetrainingCoordinator(fleet.settings(4)).create_retraining_plan(datasets=["demo"])
    assert {step.action for step in again.steps} == {"skip"}, "nothing is stale because it was made elsewhere"


# Which storage an output directory has


STARTED = to_event("plan-1", ChainStarted(dataset="demo", holder="elsewhere:1:a"))


def bind(output_dir: Path, url: Path | str) -> Layout:
    return bind_storage(load_settings(output_dir=output_dir, storage={"url": str(url)}))


@pytest.fixture
def share(tmp_path: Path) -> Path:
    folder = tmp_path / "share"
    folder.mkdir()
    return folder


def test_an_output_directory_finds_its_storage_once_it_is_bound(tmp_path: Path, share: Path) -> None:
    open_log(bind(tmp_path / "one", share)).append([STARTED])
    bind(tmp_path / "two", share)
    assert open_log(Layout(tmp_path / "two")).streams() == ["plan-1"]
    assert not (tmp_path / "two" / "events").exists()
    assert bind_storage(load_settings(output_dir=tmp_path / "two")) == Layout(tmp_path / "two")


def test_an_output_directory_is_bound_once_and_both_places_are_said(tmp_path: Path, share: Path) -> None:
    bind(tmp_path / "out", share)
    (tmp_path / "other").mkdir()
    with pytest.raises(SettingsError) as raised:
        bind(tmp_path / "out", tmp_path / "other")
    assert str(tmp_path / "other") in str(raised.value)
    assert f"is bound to {share} ({tmp_path / 'out' / POINTER})" in str(raised.value)
    assert list((tmp_path / "other").iterdir()) == []


def test_a_log_of_its_own_is_not_silently_left_behind(tmp_path: Path, share: Path) -> None:
    EventLog(Layout(tmp_path / "out").events).append([STARTED])
    with pytest.raises(SettingsError, match="has an event log of its own"):
        bind(tmp_path / "out", share)
    assert len(open_log(Layout(tmp_path / "out")).read("plan-1")) == 1


def test_a_relative_folder_is_the_same_one_wherever_a_command_is_run(
    tmp_path: Path, share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bind(tmp_path / "out", "share")
    monkeypatch.chdir("/")
    assert open_log(Layout(tmp_path / "out")).location == str(share / "events")


def test_a_share_that_is_not_mounted_is_no_empty_log(tmp_path: Path, share: Path) -> None:
    layout = bind(tmp_path / "out", share)
    share.rename(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match="is no folder on this machine: mount it"):
        bind(tmp_path / "new", share)
    for is_mount_point in (False, True):
        if is_mount_point:
            share.mkdir()
        with pytest.raises(StorageError, match="nothing lies there; is it mounted"):
            open_log(layout)
    bind(tmp_path / "new", share)
    with pytest.raises(StorageError, match="another one lies there"):
        open_log(layout)


@pytest.mark.parametrize("pointer", ["", "{}", "[]", '{"url": "ftp://a", "identity": "b"}', '{"url": 1}'])
def test_a_damaged_pointer_is_said_and_nothing_is_written_elsewhere(tmp_path: Path, pointer: str) -> None:
    (tmp_path / POINTER).write_text(pointer)
    with pytest.raises(StorageError, match=f"{POINTER} does not say where the storage"):
        open_log(Layout(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [POINTER]


@pytest.mark.parametrize(
    "url",
    ["s3://", "s3://key:secret@bucket/a", "s3://bucket/../other", "s3://bucket/a?b", "http://host/a", "a\0b"],
)
def test_what_is_neither_a_folder_nor_a_bucket_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"storage\.url"):
        load_settings(storage={"url": url})


def test_where_outputs_are_kept_is_no_part_of_a_plan(tmp_path: Path, share: Path) -> None:
    settings = load_settings(output_dir=tmp_path / "out", storage={"url": str(share)})
    coordinator = RetrainingCoordinator(settings)
    plan = coordinator.create_retraining_plan(datasets=["demo"])
    coordinator.begin(plan)
    (event,) = open_log(Layout(tmp_path / "out")).read(plan.plan_id)
    assert event.type == PlanCreated.TYPE
    assert "storage" not in event.payload["settings"]
    (tmp_path / "moved").mkdir()
    share.rename(tmp_path / "moved" / "share")
    moved = bind(tmp_path / "new", tmp_path / "moved" / "share")
    assert RetrainingCoordinator(
        load_settings(output_dir=moved.root, storage={"url": str(tmp_path / "moved" / "share")})
    ).resumable(plan.plan_id)


@pytest.mark.parametrize("command", [("flows.status",), ("flows.retrain", "--dry-run")], ids=" ".join)
def test_a_server_that_is_away_is_one_clear_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    away: dict[str, Any] = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "CAN_RETRAIN__STORAGE__URL": "s3://bucket/team",
    }
    shown = run(*command, "--output-dir", str(tmp_path / "out"), **away)
    assert shown.returncode == 1, shown.stdout + shown.stderr
    (line,) = shown.stderr.splitlines()
    assert line.startswith("error: cannot use the storage s3://bucket/team: ")
    assert "hunter2" not in shown.stdout + shown.stderr
    assert not (tmp_path / "out" / POINTER).exists()


def test_without_s3fs_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(StorageError, match=r"s3://bucket/a needs s3fs.*can-ids-retrain\[s3\]"):
        bind(tmp_path, "s3://bucket/a")


def test_one_machine_carries_out_a_plan_and_the_next_one_may_when_it_is_done(
    tmp_path: Path, share: Path
) -> None:
    one, two = bind(tmp_path / "one", share), bind(tmp_path / "two", share)
    with plan_claimed(one, "plan-1", lease_s=30.0) as require:  # it lives though the machine stood still
        require()
        assert is_carried_out(two, "plan-1")
        with (
            pytest.raises(LeaseHeldError, match="is carrying out plan plan-1"),
            plan_claimed(two, "plan-1", 1.0),
        ):
            pass
        with plan_claimed(two, "plan-2", lease_s=1.0):
            require()
    assert not is_carried_out(two, "plan-1")
    with plan_claimed(two, "plan-1", lease_s=60.0):
        pass


def test_an_output_directory_that_shares_nothing_has_no_leases_of_plans(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "out")
    with plan_claimed(layout, "plan-1", 1.0) as require:
        require()
        assert not is_carried_out(layout, "plan-1")
    assert not layout.root.exists()


def test_a_plan_is_watched_from_another_machine(fleet: Fleet, tmp_path: Path) -> None:
    place = f"{fleet.url}-watched"
    if "://" not in place:
        Path(place).mkdir()
    one, other = bind(tmp_path / "one", place), bind(tmp_path / "other", place)
    log = open_log(one)
    begun, rest = sample_events()[:20], sample_events()[20:]
    ended = PLAN_STATE.fold([*begun, *rest]).status
    log.append([event._replace(stream="watched", position=-1) for event in begun])
    watch = Watch(other.root, "watched")
    before = watch.look()
    assert before.plan_id == "watched"
    assert before.status == "interrupted", "nobody carries it out"
    with plan_claimed(one, "watched", lease_s=60.0):
        assert watch.look().status == "running"
        log.append([event._replace(stream="watched", position=-1) for event in rest])
        wait_for(lambda: watch.look().status == ended)


@pytest.mark.slow
def test_a_command_tells_of_the_plan_that_it_began_and_not_of_one_that_another_machine_began_meanwhile(
    tmp_path: Path,
) -> None:
    storage = tmp_path / "share"
    storage.mkdir()
    settings = config(tmp_path, storage={"url": str(storage)}, tracking={"mlflow": False})
    command = ("flows.retrain", "--config", str(settings), "--datasets", "demo", "--output-dir")
    process = start(*command, str(tmp_path / "host-1"))
    log = EventLog(storage / "events")
    wait_for(log.streams, process)
    (own,) = log.streams()
    elsewhere = RetrainingCoordinator(load_settings(settings, output_dir=tmp_path / "host-2"))
    elsewhere.begin(elsewhere.create_retraining_plan(datasets=["demo"]))
    out, err = process.communicate(timeout=HANG_S)
    assert process.returncode == 0, out + err
    assert len(log.streams()) == 2
    assert re.findall(r"^Plan (\S+):", out, re.MULTILINE) == [own]
