"""What happens by itself, on a real server with real workers: crashes, new captures, drift, notifications."""

import base64
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from core.can.demo import ensure_demo, simulate, write_csv
from core.events.catalogue import CheckpointWritten, Fact, ModelSaved, PlanResumed
from core.events.log import EventLog
from core.planning.plan_state import PLAN_STATE
from deployments.automations import WEBHOOK, ensure_automations, rules
from deployments.changes import Change
from settings.data import DemoSettings
from settings.layout import Layout
from tests.commands import HANG_S, ROOT, TINY, PrefectServer, ask, environment, post, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

PREFECT = str(Path(sys.executable).with_name("prefect"))
QUICK = {
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S",
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
}
CARS = ("car_a", "car_b")
HIDDEN = "hidden-path"
HOSTILE = """x'"}}{{ 7 * 7 }}{% raw %}<script>alert(1)</script>\\u0000"""


class Receiver:
    """A webhook's other end: keeps what it is sent."""

    def __init__(self) -> None:
        received = self.received = list[tuple[str, str, str]]()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                received.append((self.path, self.headers["Content-Type"], body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/{HIDDEN}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> "Receiver":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def of(self, event: str) -> list[dict[str, Any]]:
        """Notifications of a kind of event; a busy server may send one several times."""
        sent = [json.loads(body) for _, _, body in self.received]
        return list({one["id"]: one for one in sent if one["event"] == event}.values())


class Site:
    """A server with deployments and automations, two cars, and workers that train them."""

    def __init__(self, folder: Path, api: str, receiver: Receiver) -> None:
        self.folder, self.api, self.receiver = folder, api, receiver
        self.out, self.recent = folder / "out", folder / "recent"
        self.applied: list[str] = []
        groups: dict[str, Any] = {
            **TINY,
            "data": {"data_dir": str(folder / "data"), "datasets": {car: {"folder": car} for car in CARS}},
            "training": {**TINY["training"], "num_threads": 1, "device": "cpu", "checkpoint_interval_s": 0.0},
            "tracking": {"mlflow": False},
            "drift": {"recent_dir": str(self.recent)},
        }
        variables = {f"CAN_RETRAIN__{name.upper()}": json.dumps(group) for name, group in groups.items()}
        self.variables = {
            **variables,
            "CAN_RETRAIN__OUTPUT_DIR": str(self.out),
            "PREFECT_API_URL": api,
            "PREFECT_HOME": str(folder / "home"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "OMP_WAIT_POLICY": "passive",
        }

    def command(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=ROOT, env=environment(**self.variables), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def ask(self, path: str, **body: Any) -> Any:
        return post(f"{self.api}/{path}", **body)

    def apply(self, webhook_url: str | None = None) -> list[Change]:
        with temporary_settings({PREFECT_API_URL: self.api}), get_client(sync_client=True) as client:
            return ensure_automations(client, webhook_url)

    def edit(self, name: str, **changes: Any) -> None:
        """Change an automation as a person does."""
        automation = self.automation(name)
        kept = ("name", "description", "enabled", "tags", "trigger", "actions")
        fields = {key: automation[key] for key in kept}
        ask("PUT", f"{self.api}/automations/{automation['id']}", body={**fields, **changes})

    def tell(self, *statements: str) -> None:
        """Tell the server events of ours, as flows do."""
        imported = "from core.events.catalogue import PhaseFailed\nfrom tasks.domain_events import *"
        self.command(sys.executable, "-c", "\n".join([imported, *statements]))

    def deployment(self, name: str) -> str:
        (found,) = (d for d in self.ask("deployments/filter") if d["name"] == name)
        return str(found["id"])

    def start(self, name: str, **parameters: Any) -> str:
        begun = self.ask(f"deployments/{self.deployment(name)}/create_flow_run", parameters=parameters)
        return str(begun["id"])

    def finish(self, name: str, **parameters: Any) -> dict[str, Any]:
        """Run a deployment to its end."""
        started = self.start(name, **parameters)
        wait_for(lambda: self._state(started) in ("COMPLETED", "FAILED", "CRASHED"))
        (found,) = self.runs(id={"any_": [started]})
        assert found["state_type"] == "COMPLETED", found["state"]
        return found

    def _state(self, flow_run_id: str) -> str:
        (found,) = self.runs(id={"any_": [flow_run_id]})
        return str(found["state_type"])

    def runs(self, **chosen: Any) -> list[dict[str, Any]]:
        return list(self.ask("flow_runs/filter", flow_runs=chosen, sort="START_TIME_ASC"))

    def retrainings(self) -> list[dict[str, Any]]:
        """Runs of ``retrain/on-demand``, oldest first; of those for one event, which a busy server may begin
        several times, the first."""
        found = self.runs(deployment_id={"any_": [self.deployment("on-demand")]})
        newest_first = sorted(found, key=lambda one: str(one["created"]), reverse=True)
        by_cause = {one["parameters"].get("cause") or one["id"]: one for one in newest_first}
        return list(by_cause.values())[::-1]

    def events(self, *names: str) -> list[dict[str, Any]]:
        asked = {"event": {"name": list(names)}, "order": "ASC"}
        return list(self.ask("events/filter", filter=asked, limit=50)["events"])

    def changes(self) -> list[dict[str, Any]]:
        """Changed captures of the cars."""
        told = self.events("can-retrain.captures.changed")
        return [event for event in told if event["resource"]["can-retrain.dataset"] in CARS]

    def automation(self, name: str) -> dict[str, Any]:
        (found,) = (a for a in self.ask("automations/filter") if a["name"] == f"can-retrain: {name}")
        return dict(found)

    @property
    def log(self) -> EventLog:
        return EventLog(Layout(self.out).events)

    def has(self, *facts: type[Fact]) -> bool:
        """Whether the newest plan has got that far."""
        plans = self.log.streams()
        return bool(plans) and {fact.TYPE for fact in facts} <= {e.type for e in self.log.read(plans[-1])}

    def is_completed(self, plan: int) -> bool:
        plans = self.log.streams()
        return len(plans) > plan and PLAN_STATE.fold(self.log.read(plans[plan])).status == "completed"

    def saved(self, plan: int) -> set[str]:
        """Datasets of which a plan saved models."""
        events = self.log.read(self.log.streams()[plan])
        return {event.payload["dataset"] for event in events if event.type == ModelSaved.TYPE}

    def kill(self, flow_run_id: str) -> None:
        """SIGKILL a flow run's process."""
        name = f"PREFECT__FLOW_RUN_ID={flow_run_id}".encode()
        killed = 0
        for process in psutil.process_iter(["cmdline"]):
            try:
                is_engine = process.info["cmdline"][-2:] == ["-m", "prefect.engine"]
                if is_engine and name in Path(f"/proc/{process.pid}/environ").read_bytes():
                    os.kill(process.pid, signal.SIGKILL)
                    killed += 1
            except (OSError, TypeError):
                continue
        assert killed == 1


@contextmanager
def _worker(site: Site, pool: str) -> Iterator[None]:
    with (site.folder / f"worker-{pool}.log").open("w") as log:
        process = subprocess.Popen(
            [PREFECT, "worker", "start", "--pool", pool],
            cwd=ROOT, env=environment(**site.variables), stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        process.wait(HANG_S)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("automations")
    for seed, car in enumerate(CARS):
        simulated = ensure_demo(DemoSettings(seed=seed, duration_s=8.0, cache_dir=folder / "simulated"))
        shutil.copytree(simulated, folder / "data" / car)
    server = PrefectServer(folder / "server", **QUICK)
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        stack.callback(server.stop)
        server.start()
        site = Site(folder, server.api, receiver)
        # Nothing shall begin by schedule while the tests look.
        site.ask("variables/", name="can_retrain_schedules_active", value=False)
        site.variables["CAN_RETRAIN_WEBHOOK_URL"] = receiver.url
        site.applied = site.command(sys.executable, "-m", "deployments.apply").splitlines()
        del site.variables["CAN_RETRAIN_WEBHOOK_URL"]
        names = [part for name in ("on-demand", "sensor", "drift") for part in ("-n", name)]
        site.command(PREFECT, "--no-prompt", "deploy", *names)
        yield site


@pytest.fixture(scope="module")
def trained(site: Site) -> Iterator[Site]:
    """Both cars were trained by a run that was killed in the middle: what came of it, nobody looked after."""
    with ExitStack() as stack:
        for pool in ("cpu", "gpu"):
            stack.enter_context(_worker(site, pool))
        begun = site.start("on-demand", datasets=list(CARS))
        wait_for(lambda: site.has(CheckpointWritten))
        site.kill(begun)
        wait_for(lambda: site.is_completed(0))
        yield site


def test_applying_again_changes_nothing_and_a_paused_automation_stays_paused(site: Site) -> None:
    assert {(change.thing, change.outcome) for change in site.apply()} == {
        (f"block webhook/{WEBHOOK}", "unchanged"),
        *((f"automation {rule.name}", "unchanged") for rule in rules()),
    }
    automation = site.automation("disk nearly full")
    ask("PATCH", f"{site.api}/automations/{automation['id']}", body={"enabled": False})
    site.edit("disk nearly full", description="edited by hand")
    assert [change.thing for change in site.apply() if change.outcome == "changed"] == [
        "automation can-retrain: disk nearly full"
    ]
    found = site.automation("disk nearly full")
    assert (found["enabled"], found["description"]) == (False, automation["description"])
    ask("PATCH", f"{site.api}/automations/{automation['id']}", body={"enabled": True})


def test_out_of_memory_again_and_again_is_one_notification_that_says_exactly_what_happened(
    site: Site,
) -> None:
    failed = (
        f"PhaseFailed(dataset={HOSTILE!r}, phase='teacher', attempt=1, kind='cuda_oom', message='', "
        "micro_batch_size=1)"
    )
    site.tell(*[f"tell_of('p1', {failed})"] * 7)
    kind = "can-retrain.phase.out-of-memory"
    wait_for(lambda: len(site.events(kind)) == 7)
    wait_for(lambda: site.receiver.of(kind))
    # What comes after it in the same queue has been dealt with: whatever the seven made happen has happened.
    site.tell("tell(disk_low('gpu-1', 100.0, 1000.0))")
    wait_for(lambda: site.receiver.of("can-retrain.disk.low"))
    (notification,) = site.receiver.of(kind)
    assert notification["text"] == f"can-retrain: {HOSTILE} ran out of memory three times within an hour"
    assert notification["resource"] == f"can-retrain.dataset.{HOSTILE}"
    assert notification["payload"] == {"phase": "teacher", "attempt": 1, "kind": "cuda_oom"}
    assert (
        site.receiver.of("can-retrain.disk.low")[0]["text"] == "can-retrain: the disk of gpu-1 is nearly full"
    )
    path, content_type, _ = site.receiver.received[0]
    assert (path, content_type) == (f"/{HIDDEN}", "application/json")


def test_the_address_of_the_webhook_is_shown_nowhere(site: Site) -> None:
    shown = "\n".join(map(str, [*site.applied, *site.apply(site.receiver.url), *site.apply()]))
    shown += json.dumps(site.ask("automations/filter"))
    shown += json.dumps(site.ask("block_documents/filter"))
    shown += json.dumps(site.ask("events/filter", filter={}, limit=50))
    assert WEBHOOK in shown
    assert HIDDEN not in shown
    assert str(urlsplit(site.receiver.url).port) not in shown


def test_a_hostile_name_of_a_dataset_starts_nothing(site: Site) -> None:
    before = len(site.retrainings())
    site.tell(*(f"tell(captures_changed({name!r}, 'digest', 1))" for name in (HOSTILE, "../../etc")))

    def refused() -> set[str]:
        """Events on which nothing could be done; a busy server may try several times."""
        failed = site.events("prefect.automation.action.failed")
        related = [resource for event in failed for resource in event["related"]]
        return {
            resource["prefect.resource.id"]
            for resource in related
            if resource["prefect.resource.role"] == "triggering-event"
        }

    wait_for(lambda: len(refused()) == 2)
    assert len(site.retrainings()) == before


def test_a_flow_run_that_no_longer_says_that_it_lives_is_marked_as_crashed(site: Site) -> None:
    (quick,) = (rule for rule in rules(lost_after_s=10.0) if rule.name.endswith("heartbeat lost"))
    site.edit("heartbeat lost", trigger=quick.trigger.model_dump(mode="json"))
    flow = "from prefect import flow\nimport time\nflow(name='analyze')(lambda: time.sleep(1000))()"
    process = subprocess.Popen(
        [sys.executable, "-c", flow], cwd=ROOT, env=environment(**site.variables), stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: site.events("prefect.flow-run.heartbeat"))
    finally:
        process.kill()
        process.wait()

    def states() -> list[str]:
        return [one["state_type"] for one in site.ask("flow_runs/filter")]

    wait_for(lambda: states() == ["CRASHED"])
    # It was nobody's deployment: there is nothing to take up.
    assert not site.retrainings()
    site.apply()
    assert site.automation("heartbeat lost")["trigger"]["within"] == 90.0


def test_a_run_that_was_killed_is_taken_up_by_itself_and_completes(trained: Site) -> None:
    first, second = trained.retrainings()
    assert first["state_type"] == "CRASHED"
    assert second["parameters"]["resume"] == "latest"
    wait_for(lambda: trained.retrainings()[1]["state_type"] == "COMPLETED")
    (plan_id,) = trained.log.streams()
    events = trained.log.read(plan_id)
    assert sum(event.type == PlanResumed.TYPE for event in events) == 1
    assert trained.saved(0) == set(CARS)


def test_each_thing_that_happened_to_the_plan_was_told_once(trained: Site) -> None:
    (plan_id,) = trained.log.streams()
    saved = sorted((car, phase) for car in CARS for phase in ("teacher", "student", "fusion"))

    def told() -> list[tuple[str, str]]:
        events = trained.events("can-retrain.model.saved")
        return sorted((one["resource"]["can-retrain.dataset"], one["payload"]["phase"]) for one in events)

    for name in ("plan.created", "plan.resumed", "plan.finished"):
        wait_for(lambda name=name: trained.events(f"can-retrain.{name}"))  # type: ignore[misc]
        (event,) = trained.events(f"can-retrain.{name}")
        assert event["resource"]["prefect.resource.id"] == f"can-retrain.plan.{plan_id}"
    wait_for(lambda: len(told()) >= len(saved))
    assert told() == saved


def test_new_captures_and_drift_retrain_the_datasets_concerned_and_no_others(trained: Site) -> None:
    new = trained.folder / "data" / "car_a" / "train_01_attack_free" / "attack-free-9.csv"
    source = trained.folder / "source.csv"
    write_csv(source, simulate(DemoSettings(seed=0, duration_s=8.0), 9, 0, ()))
    looked = threading.Event()

    def grow_on() -> None:
        """Copy the file for as long as the sensor takes to look, however late it begins.

        It looks for long: a copying that pauses is taken for one that is done.
        """
        while not looked.wait(0.2):
            with new.open("ab") as file:
                file.write(b"\n")

    growing = threading.Thread(target=grow_on)
    new.write_bytes(source.read_bytes()[:4096])
    growing.start()
    try:
        trained.finish("sensor", settle_s=12.0)
    finally:
        looked.set()
        growing.join()
    assert not trained.changes()
    assert len(trained.retrainings()) == 2

    shutil.copy(source, new)
    for vehicle, car in ((0, "car_a"), (1, "car_b")):  # the vehicle of car_b is another one now
        folder = trained.recent / car
        folder.mkdir(parents=True)
        demo = DemoSettings(seed=CARS.index(car), duration_s=20.0)
        write_csv(folder / "recent.csv", simulate(demo, 20, vehicle, ()))
    trained.finish("sensor", settle_s=1.0)
    trained.finish("drift")
    wait_for(lambda: trained.is_completed(1) and trained.is_completed(2))
    assert {*map(frozenset, (trained.saved(1), trained.saved(2)))} == {frozenset({car}) for car in CARS}
    newest = trained.retrainings()[2:]
    changed, drifted = sorted(newest, key=lambda one: str(one["parameters"]["datasets"]))
    assert changed["parameters"]["datasets"] == ["car_a"]
    assert (drifted["parameters"]["datasets"], drifted["parameters"]["force_retrain"]) == (["car_b"], True)


def test_nothing_is_told_twice(trained: Site) -> None:
    trained.finish("sensor", settle_s=1.0)
    trained.finish("drift")
    (changed,) = trained.changes()
    assert changed["resource"]["can-retrain.dataset"] == "car_a"
    (drifted,) = trained.events("can-retrain.drift.found")
    assert drifted["resource"]["can-retrain.dataset"] == "car_b"
    seen = json.loads((Layout(trained.out).watched / "drift-car_b.json").read_text())["seen"]
    assert [look["status"] for look in seen] == ["drifted", "told"]
    steady = json.loads((Layout(trained.out).watched / "drift-car_a.json").read_text())["seen"]
    assert [look["status"] for look in steady] == ["steady", "steady"]
    shown = {artifact["key"]: artifact for artifact in trained.ask("artifacts/latest/filter")}
    assert "data:image/svg+xml" in shown["drift-car-b"]["data"]
    assert "car_a" in shown["watched-captures"]["data"]


def test_a_retraining_that_fails_is_notified(trained: Site) -> None:
    started = trained.start("on-demand", resume="20200101-000000-none")
    wait_for(lambda: trained._state(started) == "FAILED")
    wait_for(lambda: trained.receiver.of("prefect.flow-run.Failed"))
    (notification,) = trained.receiver.of("prefect.flow-run.Failed")
    assert notification["text"].endswith(" failed")
    assert str(trained.folder) not in json.dumps(notification["text"])


def test_an_event_that_is_acted_on_twice_is_one_retraining(trained: Site) -> None:
    rule = trained.automation("captures changed")
    name = base64.b64encode(rule["name"].encode()).decode()
    sender = {"prefect-automation-id": rule["id"], "prefect-automation-name": name}  # as the server sends it
    address = f"{trained.api}/deployments/{trained.deployment('on-demand')}/create_flow_run"
    asked = {"datasets": ["car_a"], "cause": str(uuid4())}
    begun = [post(address, sender, parameters=asked)["id"] for _ in range(3)]
    again = trained.start("on-demand", **asked)  # by a person, with the same parameters

    def ended() -> list[str]:
        states = {one["id"]: one["state"] for one in trained.runs(id={"any_": [*begun, again]})}
        return [states[run]["name"] for run in [*begun, again] if states[run]["type"] == "COMPLETED"]

    wait_for(lambda: len(ended()) == 4)
    assert ended() == ["Completed", "Skipped", "Skipped", "Completed"]


def test_a_server_that_is_away_does_not_stop_what_is_told(tmp_path: Path) -> None:
    said = (
        "from tasks.domain_events import *\nfor _ in range(100): tell(disk_low('h', 1.0, 2.0))\nprint('told')"
    )
    away = environment(PREFECT_API_URL="http://127.0.0.1:9/api", PREFECT_HOME=str(tmp_path))
    command = [sys.executable, "-c", said]
    told = subprocess.run(command, cwd=ROOT, env=away, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "told\n"), told.stderr
