"""What a run stands on fails while it goes: server, disk, clock. Nothing is lost and the plan completes."""

import os
import shutil
import signal
import sqlite3
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from core.events.catalogue import EpochFinished, Fact, PhaseFailed, PhaseFinished, PlanFinished, to_fact
from core.events.event import Event
from core.events.log import EventLog
from core.planning.plan_state import PLAN_STATE
from settings.layout import Layout
from tests.commands import (
    ROOT,
    TINY,
    PrefectServer,
    answers,
    config,
    ended,
    holder,
    post,
    processes_that_name,
    run,
    start,
    wait_for,
)
from tests.held_up import Gates

pytestmark = [pytest.mark.faults, pytest.mark.slow]
TEACHING, STUDYING = "epoch_finished/teacher", "phase_started/student"


@dataclass
class Plan:
    """The command's demo plan in a folder, against a server that the test may kill.

    Its training waits, once the teacher has trained an epoch, until the test has done what it wants to do.
    """

    folder: Path
    api: str
    gates: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def layout(self) -> Layout:
        return Layout(self.folder / "out")

    @property
    def _arguments(self) -> list[str]:
        training = {**TINY["training"], "epochs": 3, "num_threads": 1, "checkpoint_interval_s": 0.5}
        settings = config(
            self.folder, training=training, tracking={"mlflow": False}, retention={"min_free_gib": 0}
        )
        return ["--config", str(settings), "--output-dir", str(self.layout.root)]

    @property
    def _variables(self) -> dict[str, str]:
        home = {"PREFECT_API_URL": self.api, "PREFECT_HOME": str(self.folder / "home")}
        return {**home, "OMP_WAIT_POLICY": "passive", **self.variables}

    def start(self, module: str = "flows.retrain", **extra: str) -> "subprocess.Popen[str]":
        return start(module, *self._arguments, "--datasets", "demo", cwd=ROOT, **self._variables, **extra)

    def start_held_up(self, *at: str) -> tuple["subprocess.Popen[str]", Gates]:
        """Start it, and wait until the teacher has trained an epoch, where it waits as at other facts."""
        gates = Gates(self.gates, (TEACHING, *at))
        process = self.start("tests.held_up", **gates.variables)
        wait_for(self._is_taught, process)
        return process, gates

    def resume(self) -> "subprocess.CompletedProcess[str]":
        return run("flows.retrain", *self._arguments, "--resume", self.plan_id, cwd=ROOT, **self._variables)

    @property
    def plan_id(self) -> str:
        (plan_id,) = EventLog(self.layout.events).streams()
        return plan_id

    def events(self) -> list[Event]:
        log = EventLog(self.layout.events)
        return [event for plan_id in log.streams() for event in log.read(plan_id)]

    def facts(self) -> list[Fact]:
        return [to_fact(event) for event in self.events()]

    def _is_taught(self) -> bool:
        return any(isinstance(fact, EpochFinished) for fact in self.facts())

    def has_finished(self, phase: str) -> bool:
        return any(isinstance(fact, PhaseFinished) and fact.phase == phase for fact in self.facts())

    def require_whole(self, before: list[Event]) -> None:
        """The plan is completed, has everything that was committed before, and left nothing running."""
        events = self.events()
        assert events[: len(before)] == before
        assert [event.position for event in events] == list(range(len(events)))
        assert PLAN_STATE.fold(events).status == "completed"
        assert run("flows.verify", "--output-dir", str(self.layout.root)).returncode == 0
        wait_for(lambda: not processes_that_name(self.plan_id))


@pytest.fixture
def plan(tmp_path: Path, server: PrefectServer) -> Plan:
    return Plan(tmp_path, server.api, tmp_path)


def test_a_server_that_is_killed_and_comes_back_costs_no_training(plan: Plan, server: PrefectServer) -> None:
    process, gates = plan.start_held_up(STUDYING)
    server.kill()
    before = plan.events()
    gates.open(TEACHING)
    wait_for(lambda: plan.has_finished("teacher"), process)  # training needs no server
    server.start()
    gates.open(STUDYING)
    done = ended(process)
    assert done.returncode == 0, done.stdout + done.stderr
    plan.require_whole(before)
    assert not [fact for fact in plan.facts() if isinstance(fact, PhaseFailed)]
    (chain,) = post(f"{server.api}/flow_runs/filter", flow_runs={"name": {"any_": ["chain-demo"]}})
    assert chain["state_type"] == "COMPLETED"


@contextmanager
def without_database(server: PrefectServer) -> Iterator[None]:
    """What the server keeps is out of its reach: it is healthy, and answers nothing but 500."""

    def rename(ending: str, to: str) -> None:
        with closing(
            sqlite3.connect(server.home / "prefect.db", timeout=60, isolation_level=None)
        ) as database:
            database.execute("PRAGMA legacy_alter_table = ON")
            for table in ("flow_run", "task_run", "concurrency_limit_v2"):
                database.execute(f"ALTER TABLE {table}{ending} RENAME TO {table}{to}")

    rename("", "_away")
    try:
        yield
    finally:
        rename("_away", "")


def test_a_server_whose_database_is_away_costs_no_training(plan: Plan, server: PrefectServer) -> None:
    process, gates = plan.start_held_up()
    with without_database(server):
        assert answers(server.api)
        before = plan.events()
        gates.open(TEACHING)
        done = ended(process)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "goes on without Prefect" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    plan.require_whole(before)
    assert not [fact for fact in plan.facts() if isinstance(fact, PhaseFailed)]


def test_a_disk_that_fills_up_stops_the_run_with_its_reason_and_room_lets_it_complete(
    small_disk: Path, tmp_path: Path, server: PrefectServer
) -> None:
    plan = Plan(small_disk, server.api, tmp_path)
    process, gates = plan.start_held_up()
    ballast = small_disk / "ballast"
    with suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
    before = plan.events()
    gates.open(TEACHING)
    done = ended(process)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    ballast.unlink()
    resumed = plan.resume()
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    plan.require_whole(before)


def test_outputs_that_become_read_only_stop_the_run_with_their_reason(
    small_disk: Path, tmp_path: Path, server: PrefectServer
) -> None:
    plan = Plan(small_disk, server.api, tmp_path)
    process, gates = plan.start_held_up()
    subprocess.run(["mount", "--bind", small_disk, small_disk], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", small_disk], check=True)
    before = plan.events()
    gates.open(TEACHING)
    done = ended(process)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Read-only file system" in done.stderr
    assert "Traceback" not in done.stderr
    wait_for(lambda: not processes_that_name(plan.plan_id))  # what a process has open cannot be unmounted
    subprocess.run(["umount", small_disk], check=True)
    resumed = plan.resume()
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    plan.require_whole(before)


CLOCK = """
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <sys/time.h>
    #include <time.h>
    static long offset(void) {
        long s = 0;
        FILE *file = fopen(getenv("CLOCK_OFFSET"), "r");
        if (file) { if (fscanf(file, "%ld", &s) != 1) s = 0; fclose(file); }
        return s;
    }
    int clock_gettime(clockid_t id, struct timespec *t) {
        static int (*real)(clockid_t, struct timespec *);
        if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
        int failed = real(id, t);
        if (!failed && id == CLOCK_REALTIME) t->tv_sec += offset();
        return failed;
    }
    time_t time(time_t *t) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        if (t) *t = now.tv_sec;
        return now.tv_sec;
    }
    int gettimeofday(struct timeval *restrict t, void *restrict zone) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        t->tv_sec = now.tv_sec;
        t->tv_usec = now.tv_nsec / 1000;
        return 0;
    }
"""
"""A clock that a test may set: that of the processes which load it, and of no other."""


@pytest.fixture
def clock(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A file with seconds that the clock is wrong by, and what a process needs to go by it."""
    if not (compiler := shutil.which("cc")):
        pytest.skip("no C compiler")
    source, library, offset = tmp_path / "clock.c", tmp_path / "clock.so", tmp_path / "offset"
    source.write_text(textwrap.dedent(CLOCK))
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    offset.write_text("0")
    return offset, {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(offset)}


@pytest.mark.parametrize("step_s", [-3600, 86_400], ids=["an hour back", "a day ahead"])
def test_a_clock_that_steps_changes_nothing_but_what_the_events_say_of_it(
    plan: Plan, clock: tuple[Path, dict[str, str]], step_s: int
) -> None:
    offset, plan.variables = clock
    process, gates = plan.start_held_up()
    before = plan.events()
    offset.write_text(str(step_s))
    gates.open(TEACHING)
    done = ended(process)
    assert done.returncode == 0, done.stdout + done.stderr
    plan.require_whole(before)
    assert not [fact for fact in plan.facts() if isinstance(fact, PhaseFailed)]
    assert abs(plan.events()[-1].occurred_at - datetime.now(UTC) - timedelta(seconds=step_s)) < timedelta(
        minutes=30
    )
    assert all(
        fact.duration_s >= 0 for fact in plan.facts() if isinstance(fact, EpochFinished | PlanFinished)
    )
    shown = run("flows.analyze", "--output-dir", str(plan.layout.root))
    assert shown.returncode == 0, shown.stderr


def test_two_commands_at_once_on_one_folder_carry_out_one_plan(plan: Plan) -> None:
    both = [plan.start(), plan.start()]
    winner = stopped_while_holding(plan.layout.root)
    (other,) = (process for process in both if process.pid != winner)
    refused = ended(other)
    os.kill(winner, signal.SIGCONT)
    (process,) = (process for process in both if process.pid == winner)
    done = ended(process)
    assert (done.returncode, refused.returncode) == (0, 1), done.stderr + refused.stderr
    assert "is carrying out a plan in" in refused.stderr
    assert "Traceback" not in refused.stderr
    plan.require_whole([])


def stopped_while_holding(output_dir: Path) -> int:
    """Stop the process that holds an output directory: it may not be done before others have tried."""
    while True:
        wait_for(lambda: holder(output_dir))
        if pid := holder(output_dir):
            os.kill(pid, signal.SIGSTOP)
            wait_for(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
            if holder(output_dir) == pid:
                return pid
            os.kill(pid, signal.SIGCONT)  # it had only looked whether it may
