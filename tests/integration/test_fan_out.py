"""Chains as flow runs of their own: parents that are lost and cancelled, workers that are not there."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from core.events.log import EventLog
from core.planning.admission import cpu_limit, turn_of
from core.planning.plan_state import PLAN_STATE
from settings.layout import Layout
from settings.scheduling import SchedulingSettings
from tests.commands import (
    HANG_S,
    ROOT,
    TINY,
    PrefectServer,
    config,
    environment,
    post,
    run,
    start,
    wait_for,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PREFECT = str(Path(sys.executable).with_name("prefect"))


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with the work pools, without a deployment."""
    server = PrefectServer(tmp_path_factory.mktemp("prefect"))
    try:
        server.start()
        _command(server.api, sys.executable, "-m", "deployments.apply")
        yield server.api
    finally:
        server.stop()


@pytest.fixture(scope="module")
def deployed(api: str) -> str:
    """The same with the chains' deployment, and room for one phase at a time on this machine."""
    _command(api, PREFECT, "--no-prompt", "deploy", "-n", "any")
    limit = cpu_limit(SchedulingSettings())
    for name in (limit, turn_of(limit)):
        post(f"{api}/v2/concurrency_limits/", name=name, limit=1)
    return api


def _command(api: str, *command: str) -> None:
    done = subprocess.run(
        command, cwd=ROOT, env=environment(PREFECT_API_URL=api), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def worker(api: str) -> Iterator[None]:
    process = subprocess.Popen(
        [PREFECT, "worker", "start", "--pool", "gpu"],
        cwd=ROOT,
        env=environment(PREFECT_API_URL=api, PREFECT_WORKER_QUERY_SECONDS="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(HANG_S)


def settings(folder: Path, deployment: str) -> list[str]:
    """Arguments for two small datasets whose chains are carried out elsewhere."""
    twins: dict[str, Any] = {"demo": {**TINY["data"]["demo"], "cache_dir": str(folder / "simulated")}}
    path = config(
        folder,
        data=twins,
        training={**TINY["training"], "num_threads": 1, "device": "cpu"},
        tracking={"mlflow": False},
        scheduling={"chain_deployment": deployment},
    )
    return ["flows.retrain", "--config", str(path), "--output-dir", str(folder / "out")]


def runs(api: str) -> list[dict[str, Any]]:
    """Flow runs of chains, oldest first."""
    found = post(f"{api}/flow_runs/filter", flow_runs={"deployment_id": {"is_null_": False}})
    return sorted((one for one in found if one["name"].startswith("chain-")), key=lambda one: one["created"])


def logged(folder: Path, text: str) -> bool:
    return any(text in file.read_text() for file in (folder / "out" / "coordinator_logs").glob("*.jsonl"))


def test_a_deployment_that_is_not_there_is_an_error_before_anything_is_begun(
    api: str, tmp_path: Path
) -> None:
    command = settings(tmp_path, "dataset-chain/nowhere-{dataset}")
    done = run(*command, "--datasets", "demo", PREFECT_API_URL=api)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "has no deployment dataset-chain/nowhere-demo (setting scheduling.chain_deployment)" in done.stderr
    assert not EventLog(Layout(tmp_path / "out").events).streams()


def test_a_parent_that_is_lost_finds_its_chains_again_and_one_that_is_cancelled_cancels_them(
    deployed: str, tmp_path: Path
) -> None:
    command = settings(tmp_path, "dataset-chain/any")
    chosen = ("--datasets", "demo", "--priority-datasets", "demo")
    first = start(*command, *chosen, PREFECT_API_URL=deployed)
    wait_for(lambda: logged(tmp_path, "no worker of the work pool gpu is online"), first)
    first.kill()
    first.communicate()
    (plan_id,) = EventLog(Layout(tmp_path / "out").events).streams()
    (chain,) = runs(deployed)
    assert (chain["work_queue_name"], chain["state_type"]) == ("priority", "SCHEDULED")
    assert {f"plan:{plan_id}", "dataset:demo"} <= set(chain["tags"])

    # Cancelled in the terminal: so is the chain, which is the same flow run as before.
    second = start(*command, "--resume", plan_id, PREFECT_API_URL=deployed)
    wait_for(lambda: logged(tmp_path, "its chain goes on in flow run"), second)
    second.send_signal(signal.SIGINT)
    _, err = second.communicate(timeout=HANG_S)
    assert second.returncode == 130, err
    (chain,) = runs(deployed)
    assert chain["state_type"] == "CANCELLED"

    # Taken up again it is another run; a person cancels that one, and it is not begun again.
    third = start(*command, "--resume", plan_id, PREFECT_API_URL=deployed)
    wait_for(lambda: len(runs(deployed)) == 2, third)
    cancelled = {"type": "CANCELLING", "name": "Cancelling"}
    post(f"{deployed}/flow_runs/{runs(deployed)[1]['id']}/set_state", state=cancelled)
    _, err = third.communicate(timeout=HANG_S)
    assert third.returncode == 130, err
    assert f"--resume {plan_id}" in err

    with worker(deployed):
        last = run(*command, "--resume", plan_id, PREFECT_API_URL=deployed)
        assert last.returncode == 0, last.stdout + last.stderr
        # The parent goes by the log: Prefect may hear a little later that the chain is over.
        wait_for(lambda: runs(deployed)[-1]["state_type"] not in ("PENDING", "RUNNING"))
    assert [one["state_type"] for one in runs(deployed)] == ["CANCELLED", "CANCELLED", "COMPLETED"]
    state = PLAN_STATE.fold(EventLog(Layout(tmp_path / "out").events).read(plan_id))
    assert state.status == "completed"
    admitted = [phase.admitted for phase in state.phases.values()]
    assert all(granted and granted.limit == cpu_limit(SchedulingSettings()) for granted in admitted)
    slots = {one["name"]: one["active_slots"] for one in post(f"{deployed}/v2/concurrency_limits/filter")}
    assert not any(held for name, held in slots.items() if name.startswith("can-"))
