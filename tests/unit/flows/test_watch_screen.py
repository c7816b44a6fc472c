"""The live view's screen and lines, by what they say."""

from dataclasses import replace

import pytest

from core.planning.live.remaining import Remaining
from core.planning.live.view import (
    Decision,
    GpuView,
    LiveView,
    ModelView,
    PhaseView,
    PlanLine,
    ProcessView,
    ResourcesView,
)
from flows.tables import safe
from flows.watch import require_plan
from flows.watch_lines import PROGRESS_S, WatchLines
from flows.watch_screen import screen_lines
from flows.watch_words import left_words, percent, remaining_words
from settings.errors import SettingsError

AT = "2026-11-03T09:15:00+00:00"
TEACHER = PhaseView(
    dataset="hcrl_sa",
    phase="teacher",
    status="running",
    attempt=2,
    fraction=0.5,
    eta=Remaining(60.0, 125.0, 240.0),
    doing="training teacher_gat",
    model="teacher_gat",
    epoch=4,
    num_epochs=10,
    step=12,
    num_steps=50,
    train_loss=0.25,
    val_loss=0.31,
    graphs_per_s=12345.0,
    models=(ModelView(name="teacher_gat", epochs=(0, 1, 2), train_losses=(3.0, 2.0, 1.0)),),
)
GPU = GpuView(
    index=0, name="RTX", utilization_percent=80.0, vram_used_mib=24000.0, vram_total_mib=24576.0,
    temperature_c=90.0, power_w=310.0, power_limit_w=350.0,
)  # fmt: skip
VIEW = LiveView(
    looked_at=AT,
    plan_id="p1",
    status="running",
    started_at=AT,
    elapsed_s=7330.0,
    fraction=0.999,
    eta=Remaining(60.0),
    phases=(
        TEACHER,
        replace(TEACHER, phase="student", status="pending", attempt=0),
        replace(TEACHER, phase="fusion", status="pending", attempt=0),
    ),
    decisions=tuple(Decision(at=AT, tone="warn", where="hcrl_sa", text=f"said {n}") for n in range(20)),
    resources=ResourcesView(
        cpu_percent=50.0, num_cpus=2, ram_used_mib=23000.0, ram_total_mib=24000.0, disk_free_mib=1000.0,
        gpus=(GPU,),
    ),
    processes=(
        ProcessView(
            dataset="hcrl_sa", state="hanging?", pid=1, doing="", since_s=70.0, rss_mib=512.0, num_restarts=1,
            failure="cuda_oom",
        ),
    ),
)  # fmt: skip


@pytest.mark.parametrize("rows", [10, 24, 60])
@pytest.mark.parametrize("width", [40, 80, 140])
def test_a_screen_never_has_more_rows_than_there_are(width: int, rows: int) -> None:
    many = tuple(replace(phase, dataset=f"set_{n}") for n in range(30) for phase in VIEW.phases[1:])
    for view in (VIEW, replace(VIEW, phases=(*VIEW.phases, *many)), LiveView(looked_at=AT)):
        assert len(screen_lines(view, width, rows)) <= rows


def test_a_screen_says_all_there_is_to_know_at_80_columns() -> None:
    lines = [line.plain for line in screen_lines(VIEW, 80, 24)]
    text = "\n".join(lines)
    for part in (
        "Plan p1  running", "2 h 02 min so far, at least 1 min left", "99 %",
        "attempt 2, about 2 min left", "teacher_gat, epoch 4 of 10, step 12 of 50, 12 345 graphs/s",
        "loss 0.25 █▅▁", "validation 0.31", "90 °C", "silent for 70 s", "1 restart,", "said 19",
    ):  # fmt: skip
        assert part in text


def test_what_is_short_is_red_and_what_waits_for_long_yellow() -> None:
    lines = screen_lines(VIEW, 140, 40)
    styles = {
        str(span.style) for line in lines if line.plain.startswith(("CPU", "GPU")) for span in line.spans
    }
    assert {"red", "green"} <= styles  # RAM, VRAM, heat and disk; CPU and GPU
    process = next(line for line in lines if line.plain.startswith("process"))
    assert "yellow" in {str(span.style) for span in process.spans}


def test_a_terminal_that_knows_ascii_only_gets_no_other_bars() -> None:
    lines = screen_lines(replace(VIEW, decisions=()), 80, 24, ascii_only=True)
    bars = [line.plain for line in lines if "teacher" in line.plain or line.plain.startswith("CPU")]
    assert all(line.isascii() for line in bars)


def test_times_left_are_no_more_exact_than_they_are_known() -> None:
    assert (
        remaining_words(Remaining(61.0, 123.4, 187.6), "left")
        == "about 2 min left (1 min 01 s to 3 min 10 s)"
    )
    assert remaining_words(Remaining(), "left") == "time left unknown"
    assert remaining_words(Remaining(5.0, 7.0, None), "left") == "about 7.0 s left (5.0 s to ?)"
    assert left_words(replace(VIEW, status="completed")) == "took 2 h 02 min"
    assert percent(0.9999) == "99 %"


def test_lines_tell_each_change_once_and_progress_now_and_then() -> None:
    said: list[str] = []
    clock = iter([0.0, 1.0, 1.0 + PROGRESS_S, 2.0 + PROGRESS_S])
    lines = WatchLines(said.append, lambda: next(clock))
    lines.show(VIEW)
    assert [line for line in said if "said" in line] == [
        f"09:15:00  hcrl_sa: said {n}" for n in range(15, 20)
    ]
    assert said[0] == "09:15:00  Plan p1: running"
    num = len(said)
    lines.show(replace(VIEW, fraction=0.3))
    assert said[num:] == []  # it is too soon
    lines.show(replace(VIEW, fraction=0.4))
    assert "40 % done" in said[-1]
    news = Decision(at=AT, tone="info", where="", text="a\x1b[2Jb\n")
    begun = tuple(replace(phase, status="running", attempt=1) for phase in VIEW.phases)
    lines.show(replace(VIEW, decisions=(*VIEW.decisions, news), phases=begun, fraction=0.4))
    assert said[num + 1 :] == [
        "09:15:00  a [2Jb ", "09:15:00  hcrl_sa student: begins", "09:15:00  hcrl_sa fusion: begins",
    ]  # fmt: skip


def test_what_comes_from_data_neither_styles_nor_steers_the_terminal() -> None:
    assert safe("[red]x[/red]\x1b[2J\r") == "\\[red]x\\[/red] [2J"
    hostile = replace(TEACHER, dataset="\x1b[2J[bold]", doing="\x07")
    lines = screen_lines(replace(VIEW, phases=(hostile,)), 80, 24)
    assert any(line.plain == " [2J[bold]" for line in lines)
    assert all(line.plain.isprintable() for line in lines)


def test_a_plan_that_is_not_there_is_refused_by_name() -> None:
    view = replace(VIEW, plans=(PlanLine(plan_id="p1", status="running", started_at=AT, datasets=()),))
    require_plan(view, None)
    require_plan(view, "p1")
    with pytest.raises(SettingsError, match="no plan p2; known plans: p1"):
        require_plan(view, "p2")
