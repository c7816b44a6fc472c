"""The Prefect API we talk to, and what people find in its UI: runs, logs, artifacts, for real."""

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from playwright.sync_api import Page

from core.events.log import EventLog
from flows.server import prefect_api
from settings.layout import Layout
from tests.browser import chromium, patient
from tests.commands import (
    HANG_S,
    ROOT,
    TINY,
    answers,
    ask,
    config,
    environment,
    post,
    prefect_server,
    processes_that_name,
    run,
)

pytestmark = pytest.mark.slow

INFO, WARNING, ERROR = 20, 30, 40


class Carried(NamedTuple):
    """A plan that the command carried out with a configured API: the demo, and a dataset without a folder."""

    api: str
    home: Path
    output_dir: Path
    plan_id: str
    bars: list[float]
    """Values of the demo's progress artifact, as they were seen."""

    def flow_run(self, name: str) -> dict[str, Any]:
        (found,) = post(f"{self.api}/flow_runs/filter", flow_runs={"name": {"any_": [name]}})
        return dict(found)

    def artifacts(self, key: str) -> list[dict[str, Any]]:
        return list(post(f"{self.api}/artifacts/filter", artifacts={"key": {"any_": [key]}}))

    def logs(self, flow_run_id: str) -> list[dict[str, Any]]:
        chosen = {"flow_run_id": {"any_": [flow_run_id]}, "level": {"ge_": INFO}}
        return list(post(f"{self.api}/logs/filter", logs=chosen, limit=200))

    def environment(self) -> dict[str, str]:
        return environment(PREFECT_API_URL=self.api, PREFECT_HOME=str(self.home))


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prefect_server(tmp_path_factory.mktemp("prefect")) as url:
        yield url


@pytest.fixture(scope="module")
def carried(api: str, tmp_path_factory: pytest.TempPathFactory) -> Carried:
    folder = tmp_path_factory.mktemp("carried")
    broken = {"demo": TINY["data"]["demo"], "datasets": {"bro-ken": {"folder": "nowhere"}}}
    bars: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            found = post(f"{api}/artifacts/filter", artifacts={"key": {"any_": ["progress-demo"]}})
            bars.extend(float(artifact["data"]) for artifact in found)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        shown = run(
            "flows.retrain", "--datasets", "bro-ken", "demo", "--config", str(config(folder, data=broken)),
            "--output-dir", str(folder / "out"),
            PREFECT_API_URL=api,
            PREFECT_HOME=str(folder / "home"),
        )  # fmt: skip
    finally:
        ended.set()
        watching.join()
    assert shown.returncode == 1, shown.stdout + shown.stderr
    assert "Traceback" not in shown.stdout + shown.stderr
    (plan_id,) = EventLog(Layout(folder / "out").events).streams()
    return Carried(api, folder / "home", folder / "out", plan_id, bars)


@pytest.fixture(scope="module")
def analyzed_again(carried: Carried, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Another analysis of the same plan, of a deployment, by a worker; its MLflow is away."""
    prefect = Path(sys.executable).with_name("prefect")
    for command in (
        [sys.executable, "-m", "deployments.apply"],
        [str(prefect), "--no-prompt", "deploy", "--name", "analytics"],
    ):
        subprocess.run(command, cwd=ROOT, env=carried.environment(), check=True, capture_output=True)
    deployments = {d["name"]: d for d in post(f"{carried.api}/deployments/filter")}
    tracking = {
        "mlflow_uri": "http://someone:s3cret@127.0.0.1:9",
        "mlflow_limit_s": 5.0,
        "dashboards_url": "http://gpu-1:8000/",
    }
    settings = config(tmp_path_factory.mktemp("again"), tracking=tracking)
    asked = {"output_dir": str(carried.output_dir), "plan_id": carried.plan_id, "config": str(settings)}
    begun = post(
        f"{carried.api}/deployments/{deployments['analytics']['id']}/create_flow_run", parameters=asked
    )
    subprocess.run(
        [prefect, "worker", "start", "--pool", "cpu", "--run-once"],
        cwd=ROOT, env=carried.environment(), check=True, capture_output=True, timeout=HANG_S,
    )  # fmt: skip
    return dict(ask("GET", f"{carried.api}/flow_runs/{begun['id']}"))


def test_a_server_of_our_own_answers_while_it_is_needed_and_not_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with prefect_api(tmp_path) as url:
        assert url.startswith("http://127.0.0.1:")
        assert answers(url)
        assert processes_that_name(str(tmp_path))
        assert ask("GET", f"{url.removesuffix('/api')}/ui-settings")["api_url"] == url
        port = int(url.removesuffix("/api").rpartition(":")[2])
        connections = [c for c in psutil.net_connections("tcp") if c.status == "LISTEN"]
        listening = {c.laddr.ip for c in connections if c.laddr and c.laddr.port == port}
        assert listening == {"127.0.0.1"}
        leases = ask("GET", f"{url}/admin/settings")["server"]["concurrency"]["lease_storage"]
        assert leases.endswith(".filesystem")  # those in memory do not outlive a server that is killed
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{url}/health")
    assert not processes_that_name(str(tmp_path))


def test_a_configured_api_that_does_not_answer_stops_the_command_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    shown = run(
        "flows.retrain", "--datasets", "demo", "--config", str(config(tmp_path)),
        "--output-dir", str(tmp_path / "out"),
        PREFECT_API_URL="http://127.0.0.1:9/api",
    )  # fmt: skip
    assert shown.returncode == 1
    assert "http://127.0.0.1:9/api does not answer" in shown.stderr
    assert "Traceback" not in shown.stderr
    assert not Layout(tmp_path / "out").events.exists()


def test_a_configured_api_is_used_and_left_alone(carried: Carried) -> None:
    assert answers(carried.api)
    assert not Layout(carried.output_dir).prefect_home.exists()
    states = {r["name"]: r["state_type"] for r in post(f"{carried.api}/flow_runs/filter")}
    assert states["chain-demo"] == states["sample-resources-demo"] == "COMPLETED"
    assert states["chain-bro-ken"] == "FAILED"


def test_runs_are_found_by_name_and_by_tag(carried: Carried) -> None:
    plan, dataset = f"plan:{carried.plan_id}", "dataset:demo"

    def flow_runs(**chosen: Any) -> set[str]:
        return {r["name"] for r in post(f"{carried.api}/flow_runs/filter", flow_runs=chosen)}

    parent = f"retrain-{carried.plan_id} (bro-ken, demo)"
    assert flow_runs(name={"like_": f"{carried.plan_id} (bro"}) == {parent}
    chains = {"chain-demo", "sample-resources-demo"}
    assert flow_runs(tags={"all_": [plan, dataset]}) == {parent, *chains}
    device = next(tag for tag in carried.flow_run("chain-demo")["tags"] if tag.startswith("device:"))
    of_device = {parent, *chains, "chain-bro-ken", "sample-resources-bro-ken", f"analyze-{carried.plan_id}"}
    assert flow_runs(tags={"all_": [device]}) == of_device

    def task_runs(*tags: str) -> set[str]:
        found = post(f"{carried.api}/task_runs/filter", task_runs={"tags": {"all_": [plan, *tags]}})
        return {r["name"] for r in found}

    assert task_runs(dataset, "phase:teacher") == {"train_teacher-demo"}
    assert task_runs("dataset:bro-ken", "phase:graphs") == {"build_graphs-bro-ken"}


def test_lines_have_their_level_and_run_in_the_ui(carried: Carried) -> None:
    demo, broken = (carried.flow_run(f"chain-{name}") for name in ("demo", "bro-ken"))
    told = {line["message"]: line for line in carried.logs(broken["id"]) if line["name"] == "core.progress"}
    (failed,) = (line for text, line in told.items() if "graphs failed (data_error)" in text)
    assert failed["level"] == ERROR
    assert failed["task_run_id"]
    skipped = told["bro-ken: teacher not reached: graphs failed"]
    assert (skipped["level"], skipped["task_run_id"]) == (WARNING, None)
    epochs = [line for line in carried.logs(demo["id"]) if "teacher_gat epoch 0: loss" in line["message"]]
    assert [line["level"] for line in epochs] == [INFO]  # once, at its level
    (teacher,) = post(f"{carried.api}/task_runs/filter", task_runs={"name": {"any_": ["train_teacher-demo"]}})
    assert epochs[0]["task_run_id"] == teacher["id"]


def test_files_of_all_roles_tell_of_the_same_run_by_the_same_ids(carried: Carried) -> None:
    layout, plan_id = Layout(carried.output_dir), carried.plan_id
    demo = carried.flow_run("chain-demo")

    def records(path: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    decided = records(layout.coordinator_logs / f"{plan_id}.jsonl")
    assert {record["plan"] for record in decided} == {plan_id}
    (epoch,) = (r for r in decided if "teacher_gat epoch 0" in r["message"])
    assert (epoch["dataset"], epoch["phase"], epoch["attempt"]) == ("demo", "teacher", 1)
    assert epoch["flow_run_id"] == demo["id"]
    assert epoch["fact"]["type"] == "epoch_finished"
    said = " ".join(record["message"] for record in decided)
    for kind in ("model_evaluated", "pack_limit_chosen", "config_recommended", "plan_finished"):
        assert any(record.get("fact", {}).get("type") == kind for record in decided)
    assert "bro-ken: graphs failed (data_error)" in said
    trained = records(layout.process_logs / f"{plan_id}-demo.jsonl")
    (begun,) = (r for r in trained if r["message"] == "core.training.phases:train_teacher begins")
    assert begun["pid"] != epoch["pid"]
    for name in ("plan", "dataset", "phase", "attempt", "flow_run_id", "task_run_id"):
        assert begun[name] == epoch[name]
    orchestrated = records(layout.orchestrator_logs / f"{plan_id}.jsonl")
    finished = [r for r in orchestrated if r.get("task_run_id") == epoch["task_run_id"]]
    assert any(r["message"].startswith("Finished in state Completed") for r in finished)


def test_a_bar_moves_while_a_dataset_is_trained_and_ends_at_100_percent(carried: Carried) -> None:
    assert len(set(carried.bars)) >= 3
    assert carried.bars == sorted(carried.bars)
    (bar,) = carried.artifacts("progress-demo")
    assert float(bar["data"]) == 100
    assert bar["description"].startswith("All phases done in")
    broken = [a for a in post(f"{carried.api}/artifacts/filter") if str(a["key"]).startswith("progress-bro")]
    (stopped,) = broken
    assert float(stopped["data"]) < 100
    assert "**graphs failed**" in stopped["description"]
    assert "Not reached: teacher, student" in stopped["description"]


def test_a_worker_analyzes_again_and_artifacts_get_a_history(
    carried: Carried, analyzed_again: dict[str, Any]
) -> None:
    assert analyzed_again["name"] == f"analyze-{carried.plan_id}"
    assert f"plan:{carried.plan_id}" in analyzed_again["tags"]
    assert "can-ids" in analyzed_again["tags"]
    keys = {artifact["key"] for artifact in post(f"{carried.api}/artifacts/latest/filter")}
    (recommendation,) = (key for key in keys if key.startswith("recommendation-"))
    for key in ("results", "metrics-demo", "dashboard", "dashboard-link", recommendation):
        versions = carried.artifacts(key)
        assert len(versions) == 2
        assert all(carried.plan_id in version["description"] for version in versions)
    links = {artifact["data"] for artifact in carried.artifacts("dashboard-link")}
    name = f"{carried.plan_id}_dashboard.html"
    assert any(f"(http://gpu-1:8000/{name})" in link for link in links)
    assert any(f"/out/{name})" in link and "(file:///" in link for link in links)


def test_a_warning_of_a_run_of_a_worker_arrives_as_one_and_without_a_password(
    carried: Carried, analyzed_again: dict[str, Any]
) -> None:
    lines = carried.logs(analyzed_again["id"])
    (warning,) = (line for line in lines if line["level"] == WARNING and "MLflow" in line["message"])
    assert warning["name"] == "core.progress"
    assert warning["task_run_id"]
    assert "s3cret" not in json.dumps(lines)
    folders = [
        getattr(Layout(carried.output_dir), f"{role}_logs") for role in ("coordinator", "orchestrator")
    ]
    for file in (path for folder in folders for path in folder.iterdir()):
        assert "s3cret" not in file.read_text(encoding="utf-8")


@pytest.mark.browser
def test_the_ui_shows_runs_and_artifacts_as_a_person_would_want_them(
    carried: Carried, analyzed_again: dict[str, Any], tmp_path: Path
) -> None:
    ui = carried.api.removesuffix("/api")
    elsewhere: list[str] = []
    newest = {a["key"]: a["latest_id"] for a in post(f"{carried.api}/artifacts/latest/filter") if a["key"]}
    (recommendation,) = (key for key in newest if key.startswith("recommendation-"))
    parent = carried.flow_run(f"retrain-{carried.plan_id} (bro-ken, demo)")
    pages = {
        "runs": ("/runs", [parent["name"], f"plan:{carried.plan_id}", "chain-demo"]),
        "retrain": (f"/runs/flow-run/{parent['id']}", [parent["name"], "dataset:demo", "phases to run"]),
        "analyze": (f"/runs/flow-run/{analyzed_again['id']}", ["dashboard", "metrics-demo"]),
        "results": (f"/artifacts/artifact/{newest['results']}", ["demo: completed", "id_frequency"]),
        "metrics": (f"/artifacts/artifact/{newest['metrics-demo']}", ["test folder", "student_gat", "MCC"]),
        "dashboard": (f"/artifacts/artifact/{newest['dashboard']}", ["Open the dashboard"]),
        "recommendation": (f"/artifacts/artifact/{newest[recommendation]}", ["training", "dataset"]),
        "progress": (f"/artifacts/artifact/{newest['progress-demo']}", ["Progress: 100%", "All phases done"]),
        "history": ("/artifacts/key/dashboard", ["dashboard", f"analyze-{carried.plan_id}"]),
    }
    with chromium() as browser:
        page = patient(browser.new_page(viewport={"width": 1280, "height": 1000}))
        page.on("request", lambda request: elsewhere.append(request.url))
        for name, (path, texts) in pages.items():
            page.goto(ui + path)
            if name == "analyze":
                page.get_by_text("Artifacts", exact=True).locator("visible=true").first.click()
            for text in texts:
                page.get_by_text(text).locator("visible=true").first.wait_for()
            _require_no_trouble(page, raw=("**", "| ---", "data:image") if "/artifacts/" in path else ())
            if name == "dashboard":
                picture = page.locator("img[src^='data:image/png']")
                picture.wait_for()
                assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 1000
            page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
    assert all(url.startswith((ui, "data:", f"blob:{ui}")) for url in elsewhere)
    assert all((tmp_path / f"{name}.png").stat().st_size > 10_000 for name in pages)


def _require_no_trouble(page: Page, raw: Sequence[str]) -> None:
    """No page of an error, and no markup that should have been shown as what it means."""
    shown = page.locator("body").inner_text()
    for trouble in ("Something went wrong", "Can't connect", "Page not found", *raw):
        assert trouble not in shown
