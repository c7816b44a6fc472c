"""Advice reads as a colleague would give it, and is as safe as any other text."""

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from core.analytics.advice.bars import bars_svg, data_uri
from core.analytics.advice.evidence import gather
from core.analytics.advice.judging import judge
from core.analytics.advice.measures import (
    BEST_VAL_LOSS,
    DATA_WAIT_SHARE,
    GRAPHS_PER_S,
    NUM_OOMS,
    format_measure,
)
from core.analytics.advice.reading import Bar, Reading, headline, read
from core.analytics.markdown import recommendation_markdown
from core.analytics.observations import PlanRecord, record_plan
from core.analytics.pages.advice import recommendation
from core.analytics.recommendations import config_yaml, recommend
from core.analytics.results import fold_results
from core.analytics.telemetry import TelemetrySummary
from core.events.catalogue import to_event
from core.events.resource_facts import ConfigRecommended, RecommendationJudged
from settings.app import load_settings
from tests.sample_log import sample_events
from tests.simulated_plans import SimulatedPlan, settings_of

EVIL = "</pre><script>alert('x')</script>| `x` [a](b)"


def carried_out(*plans: SimulatedPlan) -> tuple[ConfigRecommended, list[RecommendationJudged]]:
    """What is recommended after the last of some plans, each analyzed when it ended."""
    before: list[PlanRecord] = []
    for plan in plans:
        record = record_plan(plan.events())
        assert record
        judged = judge([*before, record])
        record = replace(record, judged=tuple(judged))
        fact = recommend(gather(record, before, TelemetrySummary(), plan.settings))
        before.append(replace(record, advice=fact.advice))
    return fact, judged


def reading(*plans: SimulatedPlan) -> Reading:
    return read(*carried_out(*plans))


def test_a_piece_of_advice_says_what_why_how_much_and_how_sure() -> None:
    found = reading(SimulatedPlan("plan-1", settings_of()))
    workers = next(piece for piece in found.changes if piece.setting == "dataset.num_workers")
    assert workers.headline == "Begin with 10 workers instead of 6"
    assert yaml.safe_load(workers.change) == {"dataset": {"num_workers": 10}}
    assert workers.gain == "Time spent waiting for data: 2.7 % now, 0 % with it (anywhere from 0 % to 2.7 %)"
    assert "1 plan since 2026-06-01 (plan-1)" in workers.rests_on
    assert workers.confidence == "50% (fair)"
    assert workers.record == ""
    assert [(bar.label, bar.shown) for bar in workers.bars] == [("now", "2.7 %"), ("expected", "0 %")]
    assert found.summary.startswith("I would change num_workers, prefetch_factor and epochs")
    assert not any("num_workers 10" in reason for reason in found.kept), "it was said above"


def test_what_earlier_advice_came_to_is_told_once_with_both_numbers() -> None:
    adopted = settings_of(dataset={"num_workers": 10, "prefetch_factor": 4})
    found = reading(SimulatedPlan("plan-1", settings_of()), SimulatedPlan("plan-2", adopted, day=7))
    (workers, _) = found.verdicts
    assert workers.headline == "dataset.num_workers 10 instead of 6 helped"
    assert (workers.tone, [bar.shown for bar in workers.bars]) == ("good", ["2.7 %", "0 %"])
    assert not any("helped" in reason for reason in found.kept)


def test_advice_that_was_followed_before_says_whether_it_helped() -> None:
    record = {"num": 3, "helped": 2, "last": "it was faster."}
    item = {**_item(), "record": record}
    fact = ConfigRecommended(device_name="d", settings={}, reasons=[], advice=[item])
    (piece,) = read(fact).changes
    assert (
        piece.record == "Such advice was followed 3 times before: it helped in 2. Last time: it was faster."
    )


def test_no_change_says_so() -> None:
    fact = ConfigRecommended(device_name="d", settings={}, reasons=["All is well."], advice=[])
    found = read(fact)
    assert "Nothing to change" in found.summary
    assert found.kept == ["All is well."]
    unchanged = replace(fact, advice=[{**_item(), "value": 6}])
    assert read(unchanged).changes == []


def test_the_same_thing_is_not_said_for_every_phase() -> None:
    kept = reading(SimulatedPlan("plan-1", settings_of())).kept
    assert sum("peaks" in reason for reason in kept) == 1
    assert all(kept.count(reason) == 1 for reason in kept)


@pytest.mark.parametrize(
    ("setting", "value", "before", "words"),
    [
        ("training.mixed_precision", True, False, "Turn mixed precision on"),
        ("training.micro_batch_size", 512, 0, "Put at most 512 graphs into a pack instead of as many as fit"),
        ("training.num_threads", 0, 2, "Train with as many as there are cores threads instead of 2"),
        ("fusion.new", None, True, "Set fusion.new to none instead of on"),
    ],
)
def test_values_are_said_as_people_say_them(setting: str, value: object, before: object, words: str) -> None:
    assert headline(setting, value, before) == words


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        (DATA_WAIT_SHARE, 0.0274, "2.7 %"), (DATA_WAIT_SHARE, 0.42, "42 %"), (NUM_OOMS, 1.5, "1.5"),
        (NUM_OOMS, 2.0, "2"), (GRAPHS_PER_S, 12_345.6, "12\u202f300 graphs/s"), (BEST_VAL_LOSS, 0.2, "0.200"),
    ],
)  # fmt: skip
def test_measures_are_rounded_as_people_round(metric: str, value: float, text: str) -> None:
    assert format_measure(metric, value) == text


@pytest.mark.parametrize(
    "plan",
    [
        SimulatedPlan("plan-1", settings_of()),
        SimulatedPlan("plan-1", settings_of(training={"batch_size": 4096}), ooms=[(4096, 2048)]),
        SimulatedPlan("plan-1", settings_of(), fails="cuda_oom"),
        SimulatedPlan("plan-1", settings_of(), num_epochs=10, best_epoch=9),
        SimulatedPlan("plan-1", settings_of(), gpu=False),
    ],
    ids=["starved", "out of memory", "failed", "still learning", "cpu"],
)
def test_every_history_makes_a_file_that_loads_and_text_without_code(
    tmp_path: Path, plan: SimulatedPlan
) -> None:
    fact, judged = carried_out(plan)
    path = tmp_path / "settings.yaml"
    path.write_text(config_yaml(fact, "plan-1"))
    load_settings(path)
    comments = "".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    for written in (comments, recommendation_markdown(fact, judged)):
        assert not re.search(r"\b(True|False|None|nan|inf)\b", written)
    for image in re.findall(r"!\[[^\]]*\]\(([^)]*)\)", recommendation_markdown(fact, judged)):
        assert image.startswith("data:image/svg+xml;base64,")


def test_folders_of_one_machine_are_not_pinned(tmp_path: Path) -> None:
    settings = settings_of(
        data={"data_dir": tmp_path / "captures", "demo": {"cache_dir": tmp_path, "seed": 3}}
    )
    fact, _ = carried_out(SimulatedPlan("plan-1", settings))
    assert fact.settings["data"] == {"demo": {"seed": 3}}
    assert str(tmp_path) not in config_yaml(fact, "plan-1")


def test_advice_from_data_cannot_break_out_of_the_page_or_the_markdown() -> None:
    item = {**_item(), "setting": EVIL, "reason": f"{EVIL}: do it.", "rests_on": EVIL, "measured_as": EVIL}
    item["measured"] = [{"label": EVIL, "value": 1.0, "shown": EVIL}]
    fact = ConfigRecommended(device_name=EVIL, settings={}, reasons=[EVIL], advice=[item])
    results = fold_results([*sample_events()[:1], to_event("p", fact)])
    assert "<script" not in recommendation(results)
    markdown = recommendation_markdown(fact)
    prose = "".join(markdown.split("```")[::2])
    assert not re.search(r"(?<!\\)<script", prose)
    assert "[a](b)" not in prose


def test_bars_are_a_picture_with_bounds_and_escaped_names() -> None:
    svg = bars_svg([Bar("now <b>", "2 %", 1.0), Bar("expected", "0 %", 0.0, 0.0, 1.0)])
    root = ElementTree.fromstring(svg)  # noqa: S314 - our own
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["now <b>", "2 %", "expected", "0 %"]
    assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) == 1
    assert data_uri(svg) == data_uri(svg)


def _item() -> dict[str, object]:
    measured = dict.fromkeys(("phase", "metric", "current", "expected", "low", "high"))
    return {
        "setting": "dataset.num_workers",
        "value": 10,
        "before": 6,
        "reason": "Idle: more.",
        "rests_on": "1 plan",
        "num_observations": 1,
        "confidence": 0.5,
        **measured,
    }
