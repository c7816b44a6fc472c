"""Deploying by a stranger against a fresh server: deployments, forms, schedules, databases, passwords."""

import base64
import json
import os
import pty
import re
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Locator, Page

from core.events.log import EventLog
from settings.layout import Layout
from tests.browser import chromium, patient
from tests.commands import HANG_S, ROOT, ask, config, environment, prefect_server, wait_for
from tests.postgres import postgres

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the first one begins a server and deploys twice

PREFECT = str(Path(sys.executable).with_name("prefect"))
QUICK = {
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "1",
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "8",
}
"""A server that notices soon what is late."""
FLOWS = {"retrain", "dataset-chain", "analyze", "maintain", "watch-captures", "watch-drift"}


class Server(NamedTuple):
    """A Prefect API, and how it is asked.

    Attributes:
        api: Its address.
        home: Prefect's folder of those who ask.
        auth: What it asks for; empty for nothing.
    """

    api: str
    home: Path
    auth: str = ""

    def ask(self, path: str, method: str = "GET", content: Any = None, **fields: Any) -> Any:
        coded = base64.b64encode(self.auth.encode()).decode()
        headers = {"Authorization": f"Basic {coded}"} if self.auth else {}
        body = fields if content is None else content
        return ask(method, f"{self.api}/{path}", headers, None if method == "GET" else body)

    def deployments(self) -> dict[str, dict[str, Any]]:
        flows = {flow["id"]: flow["name"] for flow in self.ask("flows/filter", "POST")}
        found = self.ask("deployments/filter", "POST")
        return {f"{flows[deployment['flow_id']]}/{deployment['name']}": deployment for deployment in found}

    def runs(self, deployment_id: str) -> list[dict[str, Any]]:
        chosen = {"deployment_id": {"any_": [deployment_id]}}
        return list(self.ask("flow_runs/filter", "POST", flow_runs=chosen, sort="EXPECTED_START_TIME_ASC"))

    def logs(self, flow_run_id: str) -> list[str]:
        chosen = {"flow_run_id": {"any_": [flow_run_id]}}
        return [line["message"] for line in self.ask("logs/filter", "POST", logs=chosen)]

    def environment(self) -> dict[str, str]:
        auth = {"PREFECT_API_AUTH_STRING": self.auth} if self.auth else {}
        return environment(
            PREFECT_API_URL=self.api, PREFECT_HOME=str(self.home), PREFECT_WORKER_QUERY_SECONDS="3", **auth
        )

    def run(self, *command: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """A command from the repository root; ``python`` is ours."""
        words = [
            sys.executable if word == "python" else PREFECT if word == "prefect" else word for word in command
        ]
        shown = subprocess.run(
            words,
            cwd=ROOT,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
        )
        assert not check or shown.returncode == 0, shown.stdout + shown.stderr
        return shown

    def apply(self, *flags: str) -> list[str]:
        return self.run("python", "-m", "deployments.apply", *flags).stdout.splitlines()

    @contextmanager
    def worker(self, pool: str, folder: Path) -> Iterator[None]:
        """A worker that was started in a folder."""
        folder.mkdir(exist_ok=True)
        with (folder / f"worker-{time.monotonic_ns()}.log").open("w") as log:
            process = subprocess.Popen(
                [PREFECT, "worker", "start", "--pool", pool],
                cwd=folder, env=self.environment(), stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
            try:
                yield
            finally:
                process.terminate()
                process.wait(HANG_S)


class Deployed(NamedTuple):
    """A fresh server on which a stranger deployed twice.

    Attributes:
        server: The server.
        refused: What deploying said before anything was applied.
        applied: What applying said, each time.
        seen: What was on the server, after each time.
        asked: What the second time, at a terminal, showed.
    """

    server: Server
    refused: "subprocess.CompletedProcess[str]"
    applied: list[list[str]]
    seen: list[dict[str, Any]]
    asked: str


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    with prefect_server(tmp_path_factory.mktemp("server"), **QUICK) as api:
        server = Server(api, tmp_path_factory.mktemp("home"))
        refused = server.run("prefect", "--no-prompt", "deploy", "--all", check=False)
        applied, seen = [server.apply()], []
        server.run("prefect", "--no-prompt", "deploy", "--all")
        seen.append(_everything(server))
        applied.append(server.apply())
        asked = _at_a_terminal([PREFECT, "deploy", "--all"], server.environment())
        seen.append(_everything(server))
        yield Deployed(server, refused, applied, seen, asked)


def _everything(server: Server) -> dict[str, Any]:
    """What deploying makes, without the times at which it was touched."""
    found = {
        "deployments": server.deployments(),
        "pools": server.ask("work_pools/filter", "POST"),
        "queues": server.ask("work_queues/filter", "POST"),
        "variables": server.ask("variables/filter", "POST"),
        "automations": server.ask("automations/filter", "POST"),
    }
    return dict(_untouched(found))


def _untouched(value: Any) -> Any:
    passing = {"created", "updated", "last_polled", "status", "active_slots"}
    if isinstance(value, dict):
        return {name: _untouched(part) for name, part in value.items() if name not in passing}
    return [_untouched(part) for part in value] if isinstance(value, list) else value


def _at_a_terminal(command: list[str], variables: dict[str, str]) -> str:
    """What a command shows at a terminal."""
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**variables, "TERM": "xterm"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    os.write(master, b"\x04")  # nobody is there: a question would end the command
    shown = b""
    try:
        while part := os.read(master, 4096):
            shown += part
    except OSError:  # Linux's way to say that nobody writes any more
        pass
    finally:
        os.close(master)
    assert process.wait(HANG_S) == 0, shown.decode()
    return shown.decode()


def test_deploying_before_applying_says_what_is_missing(deployed: Deployed) -> None:
    assert deployed.refused.returncode == 1
    said = " ".join((deployed.refused.stdout + deployed.refused.stderr).split())
    assert "work pool 'gpu' which does not exist" in said
    assert "Traceback" not in said


def test_everything_is_deployed_with_what_a_person_needs_to_find_and_start_it(deployed: Deployed) -> None:
    deployments = deployed.server.deployments()
    assert {name.partition("/")[0] for name in deployments} == FLOWS
    assert {name.partition("/")[2] for name in deployments if name.startswith("dataset-chain/")} == {
        "any", "demo", "hcrl_ch", "hcrl_sa", "set_01", "set_02", "set_03", "set_04",
    }  # fmt: skip
    for name, deployment in deployments.items():
        assert deployment["description"], name
        assert "can-ids" in deployment["tags"], name
        assert re.fullmatch(r"\d+\.\d+\.\d+", deployment["version"]), name
        assert deployment["work_queue_name"] == "default", name
        assert deployment["concurrency_options"] or name == "dataset-chain/any", name
        assert deployment["enforce_parameter_schema"], name
        shown = deployment["parameter_openapi_schema"]["properties"]
        assert all(parameter["description"] for parameter in shown.values()), name
    (schedule,) = deployments["retrain/nightly"]["schedules"]
    assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == ("0 2 * * *", "UTC")
    assert schedule["active"]
    assert deployments["retrain/nightly"]["parameters"]["start_jitter_s"] > 0
    assert deployments["retrain/nightly"]["global_concurrency_limit"]["limit"] == 1


def test_nothing_of_the_machine_that_deployed_is_in_a_deployment(deployed: Deployed) -> None:
    for name, deployment in deployed.server.deployments().items():
        assert deployment["pull_steps"] == [], name
        assert deployment["path"] is None, name
        assert str(ROOT) not in json.dumps(deployment), name


def test_queues_are_served_in_the_order_of_their_priorities(deployed: Deployed) -> None:
    queues = {
        (queue["work_pool_name"], queue["name"]): queue["priority"]
        for queue in deployed.server.ask("work_queues/filter", "POST")
    }
    for pool in ("gpu", "cpu", "gpu-docker", "gpu-kubernetes"):
        assert queues[pool, "priority"] < queues[pool, "default"]


def test_doing_it_twice_changes_nothing(deployed: Deployed) -> None:
    first, second = deployed.applied
    made = {line.split()[0] for line in first}
    assert "made" in made
    assert {line.split()[0] for line in second} <= {"unchanged", "waiting"}
    assert deployed.seen[0] == deployed.seen[1]
    for kind in ("work pool gpu", "work queue gpu/priority", "variable can_retrain_timezone", "automation "):
        assert any(kind in line for line in second), kind


def test_at_a_terminal_no_question_is_asked(deployed: Deployed) -> None:
    assert deployed.asked.count("successfully created") == len(deployed.server.deployments())
    assert "[y/n]" not in deployed.asked
    assert "?" not in re.sub(r"https?://\S+", "", deployed.asked)


def test_what_somebody_set_is_kept_unless_told_and_what_differs_is_mended(deployed: Deployed) -> None:
    server = deployed.server
    zone = server.ask("variables/name/can_retrain_timezone")
    server.ask(f"variables/{zone['id']}", "PATCH", value="Europe/Berlin")
    server.ask("work_pools/gpu", "PATCH", description="mine", concurrency_limit=3)
    server.ask("work_pools/", "POST", name="somebody-elses", type="process")
    changed = [line for line in server.apply() if not line.startswith(("unchanged", "waiting"))]
    assert changed == [
        "changed    work pool gpu: description",
        "kept       variable can_retrain_timezone: it is 'Europe/Berlin', ours would be 'UTC' (--reset)",
    ]
    assert server.ask("work_pools/gpu")["concurrency_limit"] == 3
    assert server.ask("work_pools/somebody-elses")["type"] == "process"
    server.run("prefect", "--no-prompt", "deploy", "-n", "nightly")
    (schedule,) = server.deployments()["retrain/nightly"]["schedules"]
    assert schedule["schedule"]["timezone"] == "Europe/Berlin"
    assert "changed    variable can_retrain_timezone: 'Europe/Berlin' -> 'UTC'" in server.apply("--reset")


def test_limits_of_a_machine_are_made_there_and_kept_when_somebody_changed_them(deployed: Deployed) -> None:
    server = deployed.server
    made = server.apply("--machine")
    assert made
    assert all(line.startswith("made       limit can-") for line in made)
    name = re.fullmatch(r"made       limit (can-cpu-.+): \d+ slots", made[0])
    assert name
    server.ask(f"v2/concurrency_limits/{name[1]}", "PATCH", limit=77)
    assert f"kept       limit {name[1]}: it is '77 slots'" in server.apply("--machine")[0]
    assert server.ask(f"v2/concurrency_limits/{name[1]}")["limit"] == 77
    assert server.apply("--machine", "--reset")[0].startswith(f"changed    limit {name[1]}: 77 slots -> ")


def test_an_unreachable_or_unnamed_api_is_told_in_a_line(tmp_path: Path) -> None:
    away = Server("http://127.0.0.1:9/api", tmp_path)
    shown = away.run("python", "-m", "deployments.apply", check=False)
    assert shown.returncode == 1
    assert "http://127.0.0.1:9/api does not answer" in shown.stderr
    nobody = environment(PREFECT_HOME=str(tmp_path))
    unnamed = subprocess.run(
        [sys.executable, "-m", "deployments.apply"],
        cwd=tmp_path, env=nobody, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert unnamed.returncode == 2
    assert "no Prefect API is configured" in unnamed.stderr
    assert "Traceback" not in shown.stderr + unnamed.stderr


def test_of_missed_runs_only_the_newest_works_however_many_workers_return_at_once(
    deployed: Deployed, tmp_path: Path
) -> None:
    server = deployed.server
    deployment = server.deployments()["maintain/maintenance"]["id"]
    (tmp_path / "out").mkdir()
    given = {"output_dir": str(tmp_path / "out"), "start_jitter_s": 1}
    often = {"interval": 5.0, "anchor_date": "2020-01-01T00:00:00Z", "timezone": "UTC"}
    asked = {"schedule": often, "active": True, "parameters": given, "slug": "often"}
    made = server.ask(f"deployments/{deployment}/schedules", "POST", [asked])
    schedule = f"deployments/{deployment}/schedules/{made[0]['id']}"
    wait_for(lambda: len(_late(server, deployment)) >= 3)
    server.ask(schedule, "PATCH", active=False)  # what is late stays, as when a worker was away
    _forget_what_is_not_late(server, deployment, made[0]["id"])
    by_hand = server.ask(f"deployments/{deployment}/create_flow_run", "POST", parameters=given)
    missed = {run["id"] for run in _late(server, deployment)}
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(server.worker("cpu", tmp_path / "machine"))

        def all_ended() -> bool:
            _forget_what_is_not_late(server, deployment, made[0]["id"])
            return not _unfinished(server, deployment, missed | {by_hand["id"]})

        wait_for(all_ended)
        runs = [run for run in server.runs(deployment) if run["id"] in missed]
        newest = runs[-1]
        # Logs are sent in the background, and a worker that ends takes its runs' processes along.
        wait_for(lambda: all(_has_said_its_end(server, run["id"]) for run in (newest, by_hand)))
    states = [run["state"]["name"] for run in runs]
    assert states == ["Skipped"] * (len(runs) - 1) + ["Completed"]
    assert newest["expected_start_time"][:19] in runs[0]["state"]["message"].replace(" ", "T")
    assert any("so that a fleet does not begin at once" in line for line in server.logs(newest["id"]))
    assert server.ask(f"flow_runs/{by_hand['id']}")["state"]["name"] == "Completed"
    assert not any("fleet" in line for line in server.logs(by_hand["id"]))
    server.ask(schedule, "DELETE")


def _has_said_its_end(server: Server, flow_run_id: str) -> bool:
    return any("0 items deleted" in line for line in server.logs(flow_run_id))


def _late(server: Server, deployment: str) -> list[dict[str, Any]]:
    return [run for run in server.runs(deployment) if run["state"]["name"] == "Late"]


def _forget_what_is_not_late(server: Server, deployment: str, schedule: str) -> None:
    """Delete runs that are due just now, or that were about to be made as the schedule was ended."""
    for run in server.runs(deployment):
        if (run["created_by"] or {}).get("id") == schedule and run["state"]["name"] == "Scheduled":
            server.ask(f"flow_runs/{run['id']}", "DELETE")


def _unfinished(server: Server, deployment: str, ids: set[str]) -> list[str]:
    kinds = ("SCHEDULED", "PENDING", "RUNNING")
    return [run["id"] for run in server.runs(deployment) if run["id"] in ids and run["state_type"] in kinds]


def test_a_value_that_a_form_refuses_is_refused_by_the_api_too(deployed: Deployed) -> None:
    deployments = deployed.server.deployments()
    for name, parameters, said in (
        ("retrain/on-demand", {"environment": "tpu"}, "environment"),
        ("retrain/on-demand", {"datasets": ["../../etc"]}, "datasets"),
        ("retrain/on-demand", {"start_jitter_s": -1}, "start_jitter_s"),
        ("dataset-chain/demo", {"dataset": "demo"}, "plan_id"),
        ("dataset-chain/demo", {"dataset": "demo", "plan_id": "../x"}, "plan_id"),
    ):
        path = f"deployments/{deployments[name]['id']}/create_flow_run"
        with pytest.raises(urllib.error.HTTPError) as refused:
            deployed.server.ask(path, "POST", parameters=parameters)
        assert refused.value.code in (409, 422)
        assert said in refused.value.read().decode()


@pytest.mark.browser
def test_a_person_starts_a_retraining_by_the_form_and_a_worker_carries_it_out(
    deployed: Deployed, tmp_path: Path
) -> None:
    server, settings = deployed.server, config(tmp_path, tracking={"mlflow": False})
    deployment = server.deployments()["retrain/on-demand"]["id"]
    chain = server.deployments()["dataset-chain/hcrl_ch"]["id"]
    with chromium() as browser:
        page = patient(browser.new_page(viewport={"width": 1280, "height": 2000}))
        ui = server.api.removesuffix("/api")
        page.goto(f"{ui}/deployments/deployment/{chain}/run")
        page.get_by_text("One of the plan's datasets.").wait_for()
        assert _property(page, "dataset").locator("textarea").input_value() == "hcrl_ch"
        page.goto(f"{ui}/deployments/deployment/{deployment}/run")
        page.get_by_text("Retrain everything, even what is up to date.").wait_for()
        for told in (
            "Names of datasets; only these are looked at",
            "Settings file (YAML)",
            "Folder of the captures",
        ):
            page.get_by_text(told).first.wait_for()
        shown = page.locator("body").inner_text()
        for leak in ("Annotated", "Literal", "TrackingSettings", "Sequence", "undefined", "NoneType"):
            assert leak not in shown
        _fill_in(page, settings, start_jitter_s="-5")
        page.get_by_role("button", name="Submit").click()
        page.get_by_text("-5 is less than the minimum of 0").first.wait_for()
        assert not server.runs(deployment)
        _property(page, "start_jitter_s").locator("input").fill("7")
        page.screenshot(path=tmp_path / "form.png", full_page=True)
        page.get_by_role("button", name="Submit").click()
        wait_for(lambda: server.runs(deployment))
    (run,) = server.runs(deployment)
    assert run["parameters"]["datasets"] == ["demo"]
    assert run["parameters"]["environment"] == "cpu"
    assert run["parameters"]["config"] == str(settings)
    assert run["parameters"]["force_retrain"] is True
    assert run["parameters"]["start_jitter_s"] == 7
    machine = tmp_path / "machine"
    with server.worker("gpu", machine):
        wait_for(lambda: not _unfinished(server, deployment, {run["id"]}))
    done = server.ask(f"flow_runs/{run['id']}")
    assert done["state"]["name"] == "Completed", server.logs(run["id"])
    # Relative folders begin where the worker was started, and nobody waited for a run that a person began.
    (plan_id,) = EventLog(Layout(machine / "outputs" / "enhanced_retraining").events).streams()
    assert plan_id in done["name"]
    assert not any("fleet" in line for line in server.logs(run["id"]))


def _property(page: Page, name: str) -> Locator:
    """The part of a form that shows a parameter."""
    label = page.locator(".schema-form-property__label", has_text=re.compile(rf"^{name}( |$)"))
    return page.locator(".p-label").filter(has=label).last


def _choose(page: Page, name: str, option: str) -> None:
    _property(page, name).locator(".p-select-button__icon").click()
    page.locator(".p-select-option").get_by_text(option, exact=True).click()
    page.get_by_text("Parameters", exact=True).click()  # closes a list of which several may be chosen
    page.locator(".p-select-option").first.wait_for(state="detached")


def _fill_in(page: Page, settings: Path, start_jitter_s: str) -> None:
    """Name the demo, key by key, force it, on the CPU, with a settings file."""
    page.get_by_role("button", name="Add item").first.click()
    page.locator("textarea").first.press_sequentially("demo")
    _property(page, "force_retrain").get_by_role("switch").click()
    _property(page, "environment").get_by_role("button", name="choose").click()
    _choose(page, "environment", "cpu")
    _property(page, "config").get_by_role("button", name="path").click()
    _property(page, "config").locator("textarea").fill(str(settings))
    _property(page, "start_jitter_s").locator("input").fill(start_jitter_s)


def test_postgres_and_a_password_serve_retraining_applying_deploying_and_workers(tmp_path: Path) -> None:
    with (
        postgres() as database,
        prefect_server(
            tmp_path / "server",
            PREFECT_API_DATABASE_CONNECTION_URL=database,
            PREFECT_SERVER_API_AUTH_STRING="fleet:api-pa55word",
            **QUICK,
        ) as api,
    ):
        stranger, server = (
            Server(api, tmp_path / "home"),
            Server(api, tmp_path / "home", "fleet:api-pa55word"),
        )
        with pytest.raises(urllib.error.HTTPError, match="401"):
            stranger.ask("deployments/filter", "POST")
        settings = config(tmp_path, tracking={"mlflow": False})
        retrain = ("-m", "flows.retrain", "--datasets", "demo", "--config", str(settings))
        for command in (("-m", "deployments.apply"), (*retrain, "--output-dir", str(tmp_path / "none"))):
            refused = stranger.run("python", *command, check=False)
            assert refused.returncode == 1
            assert "refuses (401): set PREFECT_API_AUTH_STRING" in refused.stderr
            assert "Traceback" not in refused.stderr
        server.apply()
        server.run("prefect", "--no-prompt", "deploy", "--all")
        shown = server.run("python", *retrain, "--output-dir", str(tmp_path / "out"))
        (plan_id,) = EventLog(Layout(tmp_path / "out").events).streams()
        assert plan_id in shown.stdout
        deployment = server.deployments()["analyze/analytics"]["id"]
        given = {"output_dir": str(tmp_path / "out"), "config": str(settings)}
        run = server.ask(f"deployments/{deployment}/create_flow_run", "POST", parameters=given)
        with server.worker("cpu", tmp_path / "machine"):
            wait_for(lambda: not _unfinished(server, deployment, {run["id"]}))
        assert server.ask(f"flow_runs/{run['id']}")["state"]["name"] == "Completed"
        said = json.dumps([server.logs(run["id"]), shown.stdout, shown.stderr])
        for secret in ("api-pa55word", "pg-pa55word"):
            assert secret not in said
