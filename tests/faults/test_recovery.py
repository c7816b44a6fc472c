"""Plans whose training process is lost more often than it may be retried, or is starved by the kernel."""

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from core.can.demo import ensure_demo
from core.events.catalogue import CheckpointWritten, EpochFinished, Fact, PhaseFailed, PhaseStarted, to_fact
from core.planning.coordinator import RetrainingCoordinator
from settings.app import load_settings
from settings.data import DemoSettings
from tests.commands import TINY

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def carry_out(folder: Path, listener: Callable[[Fact], None], **training: object) -> tuple[str, list[Fact]]:
    """The plan's status at its end, and its facts."""
    simulated = ensure_demo(DemoSettings(duration_s=4.0, cache_dir=folder / "simulated"))
    shutil.copytree(simulated, folder / "captures" / "car")
    settings = load_settings(
        **{
            **TINY,
            "data": {"data_dir": folder / "captures", "datasets": {"car": {"folder": "car"}}},
            "training": {**TINY["training"], "num_threads": 1, "checkpoint_interval_s": 0.0, **training},
            "output_dir": folder / "out",
        }
    )
    coordinator = RetrainingCoordinator(settings)
    plan = coordinator.create_retraining_plan()
    state = coordinator.execute_retraining_plan(plan, listener)
    return state.status, [to_fact(event) for event in coordinator.log.read(plan.plan_id)]


def training_pid() -> int:
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # another's, which is just ending
            if "resources.worker" in " ".join(child.cmdline()):
                return child.pid
    raise AssertionError("nothing trains")


def test_a_process_that_is_killed_more_often_than_it_may_be_retried_gets_there_by_its_checkpoints(
    tmp_path: Path,
) -> None:
    kills: list[int] = []

    def kill_at_every_other_checkpoint(fact: Fact) -> None:
        if isinstance(fact, CheckpointWritten) and fact.phase == "teacher" and len(kills) < 3:
            kills.append(training_pid())
            os.kill(kills[-1], signal.SIGKILL)

    status, facts = carry_out(tmp_path, kill_at_every_other_checkpoint, max_retries=1)
    assert status == "completed"
    assert [fact.kind for fact in facts if isinstance(fact, PhaseFailed)] == ["killed"] * 3
    assert len(set(kills)) == 3


def test_a_process_that_the_kernel_kills_for_want_of_memory_asks_for_less_and_gets_there(
    tmp_path: Path, small_cgroup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[int] = []
    # It is moved there in the middle of a call, when the counters to watch have been chosen.
    counters = [small_cgroup / name for name in ("memory.events", "memory.oom_control")]
    monkeypatch.setattr("core.resources.process.oom_kill_counters", lambda pid: counters)

    def starve_once(fact: Fact) -> None:
        if isinstance(fact, EpochFinished) and not moved:
            moved.append(training_pid())
            limit = next(
                f for name in ("memory.max", "memory.limit_in_bytes") if (f := small_cgroup / name).exists()
            )
            limit.write_text(str(2 << 20))
            (small_cgroup / "cgroup.procs").write_text(str(moved[-1]))

    status, facts = carry_out(tmp_path, starve_once)
    assert status == "completed"
    (failed,) = (fact for fact in facts if isinstance(fact, PhaseFailed))
    assert failed.kind == "host_oom"
    assert failed.report
    assert "ran out of memory" in Path(failed.report).read_text(encoding="utf-8")
    first, second = (fact for fact in facts if isinstance(fact, PhaseStarted) and fact.phase == failed.phase)
    assert second.micro_batch_size < first.micro_batch_size
    assert first.num_workers is not None
    assert (second.num_workers, second.prefetch_factor) == (first.num_workers // 2, 1)
    assert all("host_oom" in choice for choice in second.choices)
    assert len(second.choices) == 2
