"""Several processes that want the same dataset: one trains, and whoever lost it does no harm."""

import signal
import subprocess
from collections.abc import Iterator

import psutil
import pytest
import yaml

from core.events.catalogue import EpochFinished, PhaseFailed
from core.events.leases import last_sign
from core.events.stores import LocalStore
from tests.commands import ended, is_gone, processes_that_name, wait_for
from tests.places import Place, require_same

pytestmark = [pytest.mark.faults, pytest.mark.slow]
LEASE_S = 4.0
LONG_S = 30.0
"""Longer than a machine stalls: who holds it is not taken for lost."""
FOR_EVER_S = 3600.0


class Workers:
    """Processes that work on one plan's only dataset, each as a machine of its own would."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        what = ["--resume", self.place.plan(), "--chain", "car"]
        self.processes.append(self.place.start(*what, *arguments))
        return self.processes[-1]

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return ended(self.start(*arguments))

    def pause(self, victim: str, at: str) -> "subprocess.Popen[str]":
        """A worker that stops, and perhaps its training too, once a fact is in the log."""
        process = self.start("--victim", victim, "--signal", "SIGSTOP", "--at", at)
        wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, process)
        return process


def with_lease(place: Place, lease_s: float) -> None:
    path = place.folder / "settings.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["resources"]["lease_s"] = lease_s
    path.write_text(yaml.safe_dump(settings))


@pytest.fixture
def workers(place: Place, request: pytest.FixtureRequest) -> Iterator[Workers]:
    """On a plan whose coordinator was killed when its graphs were built."""
    with_lease(place, request.param)
    place.run("--victim", "both", "--at", "phase_started/teacher")
    workers = Workers(place)
    yield workers
    for process in workers.processes:
        process.kill()
        process.communicate()
    wait_for(lambda: not processes_that_name(place.plan()))


def complete(workers: Workers, uninterrupted: Place) -> None:
    done = workers.place.run("--resume", workers.place.plan())
    assert done.returncode == 0, done.stderr
    require_same(workers.place, uninterrupted, [])


@pytest.mark.parametrize("workers", [LONG_S], indirect=True)
def test_of_two_processes_one_trains_and_the_other_is_told_who(
    workers: Workers, uninterrupted: Place
) -> None:
    go_on = workers.place.folder / "go-on"
    first = workers.start("--wait-for", str(go_on), "--at", "epoch_finished/teacher")
    wait_for(lambda: any(isinstance(fact, EpochFinished) for fact in workers.place.facts()), first)
    second = workers.run()
    go_on.touch()
    assert ended(first).returncode == 0
    assert second.returncode == 1
    assert f":{first.pid}:" in second.stderr
    assert f"works on it for plan {workers.place.plan()}: wait for it, or stop that process" in second.stderr
    complete(workers, uninterrupted)


@pytest.mark.parametrize("workers", [FOR_EVER_S], indirect=True)
def test_what_a_killed_process_held_is_free_at_once_on_its_machine(
    workers: Workers, uninterrupted: Place
) -> None:
    killed = workers.run("--victim", "coordinator", "--at", "epoch_finished/teacher")
    assert killed.returncode == -signal.SIGKILL
    assert workers.run().returncode == 0
    complete(workers, uninterrupted)


@pytest.mark.parametrize("workers", [LEASE_S], indirect=True)
@pytest.mark.parametrize("victim", ["coordinator", "both"])
def test_who_was_stopped_for_longer_than_his_lease_commits_nothing_and_damages_nothing(
    workers: Workers, uninterrupted: Place, victim: str
) -> None:
    """It wakes up twice: while another trains, and when that one is done."""
    zombie = workers.pause(victim, "epoch_finished/teacher")
    (training,) = psutil.Process(zombie.pid).children()
    successor = workers.pause("coordinator", "epoch_finished/student")
    assert is_gone(training.pid)
    committed = workers.place.events()
    zombie.send_signal(signal.SIGCONT)
    lost = ended(zombie)
    assert lost.returncode == 1
    assert "no longer holds the dataset" in lost.stderr
    assert workers.place.events() == committed
    successor.send_signal(signal.SIGCONT)
    assert ended(successor).returncode == 0
    # The successor itself was stopped in the student phase, which may have failed by that.
    failed = [fact.phase for fact in workers.place.facts()[len(committed) :] if isinstance(fact, PhaseFailed)]
    assert "teacher" not in failed
    complete(workers, uninterrupted)


@pytest.mark.parametrize("workers", [LEASE_S], indirect=True)
def test_training_ends_by_itself_when_nobody_renews_its_lease(workers: Workers) -> None:
    stopped = workers.pause("coordinator", "epoch_finished/teacher")
    (training,) = psutil.Process(stopped.pid).children()
    wait_for(lambda: is_gone(training.pid))


@pytest.mark.parametrize("workers", [LEASE_S], indirect=True)
def test_who_was_stopped_and_whom_nobody_replaced_goes_on(workers: Workers, uninterrupted: Place) -> None:
    stopped = workers.pause("coordinator", "epoch_finished/teacher")
    (training,) = psutil.Process(stopped.pid).children()
    wait_for(lambda: is_gone(training.pid))
    stopped.send_signal(signal.SIGCONT)
    ended(stopped)
    complete(workers, uninterrupted)


@pytest.mark.parametrize("workers", [LONG_S], indirect=True)
def test_a_dataset_is_given_back_at_a_clean_end(workers: Workers) -> None:
    assert workers.run().returncode == 0
    last = last_sign(LocalStore(workers.place.layout.leases), "car")
    assert last is not None
    assert last[1].is_last
