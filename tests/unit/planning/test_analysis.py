"""One recommendation for each end of a plan, whoever analyzes it, and no plan hidden by a damaged one."""

from pathlib import Path
from typing import Any

import pytest

from core.analytics.recommendations import device_slug
from core.errors import DamagedLogError
from core.events.log import EventLog
from core.events.resource_facts import ConfigRecommended
from core.planning.analysis import analyze_plans
from settings.layout import Layout
from tests.file_operations import Operation, watching
from tests.sample_log import MACHINES, sample_events


def append_plan(output_dir: Path, plan_id: str) -> None:
    """A plan that ended and has no recommendation yet."""
    events = [event for event in sample_events(plan_id) if event.type != ConfigRecommended.TYPE]
    EventLog(Layout(output_dir).events).append(events)


def damage(output_dir: Path, plan_id: str) -> None:
    segment = Layout(output_dir).events / plan_id / "00000000.parquet"
    content = bytearray(segment.read_bytes())
    content[len(content) // 3] ^= 1
    segment.write_bytes(content)


def test_of_two_that_analyze_a_plan_at_once_one_recommends(tmp_path: Path) -> None:
    append_plan(tmp_path, "plan-1")
    overtaken = False

    def overtake(operation: Operation, do: Any) -> Any:
        nonlocal overtaken
        if operation.target.endswith("00000001.parquet") and not overtaken:
            overtaken = True
            analyze_plans(tmp_path)
        return do()

    with watching(overtake):
        _, problems = analyze_plans(tmp_path)
    assert overtaken
    assert not problems
    events = EventLog(Layout(tmp_path).events).read("plan-1")
    assert [event.type for event in events].count(ConfigRecommended.TYPE) == 1


def test_a_damaged_plan_is_left_out_and_the_others_are_analyzed(tmp_path: Path) -> None:
    for plan_id in ("plan-1", "plan-2"):
        append_plan(tmp_path, plan_id)
    damage(tmp_path, "plan-1")
    written, problems = analyze_plans(tmp_path)
    assert list(problems) == ["plan-1"]
    assert {path.name for path in written} == {
        "plan-2_plan.json",
        "plan-2_results.json",
        "plan-2_dashboard.html",
        "plan-2_dashboard.png",
        f"{device_slug(MACHINES[True]['device_name'])}.yaml",
    }
    with pytest.raises(DamagedLogError, match="plan-1/00000000"):
        analyze_plans(tmp_path, "plan-1")


def test_torn_resource_samples_of_a_plan_leave_out_that_plan_alone(tmp_path: Path) -> None:
    for plan_id in ("plan-1", "plan-2"):
        append_plan(tmp_path, plan_id)
    samples = Layout(tmp_path).telemetry / "plan=plan-1" / "dataset=demo"
    samples.mkdir(parents=True)
    (samples / "torn.parquet").touch()
    written, problems = analyze_plans(tmp_path)
    assert "torn.parquet" in str(problems["plan-1"])
    assert Layout(tmp_path).plan_file("plan-2", "results.json") in written
