"""Reports on processes that hung or died."""

import os
from pathlib import Path

import pytest

from core.resources.process_report import has_all_stacks, measure_process, top_frames, write_report

HUNG = """Thread 0x00007faa (most recent call first):
  File "/lib/threading.py", line 331 in wait

Current thread 0x00007fab (most recent call first):
  File "/x/gatv2.py", line 12 in forward
  File "/x/step.py", line 34 in step
  File "/x/loop.py", line 56 in fit
  File "/x/phases.py", line 78 in train_teacher
"""
CRASHED = f"""Fatal Python error: Segmentation fault

{HUNG.replace("Current thread", "X").replace("Thread 0x00007faa", "Current thread 0x00007faa")}
Extension modules: numpy
"""


def test_of_a_hang_the_main_thread_counts_which_comes_last() -> None:
    assert top_frames(HUNG) == "forward (gatv2.py:12) < step (step.py:34) < fit (loop.py:56)"


def test_of_a_crash_the_thread_that_crashed_counts() -> None:
    assert top_frames(CRASHED) == "wait (threading.py:331)"


def test_stacks_are_all_there_when_the_main_threads_outermost_frame_is() -> None:
    whole = f'{HUNG}  File "/x/worker.py", line 90 in main\n  File "<string>", line 1 in <module>\n'
    assert has_all_stacks(whole)
    assert not any(has_all_stacks(whole[:size]) for size in range(len(whole) - 1))


def test_without_stacks_there_are_no_frames() -> None:
    assert top_frames("Killed\n") == ""


def test_reports_of_the_same_failure_never_replace_each_other(tmp_path: Path) -> None:
    paths = {write_report(tmp_path, "p-car-hang", "title", [("Heading", ["line"])]) for _ in range(5)}
    assert len(paths) == 5
    for path in paths:
        assert path
        assert path.read_text() == "title\n\nHeading\n  line\n"


def test_a_report_that_cannot_be_written_is_told_and_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert write_report(tmp_path / "missing", "p-car-hang", "it hung", []) is None
    assert "it hung" in caplog.text


def test_figures_of_a_process_that_is_gone_are_none() -> None:
    assert measure_process(2**22 + 1) is None
    figures = measure_process(os.getpid())
    assert figures
    assert figures.rss_mib > 1
