"""The live view in real terminals and pipes."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.events.event import Event
from core.events.log import EventLog
from core.planning.shared.lock import hold
from settings.layout import Layout
from tests.commands import ROOT, TINY, config, run, start
from tests.sample_log import PLAN_ID, sample_events
from tests.terminal import Terminal

pytestmark = pytest.mark.slow
EVENTS = sample_events(datasets=("[bold]evil\x1b[2J[/bold]", "set_01"))
DURING = next(place for place, event in enumerate(EVENTS) if event.payload.get("epoch") == 2) + 1


def append(output_dir: Path, events: list[Event]) -> None:
    EventLog(Layout(output_dir).events).append([event._replace(position=-1) for event in events])


def machine_is_drawn(seen: list[str]) -> bool:
    """The machine's line comes last: a part of the view may have been written so far."""
    return any(line.startswith("CPU") and "RAM" in line and "disk" in line for line in seen)


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (140, 40)])
def test_watch_waits_for_a_plan_follows_it_in_place_and_ends_with_it(
    tmp_path: Path, columns: int, rows: int
) -> None:
    arguments = ("-m", "flows.status", "--watch", "--output-dir", str(tmp_path))
    with Terminal(*arguments, columns=columns, rows=rows) as terminal:
        terminal.wait_for(lambda seen: any("waiting for a plan" in line for line in seen))
        with hold(tmp_path):
            append(tmp_path, EVENTS[:DURING])
            seen = terminal.wait_for(
                lambda seen: any("teacher_vgae, epoch" in line for line in seen) and machine_is_drawn(seen)
            )
            assert any(line.startswith(f"Plan {PLAN_ID}  running") for line in seen)
            assert "[bold]evil [2J[/bold]" in seen  # as it is, neither obeyed nor styled
            assert any("▸ teacher " in line and "━" in line for line in seen)
            assert len([line for line in seen if line]) < rows
            assert max(map(len, seen)) <= columns
            append(tmp_path, EVENTS[DURING:])
            assert terminal.wait_for_end() == 0
        seen = terminal.seen()
    assert [line for line in seen if line.startswith("Plan ")] == [
        line for line in seen if line.startswith(f"Plan {PLAN_ID}  failed")
    ]  # drawn in place: nothing of before is left
    assert any("last error" in line and "set_01 fusion" in line for line in seen)
    assert terminal.raw.count("\x1b[?25l") == terminal.raw.count("\x1b[?25h")  # the cursor is back


def test_ctrl_c_leaves_an_interrupted_plan_that_says_how_to_go_on(tmp_path: Path) -> None:
    append(tmp_path, EVENTS[:DURING])
    arguments = ("-m", "flows.status", "--watch", "--output-dir", str(tmp_path))
    with Terminal(*arguments, columns=100, rows=30) as terminal:
        terminal.wait_for(lambda seen: any(f"--resume {PLAN_ID}" in line for line in seen))
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait_for_end() == 130
        assert terminal.raw.count("\x1b[?25l") == terminal.raw.count("\x1b[?25h")


def test_a_pipe_gets_a_line_for_each_change_and_no_control_codes(tmp_path: Path) -> None:
    with start("flows.status", "--watch", "--output-dir", str(tmp_path)) as process:
        out = process.stdout
        assert out
        assert "waiting for a plan" in out.readline()
        with hold(tmp_path):
            append(tmp_path, EVENTS[:DURING])
            assert f"Plan {PLAN_ID}: running" in out.readline()
            append(tmp_path, EVENTS[DURING:])
            rest = out.read()
        assert process.wait() == 0
    lines = rest.splitlines()
    assert any(line.endswith("set_01: could not be finished; the other datasets go on") for line in lines)
    assert any("% done, took" in line for line in lines)
    assert any(f"Plan {PLAN_ID}: failed" in line for line in lines)
    assert all(line.isprintable() and line[2] == line[5] == ":" for line in lines)
    assert len(lines) == len(set(lines))


def test_a_plan_that_never_was_is_refused(tmp_path: Path) -> None:
    append(tmp_path, EVENTS[:3])
    done = run("flows.status", "--watch", "--plan", "nonsense", "--output-dir", str(tmp_path))
    assert done.returncode == 2
    assert f"no plan nonsense; known plans: {PLAN_ID}" in done.stderr


@pytest.mark.timeout(1800)
def test_a_run_with_verbose_logs_above_its_live_view_and_prefect_tears_nothing(tmp_path: Path) -> None:
    # Nothing of it is over before it is interrupted.
    settings = config(tmp_path, training={**TINY["training"], "epochs": 1000, "patience": 1000})
    arguments = (
        "-m", "flows.retrain", "--verbose", "--config", str(settings), "--datasets", "demo",
        "--output-dir", str(tmp_path / "out"),
    )  # fmt: skip
    with Terminal(*arguments, columns=120, rows=40) as terminal:
        terminal.wait_for(lambda seen: any("▸ teacher" in line for line in seen))
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait_for_end() == 130
        seen = terminal.seen()
        assert terminal.raw.count("\x1b[?25l") == terminal.raw.count("\x1b[?25h")
    joined = "".join(seen)
    assert "demo: teacher started" in joined
    assert "Beginning flow run 'retrain'" in joined
    assert "--resume" in joined
    assert not [line for line in seen if line.startswith(("CPU  ", "  ▸ ", "no plan yet"))]  # all drawn over


def test_a_run_with_verbose_in_a_pipe_logs_how_far_it_is(tmp_path: Path) -> None:
    script = (
        "import logging, sys, time\n"
        "from pathlib import Path\n"
        "import flows.watch\n"
        "from flows.cli import show_progress\n"
        "flows.watch.PROGRESS_S = 0.1\n"
        "show_progress(logging.DEBUG)\n"
        f"with flows.watch.watched_run(Path({str(tmp_path)!r}), None, ()):\n"
        "    sys.stdin.readline()\n"
    )
    append(tmp_path, EVENTS[:DURING])
    with (
        hold(tmp_path),
        subprocess.Popen(
            [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdout
        lines = (process.stdout.readline() for _ in iter(int, 1))
        line = next(line for line in lines if "% done" in line)
        process.communicate("\n")
    assert "teacher_vgae, epoch" in line
    assert "\x1b" not in line
