"""The training process under real signals, limits and hangs."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import TrainingProcessError
from core.events.catalogue import ChainStarted, Fact
from core.resources.process import TrainingProcess
from tests.commands import is_gone, wait_for

pytestmark = pytest.mark.faults
TARGETS = "tests.training_targets:"
HANG_S = 3.0
"""Silence that is a hang: several slices, so that a machine which stalls does not use it up at once."""
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def process(tmp_path: Path) -> Iterator[TrainingProcess]:
    with TrainingProcess("set_01", tmp_path / "process_logs") as process:
        yield process


def failure(
    process: TrainingProcess, target: str, *args: Any, facts: list[Fact] | None = None
) -> TrainingProcessError:
    heard: list[Fact] = [] if facts is None else facts
    with pytest.raises(TrainingProcessError) as caught:
        process.run(TARGETS + target, *args, on_fact=heard.append, timeout_s=120)
    assert not process.is_alive
    return caught.value


def report(error: TrainingProcessError) -> str:
    assert error.report
    assert error.report in str(error) or error.kind == "bug"
    return Path(error.report).read_text(encoding="utf-8")


def ignore(fact: Fact) -> None:
    """For calls whose facts do not matter."""


def started(process: TrainingProcess) -> None:
    """Have it running and all loaded: on a busy machine that alone may take longer than a hang."""
    process.run(TARGETS + "echo", None, on_fact=ignore)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_killed_from_outside_is_killed_not_a_bug(process: TrainingProcess, signum: int) -> None:
    facts: list[Fact] = []
    error = failure(process, "end_by", signum, facts=facts)
    assert error.kind == "killed"
    assert signal.Signals(signum).name in str(error)
    assert facts == [ChainStarted(dataset="last words")]
    assert process.peak_memory_mib is None
    assert process.run(TARGETS + "echo", 1, on_fact=facts.append) == 1


def test_a_child_that_is_not_allowed_to_go_on_kills_itself_and_says_so(process: TrainingProcess) -> None:
    process.run(TARGETS + "echo", 1, on_fact=print)
    process.allow_until(time.monotonic() + 3600.0)
    assert process.run(TARGETS + "echo", 2, on_fact=print) == 2
    process.allow_until(time.monotonic() + 0.5)
    error = failure(process, "wait", None)
    assert error.kind == "killed"
    assert "nobody said that this process may go on: it ends" in str(error)


def test_a_child_killed_between_calls_is_replaced(process: TrainingProcess) -> None:
    process.run(TARGETS + "echo", 1, on_fact=print)
    first = process.pid
    assert first
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: not process.is_alive)
    assert process.pid is None
    assert process.run(TARGETS + "echo", 2, on_fact=print) == 2
    assert process.pid not in (None, first)


@pytest.mark.parametrize("signum", [signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_in_native_code_is_a_bug_with_its_stack(process: TrainingProcess, signum: int) -> None:
    error = failure(process, "end_by", signum)
    assert error.kind == "bug"
    assert signal.Signals(signum).name in str(error)
    assert "in end_by" in str(error)


def test_a_crash_leaves_a_report_of_where_it_was_and_what_it_used(process: TrainingProcess) -> None:
    error = failure(process, "dereference_null")
    assert error.kind == "bug"
    assert "it was in string_at (__init__.py:" in str(error)
    assert "< dereference_null (training_targets.py:" in str(error)
    text = report(error)
    assert "SIGSEGV" in text
    assert "in dereference_null" in text
    assert re.search(r"figures: .* MiB resident, .* threads", text)
    assert f"call of {TARGETS}dereference_null" in text


def test_a_mapped_file_that_was_cut_short_is_a_data_error_with_a_remedy(
    process: TrainingProcess, tmp_path: Path
) -> None:
    error = failure(process, "read_a_file_cut_short", tmp_path / "x.npy")
    assert error.kind == "data_error"
    assert "cut short" in str(error)
    assert "--resume" in str(error)
    assert "in read_a_file_cut_short" in report(error)


def test_a_child_that_leaves_without_a_word_is_a_bug(process: TrainingProcess) -> None:
    error = failure(process, "leave", 0)
    assert error.kind == "bug"
    assert "exit code 0" in str(error)


@pytest.mark.parametrize(
    "target",
    [
        "exhaust_with_bytes",
        "exhaust_with_small_objects",
        "exhaust_with_numpy",
        "exhaust_with_torch",
        "exhaust_with_polars",
        "start_threads_without_end",
        "explain_a_lack_of_memory",
    ],
)
def test_running_into_a_memory_limit_is_host_oom(process: TrainingProcess, target: str) -> None:
    assert failure(process, target).kind == "host_oom"


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        ("oom", "cuda_oom"),
        ("accelerator", "cuda_error"),
        ("accelerator_oom", "cuda_oom"),
        ("cublas", "cuda_error"),
        ("cublas_oom", "cuda_oom"),
        ("shape", "bug"),
    ],
)
def test_errors_of_torch_are_told_apart(process: TrainingProcess, raised: str, kind: str) -> None:
    assert failure(process, "fail_in_torch", raised).kind == kind


def test_the_kernels_out_of_memory_killer_is_recognised(small_cgroup: Path, tmp_path: Path) -> None:
    with TrainingProcess("a", tmp_path) as process:
        started(process)
        (small_cgroup / "cgroup.procs").write_text(str(process.pid), encoding="ascii")
        facts: list[Fact] = []
        error = failure(process, "exhaust_cgroup", facts=facts)
    assert facts == [ChainStarted(dataset="begun")]
    assert error.kind == "host_oom"
    assert "ran out of memory" in str(error)
    assert "MiB resident" in report(error)


def test_silence_is_a_hang_whose_stack_is_kept(process: TrainingProcess) -> None:
    started(process)
    with pytest.raises(TrainingProcessError, match=rf"no progress for {HANG_S:g} s") as caught:
        process.run(TARGETS + "wait", None, on_fact=lambda fact: None, timeout_s=HANG_S)
    assert caught.value.kind == "hang"
    assert not process.is_alive
    assert "in wait" in process.log_path.read_text(encoding="utf-8")


def test_a_hang_inside_native_code_is_found_too(process: TrainingProcess) -> None:
    started(process)
    with pytest.raises(TrainingProcessError) as caught:
        process.run(TARGETS + "hang_holding_the_gil", None, on_fact=lambda fact: None, timeout_s=HANG_S)
    assert caught.value.kind == "hang"
    assert "in hang_holding_the_gil" in process.log_path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("target", "where"),
    [
        ("sleep_in_c_holding_the_gil", "sleep_in_c_holding_the_gil"),
        ("loop_for_ever", "loop_for_ever"),
        ("wait_for_a_thread_that_waits", "take_both"),
    ],
)
def test_whatever_makes_no_progress_hangs_however_alive_it_is(
    process: TrainingProcess, target: str, where: str
) -> None:
    started(process)
    with pytest.raises(TrainingProcessError) as caught:
        process.run(TARGETS + target, on_fact=ignore, timeout_s=HANG_S)
    error = caught.value
    assert error.kind == "hang"
    assert f"it was in {where} (training_targets.py:" in str(error)
    assert f"in {where}" in report(error)
    assert not process.is_alive


def test_a_stopped_process_hangs_and_its_last_sign_and_stack_are_kept(
    process: TrainingProcess, tmp_path: Path
) -> None:
    errors: list[TrainingProcessError] = []

    def run() -> None:
        try:
            process.run(TARGETS + "beat_then_wait", tmp_path / "pid", on_fact=ignore, timeout_s=5.0)
        except TrainingProcessError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: process.state.figures.get("epoch") == 3 and (tmp_path / "pid").exists())
    assert process.pid
    os.kill(process.pid, signal.SIGSTOP)
    thread.join()
    (error,) = errors
    assert error.kind == "hang"
    assert "training teacher_gat, model teacher_gat, epoch 3, step 12 of 50" in str(error)
    text = report(error)
    assert "stopped" in text
    assert "in beat_then_wait" in text
    assert "told chain_started" in text


def test_a_call_that_beats_is_no_hang_however_long_it_is_silent_otherwise(process: TrainingProcess) -> None:
    started(process)
    assert process.run(TARGETS + "beat_steadily", 45, 0.1, on_fact=ignore, timeout_s=4.0) == 45
    assert process.state.doing.startswith("stepping, step ")
    assert process.state.graphs_per_s


def test_no_beat_of_one_call_is_taken_for_progress_of_the_next(process: TrainingProcess) -> None:
    process.run(TARGETS + "beat_steadily", 3, 0.05, on_fact=ignore, timeout_s=60)
    process.run(TARGETS + "echo", 1, on_fact=ignore)
    assert process.state.doing == "about to echo"
    assert process.state.figures == {}


def test_a_process_gets_the_variables_that_its_attempt_needs(process: TrainingProcess) -> None:
    process.environment = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    found = process.run(TARGETS + "variable", "PYTORCH_ALLOC_CONF", on_fact=ignore)
    assert found == "expandable_segments:True"


def test_progress_slower_than_no_limit_but_steady_is_no_hang(process: TrainingProcess) -> None:
    facts: list[Fact] = []

    def listen_slowly(fact: Fact) -> None:
        time.sleep(0.1)
        facts.append(fact)

    started(process)
    process.run(TARGETS + "count", 25, 0, on_fact=listen_slowly, timeout_s=2.0)
    assert len(facts) == 25


def test_a_call_goes_on_only_when_its_fact_was_heard(process: TrainingProcess, tmp_path: Path) -> None:
    done = tmp_path / "done"
    seen: list[bool] = []

    def listen(fact: Fact) -> None:
        time.sleep(0.3)
        seen.append(done.exists())

    process.run(TARGETS + "say_and_touch", done, on_fact=listen)
    assert (seen, done.exists()) == ([False], True)


def test_a_dead_childs_own_children_are_killed(process: TrainingProcess, tmp_path: Path) -> None:
    failure(process, "start_grandchild_and_die", tmp_path / "pid")
    grandchild = int((tmp_path / "pid").read_text())
    wait_for(lambda: is_gone(grandchild))


def test_stopping_from_another_thread_ends_a_call_under_way(process: TrainingProcess) -> None:
    def stop(fact: Fact) -> None:
        threading.Thread(target=process.stop).start()

    with pytest.raises(TrainingProcessError) as caught:
        process.run(TARGETS + "wait", None, on_fact=stop, timeout_s=120)
    assert caught.value.kind == "killed"
    assert not process.is_alive


@pytest.fixture
def parent_of(tmp_path: Path) -> Iterator[Any]:
    started: list[subprocess.Popen[bytes]] = []

    def start(target: str) -> tuple["subprocess.Popen[bytes]", int]:
        pid_file = tmp_path / "pid"
        arguments = [target, str(pid_file), str(tmp_path / "logs")]
        parent = subprocess.Popen(
            [sys.executable, "-m", "tests.training_targets", *arguments],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(parent)
        wait_for(lambda: pid_file.exists() and pid_file.read_text())
        return parent, int(pid_file.read_text())

    yield start
    for parent in started:
        parent.kill()
        parent.communicate()


@pytest.mark.parametrize(
    "target",
    ["wait", "wait_without_kernel_help", "hang_holding_the_gil"],
)
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_the_child_dies_with_its_parent(parent_of: Any, target: str, signum: int) -> None:
    parent, child = parent_of(target)
    parent.send_signal(signum)
    assert parent.wait(120) == -signum
    wait_for(lambda: is_gone(child))


@pytest.mark.parametrize("victim", ["parent", "child", "both"])
def test_nothing_that_the_child_started_outlives_it(parent_of: Any, tmp_path: Path, victim: str) -> None:
    parent, child = parent_of("start_grandchild_and_wait")
    grandchild = int((tmp_path / "grandchild").read_text())
    if victim != "parent":
        os.kill(child, signal.SIGKILL)
    if victim != "child":
        parent.kill()
    wait_for(lambda: is_gone(child) and is_gone(grandchild))


def test_ctrl_c_ends_the_parent_and_its_child(parent_of: Any) -> None:
    parent, child = parent_of("wait")
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.wait(120) == -signal.SIGINT
    assert re.search(rb"^KeyboardInterrupt", parent.stderr.read(), re.MULTILINE)
    wait_for(lambda: is_gone(child))
