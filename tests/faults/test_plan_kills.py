"""Plans under SIGKILL: whoever dies, wherever and however often, the models come out the same to the byte."""

import random
import shutil
import signal
import subprocess
from contextlib import suppress

import pytest

from core.events.catalogue import GraphsBuilt, GraphsLost, PhaseFailed
from core.events.event import Event
from core.events.log import EventLog
from core.planning.plan_state import PLAN_STATE
from tests.commands import ended, holder, processes_that_name, run, wait_for
from tests.places import Place, require_same

pytestmark = [pytest.mark.faults, pytest.mark.slow]
KILLS = (
    ("coordinator", "graphs_built"),
    ("both", "phase_started/teacher"),
    ("coordinator", "epoch_finished/teacher"),
    ("both", "model_saved/teacher"),
    ("coordinator", "checkpoint_written/student"),
    ("both", "epoch_finished/fusion"),
    ("coordinator", "chain_finished"),
)
"""Who dies when: between any two facts that a resume could take for more, or less, than they are."""


def require_dead(place: Place, done: "subprocess.CompletedProcess[str]") -> list[Event]:
    """The process was killed and nothing of it is left; the events it leaves behind."""
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    wait_for(lambda: not processes_that_name(place.plan()))
    return place.events()


def test_a_plan_killed_at_every_boundary_loses_nothing(place: Place, uninterrupted: Place) -> None:
    left_behind: list[list[Event]] = []
    for victim, at in KILLS:
        taken_up = ["--resume", place.plan()] if left_behind else []
        left_behind.append(require_dead(place, place.run(*taken_up, "--victim", victim, "--at", at)))
        if at == "model_saved/teacher":  # as if it had been written anew and not yet been told
            (model,) = place.layout.saved_models.iterdir()
            model.write_bytes(b"another file than the log knows of")
    done = place.run("--resume", place.plan())
    assert done.returncode == 0, done.stderr
    require_same(place, uninterrupted, left_behind)
    again = place.run("--resume", place.plan())
    assert (again.returncode, "nothing left to do" in again.stderr) == (2, True)


def test_a_training_process_that_is_killed_again_and_again_is_replaced_within_the_run(
    place: Place, uninterrupted: Place
) -> None:
    done = place.run("--victim", "training", "--at", "epoch_finished/teacher", "model_saved/student")
    assert done.returncode == 0, done.stderr
    failures = [fact for fact in place.facts() if isinstance(fact, PhaseFailed)]
    assert [(f.phase, f.kind) for f in failures] == [("teacher", "killed"), ("student", "killed")]
    require_same(place, uninterrupted, [])


def test_a_plan_killed_at_any_time_again_and_again_loses_nothing(place: Place, uninterrupted: Place) -> None:
    rng, left_behind = random.Random(1), list[list[Event]]()
    process = place.start()
    wait_for(lambda: EventLog(place.layout.events).streams(), process)
    for _ in range(3):
        with suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.0, 8.0))
            break  # a fast machine was done before
        process.kill()
        if process.wait() != -signal.SIGKILL:
            break  # it was done just then
        left_behind.append(require_dead(place, ended(process)))
        process = place.start("--resume", place.plan())
    done = ended(process)
    assert done.returncode == 0 or "nothing left to do" in done.stderr, done.stderr
    assert left_behind
    require_same(place, uninterrupted, left_behind)


def test_a_plan_goes_on_elsewhere_from_log_checkpoints_models_and_captures_alone(
    place: Place, uninterrupted: Place, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = require_dead(place, place.run("--victim", "both", "--at", "epoch_finished/student"))
    elsewhere = Place(tmp_path_factory.mktemp("elsewhere"))
    (elsewhere.folder / "settings.yaml").write_text("{}")  # the plan knows its own
    for kept in ("events", "checkpoints", "saved_models"):
        shutil.move(place.layout.root / kept, elsewhere.layout.root / kept)
    shutil.move(place.folder / "captures", elsewhere.folder / "moved")
    shutil.rmtree(place.folder)

    lost = elsewhere.run("--resume", elsewhere.plan())
    assert lost.returncode == 1
    assert PLAN_STATE.fold(elsewhere.events()).phases["car", "graphs"].reason.startswith("data_error")
    done = elsewhere.run("--resume", elsewhere.plan(), "--data-dir", "moved")
    assert done.returncode == 0, done.stderr
    require_same(elsewhere, uninterrupted, [before])
    assert len([fact for fact in elsewhere.facts() if isinstance(fact, GraphsLost)]) == 1
    first, again = (fact for fact in elsewhere.facts() if isinstance(fact, GraphsBuilt))
    assert (first.graphs_digest, first.split_digest) == (again.graphs_digest, again.split_digest)


def test_only_one_process_takes_a_plan_up(place: Place) -> None:
    require_dead(place, place.run("--victim", "coordinator", "--at", "chain_started"))
    first = place.start("--resume", place.plan())
    wait_for(lambda: holder(place.layout.root) == first.pid, first)
    first.send_signal(signal.SIGSTOP)
    second = run("flows.retrain", "--resume", place.plan(), "--output-dir", str(place.layout.root))
    first.kill()
    first.communicate()
    assert second.returncode == 1
    assert f"process {first.pid} is carrying out a plan" in second.stderr
