"""The training process while nothing kills it: calls, facts, errors, output."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import TrainingProcessError
from core.events.catalogue import ChainStarted, Fact
from core.resources.failures import retryable
from core.resources.process import TrainingProcess

TARGETS = "tests.training_targets:"


@pytest.fixture
def process(tmp_path: Path) -> Iterator[TrainingProcess]:
    with TrainingProcess("set_01", tmp_path / "process_logs") as process:
        yield process


def ignore(fact: Fact) -> None:
    """For calls whose facts do not matter."""


def failure(process: TrainingProcess, target: str, *args: Any) -> TrainingProcessError:
    with pytest.raises(TrainingProcessError) as caught:
        process.run(TARGETS + target, *args, on_fact=ignore, timeout_s=120)
    assert not process.is_alive, "a failed call must not leave its process behind"
    return caught.value


def test_nothing_is_started_before_the_first_call(process: TrainingProcess) -> None:
    assert process.pid is None
    assert process.peak_memory_mib is None
    assert not process.is_alive
    assert not process.log_path.exists()


def test_calls_share_one_child_in_another_process(process: TrainingProcess) -> None:
    assert process.run(TARGETS + "echo", {"a": [1, None]}, on_fact=ignore) == {"a": [1, None]}
    first = process.pid
    process.run(TARGETS + "echo", 1, on_fact=ignore)
    assert process.pid == first != os.getpid()
    assert process.is_alive


def test_the_context_ends_the_child(tmp_path: Path) -> None:
    with TrainingProcess("a", tmp_path) as process:
        process.run(TARGETS + "echo", 1, on_fact=ignore)
        pid = process.pid
        assert pid
    assert process.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_ten_thousand_facts_arrive_in_order(process: TrainingProcess) -> None:
    facts: list[Fact] = []
    assert process.run(TARGETS + "count", 10_000, 0, on_fact=facts.append) == 10_000
    assert facts == [ChainStarted(dataset=str(number)) for number in range(10_000)]


def test_huge_facts_arrive_whole(process: TrainingProcess) -> None:
    facts: list[Fact] = []
    process.run(TARGETS + "count", 2, 40_000_000, on_fact=facts.append)
    assert [len(fact.dataset) for fact in facts if isinstance(fact, ChainStarted)] == [40_000_001] * 2


def test_huge_arguments_and_results_arrive_whole(process: TrainingProcess) -> None:
    value = os.urandom(30_000_000)
    assert process.run(TARGETS + "echo", value, on_fact=ignore) == value


def test_what_the_child_prints_goes_to_its_log(process: TrainingProcess, capfd: Any) -> None:
    process.run(TARGETS + "say", "hello", on_fact=ignore)
    log = process.log_path.read_text(encoding="utf-8")
    assert log.count("hello") == 2
    assert "written by native code" in log
    assert f"{TARGETS}say" in log
    assert capfd.readouterr() == ("", "")


def test_the_log_is_named_after_the_process_and_kept_over_restarts(process: TrainingProcess) -> None:
    process.run(TARGETS + "say", "before", on_fact=ignore)
    process.stop()
    process.run(TARGETS + "say", "after", on_fact=ignore)
    log = process.log_path.read_text(encoding="utf-8")
    assert process.log_path.name == "set_01.log"
    assert log.index("before") < log.index("after")


def test_the_child_loads_no_torch_of_its_own_accord(process: TrainingProcess) -> None:
    assert "torch" not in process.run(TARGETS + "loaded_modules", on_fact=ignore)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("capture", "set_01/a.csv line 7: bad hex"),
        ("store", "damaged store"),
        ("training", "loss is not finite"),
        ("artifact", "sha256 differs"),
        ("settings", "training.lr: too high"),
    ],
)
def test_an_error_raised_on_purpose_is_a_data_error_and_keeps_its_message(
    process: TrainingProcess, kind: str, message: str
) -> None:
    error = failure(process, "fail", kind)
    assert (error.kind, str(error)) == ("data_error", message)
    assert message in process.log_path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("raised", "kind", "text"),
    [
        ("memory", "host_oom", "MemoryError"),
        ("enomem", "host_oom", "Cannot allocate memory"),
        ("nested", "cuda_oom", "one graph does not fit"),
        ("value", "bug", "ValueError: a bug"),
        ("exit", "bug", "SystemExit: 3"),
        ("unpicklable", "bug", "this and that"),
    ],
)
def test_other_errors_are_classified_and_keep_the_end_of_their_traceback(
    process: TrainingProcess, raised: str, kind: str, text: str
) -> None:
    error = failure(process, "fail", raised)
    assert error.kind == kind
    assert text in str(error)
    assert str(process.log_path) in str(error)


def test_a_traceback_names_the_failing_line_in_message_and_log(process: TrainingProcess) -> None:
    error = failure(process, "fail", "value")
    assert "training_targets.py" in str(error)
    assert "Traceback (most recent call last)" in process.log_path.read_text(encoding="utf-8")


@pytest.mark.parametrize("target", ["no_such_function", "return_something_unpicklable"])
def test_a_wrong_target_or_result_is_a_bug(process: TrainingProcess, target: str) -> None:
    assert failure(process, target).kind == "bug"


def test_a_fact_that_cannot_be_sent_is_a_bug(process: TrainingProcess) -> None:
    assert "pickle" in str(failure(process, "emit_something_unpicklable"))


def test_after_a_failure_the_next_call_gets_a_new_child(process: TrainingProcess) -> None:
    process.run(TARGETS + "echo", 1, on_fact=ignore)
    before = process.pid
    failure(process, "fail", "value")
    assert process.run(TARGETS + "echo", 2, on_fact=ignore) == 2
    assert process.pid != before


@pytest.mark.parametrize("error", [OSError("disk full"), EOFError(), KeyboardInterrupt()])
def test_a_listener_that_raises_ends_the_child_and_is_heard(
    process: TrainingProcess, error: BaseException
) -> None:
    def refuse(fact: Fact) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        process.run(TARGETS + "count", 1_000_000, 0, on_fact=refuse)
    assert [caught.value, process.is_alive] == [error, False]


def test_arguments_that_cannot_be_sent_are_refused_here(process: TrainingProcess) -> None:
    with pytest.raises(TypeError, match="pickle"):
        process.run(TARGETS + "echo", threading.Lock(), on_fact=ignore)


def test_the_child_outlives_the_thread_that_started_it(process: TrainingProcess) -> None:
    thread = threading.Thread(target=process.run, args=(TARGETS + "echo", 1), kwargs={"on_fact": ignore})
    thread.start()
    thread.join()
    before = process.pid
    assert process.run(TARGETS + "interrupted_work", 0.3, on_fact=ignore) == "done"
    assert process.pid == before


def test_peak_memory_is_that_of_the_last_call(process: TrainingProcess) -> None:
    def peak_of(num_bytes: int) -> float:
        process.run(TARGETS + "hold", num_bytes, on_fact=ignore)
        assert process.peak_memory_mib is not None
        return process.peak_memory_mib

    large, small = peak_of(200 << 20), peak_of(1)
    assert large - small == pytest.approx(200, abs=5)
    assert small < 100


@pytest.mark.parametrize(
    ("kind", "cure"),
    [
        ("cuda_oom", True),
        ("host_oom", True),
        ("killed", True),
        ("cuda_error", True),
        ("hang", True),
        ("data_error", False),
        ("bug", False),
    ],
)
def test_only_what_another_attempt_can_cure_is_retried(kind: str, cure: bool) -> None:
    assert retryable(kind) is cure
