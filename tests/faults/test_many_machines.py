"""Six datasets on two machines that share a folder: one is lost in mid-phase, and the other goes on."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.can.demo import ensure_demo
from core.events.catalogue import (
    ChainStarted,
    CheckpointWritten,
    Fact,
    ModelSaved,
    PhaseFailed,
    PhaseFinished,
    PhaseStarted,
    TrainingResumed,
    to_fact,
)
from core.events.log import EventLog
from core.events.resource_facts import PhaseAdmitted
from core.planning.admission import turn_of
from core.planning.phases import MODEL_PHASES, PHASES
from core.planning.plan_state import PLAN_STATE
from settings.data import DemoSettings
from settings.layout import Layout
from tests.commands import BUSY_S, ROOT, TINY, answers, environment, free_port, post, start, wait_for
from tests.machines_apart import PREFECT, PYTHON, Host, hosts
from tests.postgres import postgres

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(1800)]

DATASETS = [f"car_{i}" for i in range(6)]
SETTINGS: dict[str, Any] = {
    **TINY,
    "training": {
        **TINY["training"],
        "epochs": 2,
        "num_threads": 1,
        "checkpoint_interval_s": 0.0,
        "device": "cpu",
    },
    "resources": {**TINY["resources"], "lease_s": 12.0},
    "tracking": {"mlflow": False},
}


@dataclass(frozen=True)
class Server:
    """A Prefect server that other hosts can reach."""

    port: int
    home: Path

    def api(self, address: str = "127.0.0.1") -> str:
        return f"http://{address}:{self.port}/api"

    def environment(self) -> dict[str, str]:
        return {"PREFECT_API_URL": self.api(), "PREFECT_HOME": str(self.home / "client")}

    def limits(self) -> dict[str, int]:
        """Slots of our limits that are held."""
        found = post(f"{self.api()}/v2/concurrency_limits/filter")
        return {limit["name"]: limit["active_slots"] for limit in found if limit["name"].startswith("can-")}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(free_port(), tmp_path / "prefect")
    with postgres() as database, _serving(found, database):
        yield found


@contextmanager
def _serving(found: Server, database: str) -> Iterator[None]:
    process = subprocess.Popen(
        [PREFECT, "server", "start", "--host", "0.0.0.0", "--port", str(found.port)],  # noqa: S104 - for the hosts
        cwd=ROOT,
        env=environment(
            PREFECT_HOME=str(found.home),
            PREFECT_SERVER_DATABASE_CONNECTION_URL=database,
            PREFECT_SERVER_ANALYTICS_ENABLED="false",
            PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE="prefect.server.concurrency.lease_storage.filesystem",
        ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: answers(found.api()))
        yield
    finally:
        process.terminate()
        process.wait(BUSY_S)


@pytest.fixture
def captures(tmp_path: Path) -> Path:
    """Where the captures are; every host has a copy elsewhere."""
    folder = tmp_path / "captures"
    for seed, name in enumerate(DATASETS):
        simulated = ensure_demo(DemoSettings(seed=seed, duration_s=2.0, cache_dir=tmp_path / "simulated"))
        shutil.copytree(simulated, folder / name)
    return folder


@contextmanager
def running(*arguments: str, **extra: Any) -> Iterator["subprocess.Popen[str]"]:
    """A command of ours in the background; it does not outlive the context."""
    process = start(*arguments, **extra)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def settings_file(path: Path, datasets: Sequence[str], **groups: Any) -> str:
    own = {name: {"folder": name, "tests": ["test_01*"]} for name in datasets}
    data = {"datasets": own, **groups.pop("data", {})}
    path.write_text(yaml.safe_dump({**SETTINGS, "data": data, **groups}))
    return str(path)


def test_a_machine_that_is_lost_in_mid_phase_costs_no_more_than_a_checkpoint(
    tmp_path: Path, server: Server, captures: Path
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    config = settings_file(
        tmp_path / "settings.yaml", DATASETS, scheduling={"chain_deployment": "dataset-chain/any"}
    )
    with hosts(tmp_path, "host-a", "host-b") as (lost, other):
        _prepare(server, (lost, other))
        for host in (lost, other):
            shutil.copytree(captures, host.folder / "captures")
            host.start(
                # Half of the chains each: without a limit the worker that asks first may take them all.
                [PREFECT, "worker", "start", "--pool", "gpu", "--name", host.name, "--limit", "3"],
                PREFECT_API_URL=server.api(host.gateway),
                PREFECT_HOME=str(host.folder / "home"),
                PREFECT_WORKER_QUERY_SECONDS="2",
                CAN_RETRAIN__OUTPUT_DIR=str(host.folder / "out"),
                CAN_RETRAIN__STORAGE__URL=str(shared),
                CAN_RETRAIN__DATA__DATA_DIR=str(host.folder / "captures"),
            )
        log = EventLog(shared / "events")
        with running(
            "flows.retrain", "--config", config, "--output-dir", str(tmp_path / "parent"),
            "--data-dir", str(captures), "--datasets", *DATASETS, "--priority-datasets", DATASETS[5],
            PREFECT_API_URL=server.api(),
            PREFECT_HOME=str(server.home / "client"),
            CAN_RETRAIN__STORAGE__URL=str(shared),
        ) as parent:  # fmt: skip
            wait_for(lambda: _is_in_mid_phase(log, lost.name), parent, timeout_s=600)
            lost.lose()
            before = _facts(log)
            held = _holders(before)
            taken_over = [name for name in DATASETS if held[name].startswith(lost.name)]
            alone = settings_file(tmp_path / "alone.yaml", taken_over, data={"data_dir": str(captures)})
            with running("tests.in_process", alone, str(tmp_path / "alone")) as undisturbed:
                out, err = parent.communicate(timeout=900)
                assert parent.returncode == 0, out + err
                assert undisturbed.wait(600) == 0
        # What the lost machine held is free when its leases have run out.
        wait_for(lambda: not any(server.limits().values()))

    facts = _facts(log)
    assert all(_holders(facts)[name].startswith(other.name) for name in taken_over)
    assert any(isinstance(fact, TrainingResumed) for fact in facts[len(before) :])
    _require_one_at_a_time(facts)
    state = PLAN_STATE.fold(log.read(log.streams()[0]))
    assert state.status == "completed"
    assert {phase.status for phase in state.phases.values()} == {"completed"}
    assert len(state.phases) == len(DATASETS) * len(PHASES)
    admitted = [fact for fact in facts if isinstance(fact, PhaseAdmitted)]
    assert {fact.limit for fact in admitted} == {f"can-cpu-{host.name}" for host in (lost, other)}
    expected = _models(_facts(EventLog(Layout(tmp_path / "alone").events)))
    assert len(expected) == len(taken_over) * len(MODEL_PHASES)
    assert expected.items() <= _models(facts).items()


def _prepare(server: Server, machines: Sequence[Host]) -> None:
    """Work pool, deployment, and room for two phases on each machine."""
    for command in (
        [PYTHON, "-m", "deployments.apply"],
        [PREFECT, "--no-prompt", "deploy", "-n", "any"],
    ):
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment(**server.environment()),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    for machine in machines:
        limit = f"can-cpu-{machine.name}"
        for name, slots in ((limit, 2), (turn_of(limit), 1)):
            post(f"{server.api()}/v2/concurrency_limits/", name=name, limit=slots)


def _facts(log: EventLog) -> list[Fact]:
    (plan_id,) = log.streams()
    return [to_fact(event) for event in log.read(plan_id)]


def _is_in_mid_phase(log: EventLog, host: str) -> bool:
    """Whether every chain has begun, and one on the host has a checkpoint of a phase that runs."""
    if not log.streams():
        return False
    facts = _facts(log)
    held = _holders(facts)
    running: dict[str, str] = {}
    for fact in facts:
        match fact:
            case CheckpointWritten():
                running[fact.dataset] = fact.phase
            case PhaseFinished() | PhaseFailed():
                running.pop(fact.dataset, None)
            case _:
                pass
    return len(held) == len(DATASETS) and any(held[name].startswith(host) for name in running)


def _holders(facts: Sequence[Fact]) -> dict[str, str]:
    """Who works on each dataset, or last did."""
    return {fact.dataset: fact.holder for fact in facts if isinstance(fact, ChainStarted)}


def _require_one_at_a_time(facts: Sequence[Fact]) -> None:
    """A phase begins only when the one before it has ended, or another process has taken the dataset over."""
    running: dict[str, str] = {}
    finished: set[tuple[str, str]] = set()
    for fact in facts:
        match fact:
            case ChainStarted():
                running.pop(fact.dataset, None)
            case PhaseStarted():
                assert fact.dataset not in running, (
                    f"{fact.dataset}: {running[fact.dataset]} and {fact.phase}"
                )
                assert (fact.dataset, fact.phase) not in finished or fact.phase == PHASES[0]
                running[fact.dataset] = fact.phase
            case PhaseFinished() | PhaseFailed():
                assert running.pop(fact.dataset) == fact.phase
                finished.add((fact.dataset, fact.phase))
            case _:
                pass


def _models(facts: Sequence[Fact]) -> Mapping[tuple[str, str], str]:
    """Digest of each model's file, by dataset and phase."""
    return {(fact.dataset, fact.phase): fact.sha256 for fact in facts if isinstance(fact, ModelSaved)}
