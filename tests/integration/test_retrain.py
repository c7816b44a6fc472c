"""The main job through a real Prefect server, real training processes and real files."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from core.analytics.results import fold_results
from core.events.catalogue import to_fact
from core.events.log import EventLog
from core.events.resource_facts import StorePlaced
from core.events.telemetry import read_telemetry
from core.planning.plan_state import PLAN_STATE
from core.resources.process_state import read_process_statuses
from settings.layout import Layout
from tests.commands import (
    HANG_S,
    ROOT,
    TINY,
    config,
    post,
    prefect_server,
    processes_that_name,
    run,
    start,
    wait_for,
)
from tests.held_up import Gates


def only_plan(output_dir: Path) -> str:
    (plan_id,) = EventLog(Layout(output_dir).events).streams()
    return plan_id


@pytest.mark.slow
def test_a_missing_dataset_fails_with_path_and_setting_and_the_others_are_trained(finished: Path) -> None:
    stderr = (finished.parent / "stderr").read_text()
    assert "nowhere" in stderr
    assert "data.data_dir" in stderr
    assert "Traceback" not in stderr
    results = fold_results(EventLog(Layout(finished).events).read(only_plan(finished)))
    assert results.datasets["broken"].status == "failed"
    assert results.datasets["demo"].status == "completed"
    assert results.status == "failed"


@pytest.mark.slow
def test_every_output_is_there(finished: Path) -> None:
    plan_id = only_plan(finished)
    for name in ("plan.json", "results.json", "dashboard.html", "dashboard.png"):
        assert (finished / f"{plan_id}_{name}").stat().st_size > 0
    saved = {path.name for path in (finished / "saved_models").iterdir()}
    assert {
        "best_teacher_model_demo.pth",
        "final_student_model_demo.pth",
        "fusion_agent_demo.pth",
    } <= saved
    assert list((finished / "generated_configs").glob("*.yaml"))
    assert list((finished / "process_logs").iterdir())


@pytest.mark.slow
def test_results_have_every_model_on_every_test_folder(finished: Path) -> None:
    results = json.loads((finished / f"{only_plan(finished)}_results.json").read_text())
    metrics = results["datasets"]["demo"]["metrics"]
    assert {"fusion", "mlp_fusion", "id_frequency", "teacher_gat", "student_vgae"} <= set(metrics)
    assert {len(folders) for folders in metrics.values()} == {6}


@pytest.mark.slow
def test_resources_were_sampled_for_the_life_of_the_chain(finished: Path) -> None:
    layout = Layout(finished)
    plan_id = only_plan(finished)
    samples = read_telemetry(layout.telemetry, plan_id).filter(pl.col("dataset") == "demo")
    events = [e for e in EventLog(layout.events).read(plan_id) if e.payload.get("dataset") == "demo"]
    at = {(e.type, e.payload.get("phase")): e.occurred_at for e in events}
    assert samples.height > 5
    times = samples["occurred_at"].to_list()
    # Prefect begins the sampler's run beside the first phase, which a busy server may be slow to do.
    assert at["chain_started", None] < min(times) < at["phase_finished", "teacher"]
    assert max(times) > at["phase_started", "evaluation"]


@pytest.mark.slow
def test_prefect_keeps_the_flow_runs_task_runs_and_artifacts(finished: Path) -> None:
    with prefect_server(finished) as api:
        flow_runs = post(f"{api}/flow_runs/filter")
        names = sorted(flow_run["name"].split("-")[0] for flow_run in flow_runs)
        states = {r["name"]: r["state_type"] for r in flow_runs}
        assert names.count("chain") == 2
        assert names.count("sample") == 2
        assert states["chain-demo"] == "COMPLETED"
        assert states["chain-broken"] == "FAILED"
        assert states["sample-resources-demo"] == "COMPLETED"
        task_runs = post(f"{api}/task_runs/filter")
        assert {t["name"].rsplit("-", 1)[0] for t in task_runs} >= {
            "build_graphs", "train_teacher", "distill_student", "train_fusion", "evaluate_models",
        }  # fmt: skip
        keys = {artifact["key"] for artifact in post(f"{api}/artifacts/filter")}
        assert any(key and key.startswith("recommendation") for key in keys)


@pytest.mark.slow
def test_a_second_run_has_nothing_to_do_and_says_why(finished: Path, tmp_path: Path) -> None:
    shown = run(
        "flows.retrain", "--config", str(config(tmp_path)), "--datasets", "demo",
        "--output-dir", str(finished), "--dry-run",
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert "up to date" in shown.stdout
    assert len(EventLog(Layout(finished).events).streams()) == 1


@pytest.mark.slow
def test_changed_distillation_settings_retrain_student_and_fusion_only(
    finished: Path, tmp_path: Path
) -> None:
    training = {**TINY["training"], "distillation": {"temperature": 3.0}}
    shown = run(
        "flows.retrain", "--config", str(config(tmp_path, training=training)), "--datasets", "demo",
        "--output-dir", str(finished), "--dry-run",
    )  # fmt: skip
    actions = dict(re.findall(r"^demo +(\w+) .*?(run|skip): ", shown.stdout, re.MULTILINE))
    assert actions == {
        "graphs": "run",
        "teacher": "skip",
        "student": "run",
        "fusion": "run",
        "evaluation": "run",
    }


@pytest.mark.slow
@pytest.mark.faults
def test_ctrl_c_exits_130_leaves_nothing_running_and_the_plan_resumes(tmp_path: Path) -> None:
    arguments = "--config", str(config(tmp_path)), "--output-dir", str(tmp_path / "out")
    gates = Gates(tmp_path, ("phase_started/student",))  # nobody is too late
    process = start("tests.held_up", *arguments, "--datasets", "demo", cwd=ROOT, **gates.variables)
    layout = Layout(tmp_path / "out")
    wait_for(lambda: "running" in phase_statuses(layout).get("teacher", ""), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=HANG_S)
    assert process.returncode == 130, err
    assert "--resume" in err
    assert "Traceback" not in err
    assert not processes_that_name(str(tmp_path))

    plan_id = only_plan(layout.root)
    shown = run("flows.retrain", *arguments, "--resume", plan_id)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert set(phase_statuses(layout).values()) == {"completed"}


@pytest.mark.slow
@pytest.mark.faults
def test_a_killed_training_process_costs_an_attempt_and_not_the_run(tmp_path: Path) -> None:
    layout, log = Layout(tmp_path / "out"), EventLog(tmp_path / "out" / "events")
    settings = config(tmp_path, training={**TINY["training"], "min_steps_per_epoch": 40})

    def trains() -> bool:  # killed before it has its job, the process is started again and nothing is lost
        facts = [to_fact(event) for stream in log.streams() for event in log.read(stream)]
        return any(isinstance(fact, StorePlaced) and fact.phase == "teacher" for fact in facts)

    process = start(
        "flows.retrain", "--config", str(settings), "--datasets", "demo", "--output-dir", str(layout.root)
    )
    wait_for(trains, process)
    plan_id = only_plan(layout.root)
    (training,) = read_process_statuses(layout.process_logs)
    assert training.pid
    os.kill(training.pid, signal.SIGKILL)
    out, err = process.communicate(timeout=HANG_S)
    assert process.returncode == 0, out + err
    teacher = PLAN_STATE.fold(log.read(plan_id)).phases["demo", "teacher"]
    assert (teacher.status, teacher.attempts) == ("completed", 2)
    assert teacher.reason.startswith("killed")


@pytest.mark.slow
@pytest.mark.faults
def test_sigkill_leaves_nothing_running_and_the_plan_resumes_to_the_same_models(
    finished: Path, tmp_path: Path
) -> None:
    arguments = "--config", str(config(tmp_path)), "--output-dir", str(tmp_path / "out")
    gates = Gates(tmp_path, ("phase_started/fusion",))  # nobody is too late
    process = start("tests.held_up", *arguments, "--datasets", "demo", cwd=ROOT, **gates.variables)
    layout = Layout(tmp_path / "out")
    wait_for(lambda: "running" in phase_statuses(layout).get("student", ""), process)
    process.kill()
    process.communicate(timeout=HANG_S)
    wait_for(lambda: not processes_that_name(str(tmp_path)))
    plan_id = only_plan(layout.root)
    shown = run("flows.retrain", *arguments, "--resume", plan_id)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert set(phase_statuses(layout).values()) == {"completed"}
    assert models(layout) == models(Layout(finished))


def models(layout: Layout) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in layout.saved_models.iterdir()}


def phase_statuses(layout: Layout) -> dict[str, str]:
    log = EventLog(layout.events)
    states = [PLAN_STATE.fold(log.read(stream)) for stream in log.streams()]
    return {phase: s.status for state in states for (_, phase), s in state.phases.items()}


@pytest.mark.slow
def test_a_reader_that_goes_away_stops_nothing_and_fills_no_screen(tmp_path: Path) -> None:
    program = f"""
import logging, pathlib, flows.cli
flows.cli.show_progress(logging.INFO)
for number in range(20_000):
    logging.getLogger("core.progress").info("line %s", number)
pathlib.Path({str(tmp_path / "end")!r}).touch()
"""
    shown = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" | head -1', sys.executable, program],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "line 0" in shown.stdout
    assert shown.stderr == ""
    assert (tmp_path / "end").exists()
