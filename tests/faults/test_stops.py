"""Training that is asked to stop: it ends soon, with a checkpoint, and goes on to the same bits."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from core.events.catalogue import ChainStopped, CheckpointWritten, EpochFinished, TrainingResumed
from core.resources.process import TrainingProcess
from core.training.job import PhaseJob
from tests.commands import (
    HANG_S,
    ROOT,
    PrefectServer,
    ended,
    environment,
    post,
    processes_that_name,
    run,
    start,
    wait_for,
)
from tests.held_up import Gates
from tests.places import Place, make_place, require_same
from tests.resume_helpers import MODELS, NUM_STEPS, TIMEOUT_S, Alone, run_phase, sha256
from tests.resume_targets import Moment
from tests.training_helpers import Recorder, losses

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(1800)]  # each attempt loads torch
GRACE_S = 60.0
CANCELLING = {"type": "CANCELLING", "name": "Cancelling"}
PREFECT = str(Path(sys.executable).with_name("prefect"))
MOMENTS = {
    model: Moment(model, "step", epoch=1, num_steps=2, by="interrupted")
    for models in MODELS.values()
    for model in models
} | {
    model: Moment(model, "validation", epoch=1, by="interrupted") for model in ("teacher_gat", "student_vgae")
}
"""When each model's training is interrupted: within an epoch, or while windows are validated."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    return Alone(tmp_path_factory.mktemp("alone"))


def stop_phase(process: TrainingProcess, job: PhaseJob, moment: Moment) -> Recorder:
    """One attempt of a phase, which is interrupted."""
    recorder = Recorder()
    with pytest.raises(KeyboardInterrupt):
        process.run("tests.resume_targets:train", job, moment, on_fact=recorder, timeout_s=TIMEOUT_S)
    assert not process.is_alive
    return recorder


@pytest.mark.parametrize("phase", MODELS)
def test_interrupted_training_writes_a_checkpoint_and_goes_on_from_it_to_the_same_bits(
    alone: Alone, tmp_path: Path, phase: str
) -> None:
    job = alone.job(phase, tmp_path)
    with TrainingProcess(phase, tmp_path, GRACE_S) as process:
        attempts = [stop_phase(process, job, MOMENTS[model]) for model in MODELS[phase]]
        attempts.append(run_phase(process, job))
    for model, stopped, after in zip(MODELS[phase], attempts, attempts[1:], strict=False):
        num_steps = MOMENTS[model].num_steps or NUM_STEPS
        last = stopped.facts[-1]
        assert isinstance(last, CheckpointWritten)
        assert (last.model, last.epoch, last.num_steps) == (model, 1, num_steps)
        resumed = [fact for fact in after.of(TrainingResumed) if fact.model == model]
        assert [(fact.epoch, fact.num_steps) for fact in resumed] == [(1, num_steps)]
    assert sha256(attempts[-1]) == sha256(alone.said[phase])
    assert losses(*attempts) == losses(alone.said[phase])


def test_a_call_that_does_not_heed_a_stop_ends_with_its_process_and_none_of_its_facts_is_lost(
    tmp_path: Path,
) -> None:
    recorder = Recorder()
    with TrainingProcess("stubborn", tmp_path, GRACE_S) as process, pytest.raises(KeyboardInterrupt):
        process.run("tests.training_targets:tell_and_interrupt", on_fact=recorder)
    assert len(recorder.facts) == 1
    assert not list(tmp_path.glob("*killed*"))


def test_a_second_interrupt_ends_training_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    with TrainingProcess("deaf", tmp_path, 10 * GRACE_S) as process, pytest.raises(KeyboardInterrupt):
        process.run("tests.training_targets:interrupt_twice", on_fact=Recorder())
    assert time.monotonic() - began < 9 * GRACE_S


TEACHING, STUDYING = "epoch_finished/teacher", "epoch_finished/student"
SETTINGS: dict[str, Any] = {"min_steps_per_epoch": 40}
"""Training that lasts a few seconds."""


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, captures: Path) -> Place:
    """A plan that nobody disturbs, slow enough to be stopped."""
    place = make_place(tmp_path_factory.mktemp("slow"), captures, SETTINGS)
    done = place.run()
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture
def stopped(tmp_path: Path, captures: Path) -> Place:
    """Where a plan is to be stopped."""
    return make_place(tmp_path, captures, SETTINGS)


def variables(place: Place, server: PrefectServer) -> dict[str, str]:
    home = {"PREFECT_API_URL": server.api, "PREFECT_HOME": str(place.folder / "home")}
    return {**home, "OMP_WAIT_POLICY": "passive", "PYTHONPATH": str(ROOT)}


@pytest.fixture
def gates(tmp_path: Path) -> Gates:
    """Where training waits until it is stopped: it may not be done before that."""
    return Gates(tmp_path, (TEACHING, STUDYING))


def retrain(*arguments: str) -> list[str]:
    return ["tests.held_up", "--config", "settings.yaml", "--output-dir", "out", *arguments]


def let_go_when_stopped(place: Place, gates: Gates) -> None:
    """Go on with training that was asked to end, which is not at once."""
    logs = place.layout.coordinator_logs
    wait_for(lambda: any("is asked to end" in path.read_text() for path in logs.glob("*.jsonl")))
    gates.open(TEACHING)


def trains(place: Place, phase: str) -> bool:
    """Whether a phase has trained an epoch."""
    return any(isinstance(fact, EpochFinished) and fact.phase == phase for fact in place.facts())


def training_processes(place: Place) -> list[int]:
    return processes_that_name(f"process_logs/{place.plan()}-car")


def require_stopped(place: Place) -> None:
    """The log says that the chain was broken off, and status says so too."""
    assert isinstance(place.facts()[-1], ChainStopped)
    assert not training_processes(place)
    shown = run("flows.status", "--output-dir", str(place.layout.root)).stdout
    assert "interrupted" in shown
    assert "is held by" not in shown


def test_a_command_stopped_by_ctrl_c_and_by_sigterm_goes_on_to_the_same_bits(
    stopped: Place, slow: Place, server: PrefectServer, gates: Gates
) -> None:
    known = {**variables(stopped, server), **gates.variables}
    first = start(*retrain(), cwd=stopped.folder, **known)
    wait_for(lambda: trains(stopped, "teacher"), first)
    first.send_signal(signal.SIGINT)
    gates.open(TEACHING)
    done = ended(first)
    assert (done.returncode, "interrupted" in done.stderr) == (130, True), done.stderr
    require_stopped(stopped)

    second = start(*retrain("--resume", stopped.plan()), cwd=stopped.folder, **known)
    wait_for(lambda: trains(stopped, "student"), second)
    second.send_signal(signal.SIGTERM)
    gates.open(STUDYING)
    done = ended(second)
    assert (done.returncode, "interrupted" in done.stderr) == (130, True), done.stderr
    require_stopped(stopped)

    done = run(*retrain("--resume", stopped.plan()), cwd=stopped.folder, **known)
    assert done.returncode == 0, done.stderr
    require_same(stopped, slow, [])


@pytest.mark.parametrize("cancelled", ["retrain", "chain"])
def test_a_command_whose_flow_run_is_cancelled_in_prefect_stops_soon_and_says_how_to_go_on(
    stopped: Place, server: PrefectServer, gates: Gates, cancelled: str
) -> None:
    command = start(*retrain(), cwd=stopped.folder, **variables(stopped, server), **gates.variables)
    wait_for(lambda: trains(stopped, "teacher"), command)
    of_plan = {
        "name": {"like_": f"{cancelled}-"},
        "tags": {"all_": [f"plan:{stopped.plan()}"]},
        "state": {"type": {"any_": ["RUNNING"]}},
    }
    (found,) = post(f"{server.api}/flow_runs/filter", flow_runs=of_plan)
    post(f"{server.api}/flow_runs/{found['id']}/set_state", state=CANCELLING)
    let_go_when_stopped(stopped, gates)
    done = ended(command)
    assert done.returncode == 130, done.stderr
    assert f"was cancelled: go on with python -m flows.retrain --resume {stopped.plan()}" in done.stderr
    assert "Traceback" not in done.stderr
    require_stopped(stopped)
    assert state_of(server.api, found["id"]) == "CANCELLED"


@contextmanager
def working(
    place: Place, server: PrefectServer, gates: Gates, pool: str
) -> "Iterator[subprocess.Popen[bytes]]":
    """A worker of a pool of its own."""
    known = environment(**variables(place, server), **gates.variables, PREFECT_WORKER_QUERY_SECONDS="1")
    subprocess.run([PREFECT, "work-pool", "create", "--type", "process", pool], env=known, check=True)
    with (place.folder / "worker.log").open("w") as log:
        worker = subprocess.Popen(
            [PREFECT, "worker", "start", "--pool", pool],
            cwd=place.folder, env=known, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield worker
        finally:
            worker.terminate()
            worker.wait(HANG_S)


def state_of(api: str, flow_run: str) -> str:
    (found,) = post(f"{api}/flow_runs/filter", flow_runs={"id": {"any_": [flow_run]}})
    return str(found["state"]["type"])


def deploy(place: Place, server: PrefectServer, pool: str) -> str:
    """Deploy retraining to a pool; where flow runs of it are begun."""
    deployment = post(
        f"{server.api}/deployments/",
        name=pool,
        flow_id=post(f"{server.api}/flows/", name="retrain")["id"],
        work_pool_name=pool,
        entrypoint="tests.held_up.retrain",
        parameters={"config": "settings.yaml", "output_dir": "out"},
        job_variables={"working_dir": str(place.folder), "stream_output": False},
    )
    return f"{server.api}/deployments/{deployment['id']}/create_flow_run"


def test_a_worker_that_is_killed_leaves_its_flow_run_to_complete(
    stopped: Place, slow: Place, server: PrefectServer, gates: Gates
) -> None:
    with working(stopped, server, gates, "lost") as worker:
        run_id = post(deploy(stopped, server, "lost"), state={"type": "SCHEDULED"})["id"]
        wait_for(lambda: trains(stopped, "teacher"), timeout_s=HANG_S)
        worker.kill()
        gates.open(TEACHING)
        gates.open(STUDYING)
        wait_for(lambda: state_of(server.api, run_id) == "COMPLETED", timeout_s=HANG_S)
    require_same(stopped, slow, [])


def test_a_flow_run_cancelled_in_prefect_stops_training_soon_and_its_plan_goes_on_to_the_same_bits(
    stopped: Place, slow: Place, server: PrefectServer, gates: Gates
) -> None:
    api, final = server.api, ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    gates.open(STUDYING)
    with working(stopped, server, gates, "stops"):
        runs = deploy(stopped, server, "stops")
        first = post(runs, state={"type": "SCHEDULED"})["id"]
        wait_for(lambda: trains(stopped, "teacher"), timeout_s=HANG_S)
        assert training_processes(stopped)
        began = time.monotonic()
        post(f"{api}/flow_runs/{first}/set_state", state=CANCELLING)
        let_go_when_stopped(stopped, gates)
        wait_for(lambda: not training_processes(stopped))
        print(f"from cancel to no training process: {time.monotonic() - began:.1f} s")
        wait_for(lambda: state_of(api, first) in final, timeout_s=HANG_S)
        assert state_of(api, first) == "CANCELLED"
        require_stopped(stopped)
        again = post(runs, parameters={"resume": stopped.plan()}, state={"type": "SCHEDULED"})["id"]
        wait_for(lambda: state_of(api, again) in final, timeout_s=HANG_S)
        assert state_of(api, again) == "COMPLETED"
    require_same(stopped, slow, [])
