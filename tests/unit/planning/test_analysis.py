"""One recommendation for each end of a plan, whoever analyzes it, and no plan hidden by a damaged one."""

from pathlib import Path
from typing import Any

import pytest

from core.analytics.recommendations import device_slug
from core.errors import DamagedLogError
from core.events.log import EventLog
from core.events.resource_facts import ConfigRecommended, RecommendationJudged
from core.planning.analysis import analyze_plans
from settings.layout import Layout
from tests.file_operations import Operation, watching
from tests.sample_log import MACHINES, sample_events
from tests.simulated_plans import SimulatedPlan, settings_of


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


def test_a_damaged_plan_is_left_out_of_what_is_recommended_and_said(tmp_path: Path) -> None:
    log = EventLog(Layout(tmp_path).events)
    plans = [SimulatedPlan(f"plan-{n}", settings_of(), n) for n in range(3)]
    for plan in plans[:2]:
        log.append(plan.events())
    damage(tmp_path, "plan-0")
    log.append(plans[2].events())
    _, problems = analyze_plans(tmp_path, "plan-2")
    assert list(problems) == ["plan-0"]
    (fact,) = [e for e in log.read("plan-2") if e.type == ConfigRecommended.TYPE]
    based_on = " ".join(item["rests_on"] for item in fact.payload["advice"])
    assert "plan-1, plan-2" in based_on
    assert "plan-0" not in based_on


def test_plans_that_end_later_are_no_evidence_for_one_that_ended_before(tmp_path: Path) -> None:
    log = EventLog(Layout(tmp_path).events)
    for number in (2, 1):
        log.append(SimulatedPlan(f"plan-{number}", settings_of(), number).events())
    analyze_plans(tmp_path)
    (fact,) = [e for e in log.read("plan-1") if e.type == ConfigRecommended.TYPE]
    assert "plan-2" not in str(fact.payload)


def test_of_two_that_judge_at_once_one_does(tmp_path: Path) -> None:
    log = EventLog(Layout(tmp_path).events)
    log.append(SimulatedPlan("plan-1", settings_of()).events())
    analyze_plans(tmp_path)
    adopted = settings_of(dataset={"num_workers": 10, "prefetch_factor": 4})
    log.append(SimulatedPlan("plan-2", adopted, 7).events())
    overtaken = False

    def overtake(operation: Operation, do: Any) -> Any:
        nonlocal overtaken
        if operation.target.endswith("plan-2/00000001.parquet") and not overtaken:
            overtaken = True
            analyze_plans(tmp_path)
        return do()

    with watching(overtake):
        analyze_plans(tmp_path)
    assert overtaken
    types = [event.type for event in EventLog(Layout(tmp_path).events).read("plan-2")]
    assert types.count(RecommendationJudged.TYPE) == 2, "one for each setting"
    assert types[-1] == ConfigRecommended.TYPE


def test_torn_resource_samples_of_a_plan_leave_out_that_plan_alone(tmp_path: Path) -> None:
    for plan_id in ("plan-1", "plan-2"):
        append_plan(tmp_path, plan_id)
    samples = Layout(tmp_path).telemetry / "plan=plan-1" / "dataset=demo"
    samples.mkdir(parents=True)
    (samples / "torn.parquet").touch()
    written, problems = analyze_plans(tmp_path)
    assert "torn.parquet" in str(problems["plan-1"])
    assert Layout(tmp_path).plan_file("plan-2", "results.json") in written
