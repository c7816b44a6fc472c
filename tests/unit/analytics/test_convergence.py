"""From plan to plan: what the adaptive optimizer arrives at is recommended, adopted and judged."""

from pathlib import Path

import pytest
import yaml

from core.analytics.recommendations import device_slug
from core.events.catalogue import to_fact
from core.events.log import EventLog
from core.events.resource_facts import ConfigRecommended, RecommendationJudged
from core.planning.analysis import analyze_plans
from settings.app import Settings, load_settings
from settings.layout import Layout
from tests.sample_log import MACHINES
from tests.simulated_input import SimulatedMachine
from tests.simulated_plans import SimulatedPlan, settings_of

DEVICE = MACHINES[True]["device_name"]


def finish(output_dir: Path, plan: SimulatedPlan) -> Settings:
    """Put a plan into the log, analyze it, and load the file that is recommended after it."""
    layout = Layout(output_dir)
    EventLog(layout.events).append(plan.events())
    _, problems = analyze_plans(output_dir, plan.plan_id)
    assert not problems
    return load_settings(layout.generated_configs / f"{device_slug(DEVICE)}.yaml")


def recommended(output_dir: Path, plan_id: str) -> ConfigRecommended:
    facts = [to_fact(event) for event in EventLog(Layout(output_dir).events).read(plan_id)]
    (fact,) = [fact for fact in facts if isinstance(fact, ConfigRecommended)]
    return fact


def judgements(output_dir: Path, plan_id: str) -> dict[str, RecommendationJudged]:
    facts = [to_fact(event) for event in EventLog(Layout(output_dir).events).read(plan_id)]
    return {fact.setting: fact for fact in facts if isinstance(fact, RecommendationJudged)}


def files(output_dir: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(output_dir)): path.read_bytes()
        for path in output_dir.rglob("*")
        if path.is_file() and "telemetry" not in path.parts
    }


def test_conservative_workers_converge_over_plans_and_the_effect_is_measured(tmp_path: Path) -> None:
    first = settings_of()
    assert (first.dataset.num_workers, first.dataset.prefetch_factor) == (6, 2)
    second = finish(tmp_path, SimulatedPlan("plan-1", first))
    assert (second.dataset.num_workers, second.dataset.prefetch_factor) == (10, 4)
    fact = recommended(tmp_path, "plan-1")
    (workers,) = [item for item in fact.advice if item["setting"] == "dataset.num_workers"]
    assert (workers["before"], workers["value"], workers["metric"]) == (6, 10, "data_wait_share")
    assert workers["low"] <= workers["expected"] < workers["current"]
    assert "of 1 plan since 2026-06-01 (plan-1)" in workers["rests_on"]
    assert not judgements(tmp_path, "plan-1")

    third = finish(tmp_path, SimulatedPlan("plan-2", second, day=7))
    assert (third.dataset.num_workers, third.dataset.prefetch_factor) == (10, 4)
    judged = judgements(tmp_path, "plan-2")
    assert set(judged) == {"dataset.num_workers", "dataset.prefetch_factor"}
    found = judged["dataset.num_workers"]
    assert (found.recommended_by, found.value, found.instead_of) == ("plan-1", 10, 6)
    assert found.helped
    assert found.after < found.before
    assert 0 < found.low <= found.gain <= found.high
    assert (found.num_compared, found.plans, found.same_data) == (2, ["plan-1"], True)
    assert any(
        "helped: time spent waiting for data" in reason for reason in recommended(tmp_path, "plan-2").reasons
    )

    finish(tmp_path, SimulatedPlan("plan-3", third, day=14))
    assert not judgements(tmp_path, "plan-3"), "judged once"


def test_analyzing_again_appends_nothing_and_changes_no_file(tmp_path: Path) -> None:
    adopted = finish(tmp_path, SimulatedPlan("plan-1", settings_of()))
    finish(tmp_path, SimulatedPlan("plan-2", adopted, day=7))
    before = files(tmp_path)
    analyze_plans(tmp_path)
    analyze_plans(tmp_path, "plan-2")
    assert files(tmp_path) == before
    generated = (Layout(tmp_path).generated_configs / f"{device_slug(DEVICE)}.yaml").read_text()
    assert "# - In teacher the adaptive optimizer" not in generated, "10/4 is what it begins with by now"
    assert yaml.safe_load(generated)["dataset"] == {"num_workers": 10, "prefetch_factor": 4}
    assert "came to rest" in generated


def test_advice_that_nobody_took_is_not_judged(tmp_path: Path) -> None:
    finish(tmp_path, SimulatedPlan("plan-1", settings_of()))
    finish(tmp_path, SimulatedPlan("plan-2", settings_of(), day=7))
    assert not judgements(tmp_path, "plan-2")
    assert "plan-1, plan-2" in str(recommended(tmp_path, "plan-2").advice[0]["rests_on"])


def test_a_plan_with_nothing_to_compare_leaves_the_judging_to_the_next(tmp_path: Path) -> None:
    adopted = finish(tmp_path, SimulatedPlan("plan-1", settings_of()))
    finish(tmp_path, SimulatedPlan("plan-2", adopted, day=1, fails="bug"))
    assert not judgements(tmp_path, "plan-2")
    finish(tmp_path, SimulatedPlan("plan-3", adopted, day=2))
    assert judgements(tmp_path, "plan-3")["dataset.num_workers"].helped


def test_advice_judged_in_vain_is_not_repeated_until_captures_change(tmp_path: Path) -> None:
    def plan(name: str, settings: Settings, day: int, busy: float, speed: float, data: str) -> SimulatedPlan:
        return SimulatedPlan(
            name, settings, day, placement="resident", graphs_per_s=speed, num_steps=800, data_digest=data,
            input=SimulatedMachine(compute_s=0.01, latency_s=0.0, busy_percent=busy),
        )  # fmt: skip

    begun = settings_of(training={"batch_size": 256})
    adopted = finish(tmp_path, plan("plan-1", begun, 0, 20.0, 1000.0, "captures"))
    assert adopted.training.batch_size == 512
    reasons = recommended(tmp_path, "plan-1").reasons
    assert any("as an experiment batch_size 512" in reason for reason in reasons)
    assert any("changes what models learn" in reason for reason in reasons)

    back = finish(tmp_path, plan("plan-2", adopted, 7, 20.0, 800.0, "captures"))
    judged = judgements(tmp_path, "plan-2")["training.batch_size"]
    assert not judged.helped
    assert judged.high < 0
    (item,) = [i for i in recommended(tmp_path, "plan-2").advice if i["setting"] == "training.batch_size"]
    assert item["confidence"] == pytest.approx(0.5 * 2 / 3, abs=0.01), "advice on it was wrong once"
    assert back.training.batch_size == 256, "what made it worse is taken back"

    kept = finish(tmp_path, plan("plan-3", back, 14, 20.0, 1000.0, "captures"))
    assert kept.training.batch_size == 256
    assert any("Not recommended again" in reason for reason in recommended(tmp_path, "plan-3").reasons)

    changed = finish(tmp_path, plan("plan-4", kept, 21, 20.0, 1000.0, "other captures"))
    (item,) = [i for i in recommended(tmp_path, "plan-4").advice if i["setting"] == "training.batch_size"]
    assert changed.training.batch_size == item["value"] == 512


@pytest.mark.parametrize("gpu", [True, False])
def test_plans_on_other_devices_are_no_history(tmp_path: Path, gpu: bool) -> None:
    finish(tmp_path, SimulatedPlan("plan-1", settings_of()))
    finish(tmp_path, SimulatedPlan("plan-2", settings_of(), day=1, gpu=gpu))
    names = " ".join(item["rests_on"] for item in recommended(tmp_path, "plan-2").advice)
    assert "plan-2" in names
    assert ("plan-1" in names) == gpu
