"""The Prefect API we talk to, the work pools and the deployments, for real."""

import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from flows.server import prefect_api
from settings.layout import Layout
from tests.commands import ROOT, config, environment, post, prefect_server, processes_that_name, run

pytestmark = pytest.mark.slow


def test_a_server_of_our_own_answers_while_it_is_needed_and_not_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with prefect_api(tmp_path) as url:
        assert url.startswith("http://127.0.0.1:")
        assert urllib.request.urlopen(f"{url}/health").status == 200
        assert processes_that_name(str(tmp_path))
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


def test_a_configured_api_is_used_and_left_alone(tmp_path: Path) -> None:
    with prefect_server(tmp_path) as url:
        shown = run(
            "flows.retrain", "--datasets", "demo", "--config", str(config(tmp_path)),
            "--output-dir", str(tmp_path / "out"),
            PREFECT_API_URL=url,
            PREFECT_HOME=str(tmp_path / "home"),
        )  # fmt: skip
        assert shown.returncode == 0, shown.stdout + shown.stderr
        names = {flow_run["name"] for flow_run in post(f"{url}/flow_runs/filter")}
        assert {"chain-demo", "sample-resources-demo"} <= names


def test_work_pools_and_deployments_are_made_from_the_repository_as_it_is(tmp_path: Path) -> None:
    with prefect_server(tmp_path) as url:
        ours = environment(PREFECT_API_URL=url, PREFECT_HOME=str(tmp_path / "home"))
        for said in ("gpu, cpu", "none, all are there"):
            made = subprocess.run(
                [sys.executable, "-m", "deployments.work_pools"],
                cwd=ROOT, env=ours, capture_output=True, text=True, check=True,
            )  # fmt: skip
            assert said in made.stdout
        prefect = Path(sys.executable).with_name("prefect")
        subprocess.run(
            [prefect, "--no-prompt", "deploy", "--all"], cwd=ROOT, env=ours, check=True, capture_output=True
        )
        deployments = {d["name"]: d for d in post(f"{url}/deployments/filter")}
        assert set(deployments) == {"nightly", "on-demand"}
        assert deployments["nightly"]["work_pool_name"] == "gpu"
        assert deployments["nightly"]["schedules"][0]["schedule"]["cron"] == "0 2 * * *"
        parameters = deployments["nightly"]["parameter_openapi_schema"]["properties"]
        assert {"datasets", "force_retrain", "priority_datasets", "resume"} <= set(parameters)
