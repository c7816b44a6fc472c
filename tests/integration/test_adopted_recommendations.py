"""The loop closed with real training: run, take what was recommended, run with it, see the effect."""

from pathlib import Path

import pytest

from core.events.catalogue import Fact, to_fact
from core.events.log import EventLog
from core.events.resource_facts import ConfigRecommended, RecommendationJudged
from core.planning.analysis import analyze_plans
from core.planning.coordinator import RetrainingCoordinator
from settings.app import load_settings
from settings.layout import Layout
from tests.commands import TINY, config

pytestmark = pytest.mark.slow


def carry_out(settings: Path, output_dir: Path) -> list[Fact]:
    """A plan for the demo with a settings file, analyzed; what its log says."""
    coordinator = RetrainingCoordinator(load_settings(settings, output_dir=output_dir))
    plan = coordinator.create_retraining_plan(datasets=["demo"])
    assert coordinator.execute_retraining_plan(plan).status == "completed"
    _, problems = analyze_plans(output_dir, plan.plan_id)
    assert not problems
    return [to_fact(event) for event in EventLog(Layout(output_dir).events).read(plan.plan_id)]


def test_a_recommended_file_is_run_with_and_its_effect_is_measured(tmp_path: Path) -> None:
    output_dir = tmp_path / "out"
    training = {**TINY["training"], "adaptive_adjustment_interval": 2}
    begun = config(tmp_path, training=training, dataset={"placement": "mapped"})
    first = carry_out(begun, output_dir)
    (recommended,) = [fact for fact in first if isinstance(fact, ConfigRecommended)]
    assert not [fact for fact in first if isinstance(fact, RecommendationJudged)]
    advised = {item["setting"]: item for item in recommended.advice}
    assert advised["training.epochs"]["value"] == 2, "after a single epoch every model was best in its last"

    (generated,) = Layout(output_dir).generated_configs.glob("*.yaml")
    adopted = load_settings(generated)
    assert adopted.training.epochs == 2
    assert adopted.dataset.placement == "mapped"
    assert "changes what models learn" in " ".join(generated.read_text().replace("#", "").split())

    second = carry_out(generated, output_dir)
    judged = {fact.setting: fact for fact in second if isinstance(fact, RecommendationJudged)}
    promised = {name for name, item in advised.items() if item["metric"]}
    assert set(judged) == promised, "everything that was adopted and can be measured, and nothing else"
    epochs = judged["training.epochs"]
    assert (epochs.value, epochs.instead_of, epochs.metric) == (2, 1, "best_val_loss")
    assert epochs.same_data
    assert epochs.num_compared == 4, "teacher and student, VGAE and GAT"
    assert epochs.low <= epochs.gain <= epochs.high
