"""Maintenance with real files: killed at any change, beside plans, two at once, with links in its way."""

import errno
import json
import os
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path
from signal import SIGKILL
from unittest.mock import patch

import pytest

from core.events.log import EventLog
from core.events.open import bind_storage, open_log, open_store
from core.events.telemetry import read_telemetry
from core.planning.audit import audit
from core.planning.upkeep.maintenance import MaintenanceReport, maintain_outputs
from core.planning.upkeep.survey import PLAN_FILES
from settings.app import load_settings
from settings.errors import RetrainError, SettingsError
from settings.layout import Layout
from tests.commands import run
from tests.forkservers import forkserver
from tests.kept_outputs import (
    BEGAN,
    LITTER,
    STORE,
    contents,
    maintain_until_killed,
    old_plan,
    resumed,
    write,
    write_checkpoint,
)

pytestmark = pytest.mark.faults
YEARS = 2.0


@pytest.fixture(scope="session")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two plans of two years ago: one is over, the other stopped in its last phase."""
    layout = Layout(tmp_path_factory.mktemp("kept") / "out")
    old_plan(layout, "plan-done")
    old_plan(layout, "plan-cut", is_over=False)
    return layout.root


@pytest.fixture
def layout(outputs: Path, tmp_path: Path) -> Layout:
    return Layout(Path(shutil.copytree(outputs, tmp_path / "out")))


def maintain(layout: Layout, years: float = YEARS, **retention: float) -> MaintenanceReport:
    settings = load_settings(output_dir=layout.root, retention=retention)
    return maintain_outputs(settings, BEGAN + timedelta(days=365 * years))


def truth(layout: Layout) -> dict[str, object]:
    """What nobody may ever lose: all events, whether they can be verified, and the models."""
    log = EventLog(layout.events)
    return {
        "events": {plan: log.read(plan) for plan in log.streams()},
        "verified": [(found.plan_id, found.status) for found in audit(log)],
        "models": sorted(path.name for path in layout.saved_models.glob("*.pth")),
    }


def test_what_is_not_needed_any_more_goes_and_nothing_else(layout: Layout) -> None:
    before, whole = contents(layout.root), truth(layout)
    report = maintain(layout)
    assert report.problems == []
    after = contents(layout.root)
    assert truth(layout) == whole
    gone = {name for name in before if name not in after and not name.endswith(".parquet")}
    assert gone == {
        *(f"{plan}_{ending}" for plan in ("plan-done", "plan-cut") for ending in PLAN_FILES),
        *(
            f"checkpoints/{dataset}/teacher/gat_{plan}/epoch-000001-step-0000000{step}.{ending}"
            for plan, datasets in {
                "plan-done": ("hcrl_sa", "set_01"),
                "plan-cut": ("hcrl_sa", "set_01"),
            }.items()
            for dataset in datasets
            for step in range(2)
            for ending in ("pt", "json")
            if (plan, dataset) != ("plan-cut", "set_01")
        ),
        *(
            f"{folder}/{plan}{ending}"
            for plan in ("plan-done", "plan-cut")
            for folder, ending in {
                "coordinator_logs": ".jsonl",
                "orchestrator_logs": ".jsonl.1",
                "process_logs": "-set_01.log",
            }.items()
        ),
        f"saved_models/{LITTER}",
        f"events/plan-done/{LITTER}",
        f"events/plan-cut/{LITTER}",
    }
    assert read_telemetry(layout.telemetry).is_empty()
    assert sum(before.values()) - sum(after.values()) <= report.num_bytes_freed + 100_000  # and compaction
    assert (layout.graphs / STORE / "manifest.json").exists()  # the plan that was cut short reads them
    assert maintain(layout).removed == []


def test_the_events_of_a_plan_that_is_over_are_in_one_file_then_and_no_sample_is_lost(
    layout: Layout,
) -> None:
    assert len(list((layout.events / "plan-done").glob("*.parquet"))) == 2
    samples = read_telemetry(layout.telemetry)
    maintain(layout, years=0.5)
    assert len(list((layout.events / "plan-done").glob("*.parquet"))) == 1
    assert read_telemetry(layout.telemetry).equals(samples)


def test_what_was_deleted_is_in_a_log_file(layout: Layout) -> None:
    report = maintain(layout)
    lines = (layout.coordinator_logs / "maintenance.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [path for record in records for path in record["paths"]] == [
        str(path.relative_to(layout.root)) for removal in report.removed for path in removal.item.paths
    ]
    assert all("deleted" in record["message"] and record["num_bytes"] for record in records)


def test_maintenance_killed_at_any_change_of_files_loses_nothing_needed_and_is_done_by_the_next_one(
    outputs: Path, tmp_path: Path
) -> None:
    whole = truth(Layout(outputs))
    expected = Layout(Path(shutil.copytree(outputs, tmp_path / "expected")))
    maintain(expected)
    context = forkserver()
    code, kill_at = -SIGKILL, 0
    while code == -SIGKILL:
        layout = Layout(Path(shutil.copytree(outputs, tmp_path / str(kill_at))))
        process = context.Process(target=maintain_until_killed, args=(str(layout.root), YEARS, kill_at))
        process.start()
        process.join()
        code = process.exitcode or 0
        assert truth(layout) == whole
        maintain(layout, YEARS + 0.1)  # litter of the killed one is old enough by then
        assert contents(layout.root) == contents(expected.root), kill_at
        shutil.rmtree(layout.root)
        kill_at += 1
    assert code == 0
    assert kill_at > 40


def test_two_at_once_do_it_together(layout: Layout) -> None:
    whole = truth(layout)
    context = forkserver()
    both = [
        context.Process(target=maintain_until_killed, args=(str(layout.root), YEARS, -1)) for _ in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert truth(layout) == whole
    assert maintain(layout).removed == []


def test_a_plan_that_was_taken_up_again_just_now_keeps_all_it_has(layout: Layout) -> None:
    resumed(layout, "plan-cut", BEGAN + timedelta(days=365 * YEARS - 0.5))
    removed = {removal.item.plan_id for removal in maintain(layout).removed if removal.item.kind != "litter"}
    assert "plan-cut" not in {removal for removal in removed if removal} - {"plan-done"}
    assert all(layout.plan_file("plan-cut", ending).exists() for ending in PLAN_FILES)
    assert not read_telemetry(layout.telemetry, "plan-cut").is_empty()


def test_what_is_shared_between_machines_goes_by_the_same_policy(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    settings = load_settings(output_dir=tmp_path / "out", storage={"url": str(shared)})
    layout = bind_storage(settings)
    for plan_id, is_over in {"plan-done": True, "plan-cut": False}.items():
        for event in old_plan(Layout(tmp_path / plan_id), plan_id, is_over=is_over):
            open_log(layout).append([event._replace(position=-1)])
        open_store(layout, "telemetry").put_if_absent(f"plan={plan_id},dataset=set_01", "a.parquet", b"1")
        open_store(layout, "files").put_if_absent(f"checkpoints-{plan_id}", "set_01,teacher,gat,a", b"1")
    open_store(layout, "files").put_if_absent("models", "0" * 64, b"1")
    leases = contents(shared / "leases")
    report = maintain_outputs(settings, BEGAN + timedelta(days=365 * YEARS))
    assert report.problems == []
    left = {"checkpoints-plan-cut/set_01,teacher,gat,a", f"models/{'0' * 64}"}
    assert contents(shared / "files").keys() == left
    assert contents(shared / "telemetry") == {}
    assert contents(shared / "leases") == leases
    assert len(open_log(layout).read("plan-done")) > len(open_log(layout).read("plan-cut")) > 50


def test_a_damaged_plan_is_left_alone_and_named(layout: Layout) -> None:
    for path in (layout.events / "plan-done").glob("*.parquet"):
        path.write_bytes(b"PAR1")
    before = contents(layout.root)
    report = maintain(layout)
    assert "plan plan-done is left alone" in report.problems[0]
    gone = [name for name in before if name not in contents(layout.root)]
    assert not [name for name in gone if name.startswith(("plan-done", "events/telemetry/plan=plan-done"))]
    assert not [name for name in gone if name.startswith("checkpoints") and "plan-done" in name]


def test_links_out_of_the_output_directory_are_not_followed(layout: Layout, tmp_path: Path) -> None:
    elsewhere = Layout(tmp_path / "elsewhere")
    sidecar = write_checkpoint(elsewhere, "plan-done", "set_01", 7)
    write(elsewhere.root / "plan=plan-done" / LITTER)
    before = contents(elsewhere.root)
    (layout.checkpoints / "linked").symlink_to(sidecar.parents[2])
    (layout.checkpoints / "set_01" / "linked").symlink_to(sidecar.parents[1])
    (layout.telemetry / "plan=linked").symlink_to(elsewhere.root / "plan=plan-done")
    (layout.graphs / ("cd" * 32)).symlink_to(elsewhere.root)
    (layout.root / "linked").symlink_to(elsewhere.root)
    maintain(layout, max_disk_gib=1e-9)
    assert contents(elsewhere.root) == before


def test_what_cannot_be_deleted_is_named_and_the_rest_is_done(layout: Layout) -> None:
    real = os.unlink

    def unlink(path: Path, **options: int) -> None:
        if layout.process_logs in Path(path).parents:
            raise OSError(errno.EROFS, "Read-only file system")
        real(path, **options)

    with patch.object(os, "unlink", unlink):
        report = maintain(layout)
    assert report.problems == [
        f"cannot delete {layout.process_logs}/{plan}-set_01.log: Read-only file system"
        for plan in ("plan-cut", "plan-done")
    ]
    assert not list(layout.root.glob("*_dashboard.html"))


def test_a_budget_that_cannot_be_kept_is_said(layout: Layout) -> None:
    [problem] = maintain(layout, max_disk_gib=1e-9).problems
    assert "retention.max_disk_gib=1e-09" in problem


def test_the_command_says_what_would_go_and_touches_nothing_then_does_it(layout: Layout) -> None:
    before = contents(layout.root)
    shown = run("flows.maintain", "--dry-run", "--output-dir", str(layout.root))
    assert shown.returncode == 0, shown.stderr
    assert "would delete checkpoints: checkpoints/set_01/teacher/gat_plan-done/" in shown.stdout
    assert contents(layout.root) == before
    done = run("flows.maintain", "--output-dir", str(layout.root))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("deleted ") == shown.stdout.count("would delete ") > 10
    assert contents(layout.root) != before


def test_a_folder_that_is_not_there_or_cannot_be_written_is_said(small_disk: Path) -> None:
    missing = small_disk / "typo"
    with pytest.raises(
        SettingsError, match=rf"no folder {missing} \(setting output_dir, flag --output-dir\)"
    ):
        maintain(Layout(missing))
    assert not missing.exists()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(RetrainError, match=rf"cannot write to {small_disk} \(setting output_dir.*Read-only"):
        maintain(Layout(small_disk))


def test_a_nearly_full_disk_keeps_plans_from_beginning(tmp_path: Path) -> None:
    shown = run(
        "flows.retrain", "--datasets", "demo", "--output-dir", str(tmp_path / "out"),
        CAN_RETRAIN__RETENTION__MIN_FREE_GIB="1000000000",
    )  # fmt: skip
    assert shown.returncode == 1
    assert "retention.min_free_gib=1e+09" in shown.stderr
    assert not (tmp_path / "out" / "events").exists()
