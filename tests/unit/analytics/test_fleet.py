"""The page of all plans, for histories of every kind."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from core.analytics.board import fold_dashboard
from core.analytics.charts.fleet import dashboard_link
from core.analytics.dashboard import render_html
from core.analytics.fleet import FleetHistory, columns_of, devices_of, models_current
from core.analytics.html import text
from core.analytics.pages.fleet import MAX_DOTS, render
from core.analytics.plan_summary import PlanSummary, summarize_plan
from core.events.event import Event
from core.events.telemetry import TELEMETRY_SCHEMA
from tests.sample_log import PLAN_ID, sample_events
from tests.simulated_fleet import simulated_fleet

NO_SAMPLES = pl.DataFrame(schema=TELEMETRY_SCHEMA)


def summary(events: Sequence[Event]) -> PlanSummary:
    found = summarize_plan(events)
    assert found
    return found


def page(streams: dict[str, list[Event]], plan_id: str = "") -> str:
    """The page of fleet alone, with the placement of charts noted."""
    board = fold_dashboard(plan_id or list(streams)[-1], streams, NO_SAMPLES)
    return render(board, lambda chart, caption, _: f"[{caption}]" if chart else "")


def test_a_plan_is_summed_up() -> None:
    plan = summary(sample_events())
    assert (plan.status, plan.datasets) == ("failed", {"hcrl_sa": "completed", "set_01": "failed"})
    assert (plan.num_phases, plan.num_done, plan.num_attempts) == (10, 8, 10)
    assert (plan.recovered, plan.lost, plan.num_shortages) == ({"cuda_oom": 1}, {"bug": 1}, 1)
    assert plan.num_frames == 2 * 4_200_000
    assert set(plan.mcc) == {"hcrl_sa"}
    assert plan.graphs_per_s["student_gat"] > 0
    assert plan.memory_total_mib == 24_576.0
    assert plan.cost is None
    assert summarize_plan([]) is None


def test_the_pause_before_a_plan_is_taken_up_again_is_not_worked() -> None:
    events = sample_events(failures=False)
    half = len(events) // 2
    whole = summary(events).worked_s
    resumed = events[half]._replace(
        type="plan_resumed",
        version=2,
        payload={"remaining": [], "data_dir": None},
        occurred_at=events[half].occurred_at + timedelta(days=3),
    )
    later = [e._replace(occurred_at=e.occurred_at + timedelta(days=3)) for e in events[half:]]
    plan = summary([*events[:half], resumed, *later])
    assert plan.num_resumes == 1
    assert plan.worked_s == pytest.approx(whole, abs=60)


def test_what_nobody_ended_counts_as_interrupted_once_another_plan_begins() -> None:
    first, second = simulated_fleet(2).values()
    streams = {"a": [e._replace(stream="a") for e in first[:60]], "b": second}
    assert FleetHistory(streams).seen_from("b").plans[0].status == "interrupted"
    assert [plan.status for plan in FleetHistory(streams).seen_from("a").plans] == ["unfinished"]


def test_models_are_current_where_the_newest_plan_of_a_dataset_left_them_so() -> None:
    plan = summary(sample_events())
    assert models_current([plan]) == (1, 2)
    assert models_current([plan, replace(plan, datasets={"set_01": "up_to_date"})]) == (2, 2)


def test_two_machines_with_a_device_of_one_name_are_told_apart() -> None:
    plan = summary(sample_events())
    other = replace(plan, machine={**plan.machine, "num_cpus": 64})
    names = [device.name for device in devices_of([plan, plan, other]).devices]
    assert names[0] == "NVIDIA GeForce RTX 3090 (1 GPU, 16 CPUs, 128 GiB RAM)"
    assert names[1] == "NVIDIA GeForce RTX 3090 (1 GPU, 64 CPUs, 128 GiB RAM)"
    assert [device.name for device in devices_of([plan]).devices] == ["NVIDIA GeForce RTX 3090"]


@pytest.mark.parametrize(
    ("num", "days", "each", "count"), [(40, 1, "plan", 40), (41, 1, "day", 41), (300, 1, "week", 43),
                                       (300, 7, "month", 69)],
)  # fmt: skip
def test_many_plans_are_gathered_by_period(num: int, days: int, each: str, count: int) -> None:
    plan = summary(sample_events())
    plans = [replace(plan, began_at=plan.began_at + timedelta(days=days * n)) for n in range(num)]
    columns = columns_of(plans)
    assert (columns.each, len(columns.columns)) == (each, count)
    assert len({column.name for column in columns.columns}) == count


def test_one_plan_has_figures_and_no_trends() -> None:
    shown = page({PLAN_ID: sample_events()})
    assert "from the second plan on" in shown
    assert "[" not in re.sub(r"<[^>]*>", "", shown)
    assert "Cost" not in shown  # no price is set


def test_several_plans_have_trends_costs_and_links() -> None:
    streams = simulated_fleet(5)
    shown = page(streams)
    for words in (
        "[Time worked on each plan]",
        "[Cost per plan]",
        "[hcrl_sa · 0.",
        "NVIDIA A100",
        "since the first",
    ):
        assert words in shown
    names = list(streams)
    assert all(f'href="./{name}_dashboard.html"' in shown for name in names[:-1])
    assert f"{names[-1]}_dashboard.html" not in shown


def test_very_many_plans_stay_small() -> None:
    one = simulated_fleet(6)
    streams = {
        f"p{n}": [
            e._replace(stream=f"p{n}", occurred_at=e.occurred_at + timedelta(days=2 * n)) for e in events
        ]
        for n, events in enumerate(list(one.values()) * 40)
    }
    assert len(streams) > MAX_DOTS
    shown = page(streams, "p239")
    assert "[Plans per month]" in shown or "[Plans per week]" in shown
    assert len(shown) < 60_000


def test_a_fleet_in_which_all_failed_says_so() -> None:
    def failed(event: Event) -> Event:
        ends = event.type == "plan_finished"
        return event._replace(payload={**event.payload, "status": "failed"}) if ends else event

    streams = {name: [failed(event) for event in events] for name, events in simulated_fleet(4).items()}
    assert '<dd class="bad">0%' in page(streams)


def test_names_of_plans_cannot_break_out_of_the_page() -> None:
    evil = "x\"><script>alert(1)</script>'&"
    streams = simulated_fleet(2)
    first = [e._replace(stream=evil) for e in next(iter(streams.values()))]
    shown = page({evil: first, **dict(list(streams.items())[1:])})
    assert "<script" not in shown
    assert text(evil) in shown
    assert dashboard_link("javascript:alert(1)") == "./javascript%3Aalert%281%29_dashboard.html"
    assert dashboard_link("../a b") == "./..%2Fa%20b_dashboard.html"


def test_plans_that_cannot_be_read_are_named() -> None:
    streams = simulated_fleet(2)
    name = list(streams)[-1]
    history = FleetHistory(streams, {"torn <plan>": None})
    board = fold_dashboard(name, streams, NO_SAMPLES, history)
    assert "cannot be read: torn &lt;plan&gt;" in render_html(board)


def test_a_newer_plan_leaves_older_dashboards_as_they_are() -> None:
    streams = simulated_fleet(4)
    second = list(streams)[1]
    earlier = dict(list(streams.items())[:2])
    before, after = (render_html(fold_dashboard(second, known, NO_SAMPLES)) for known in (earlier, streams))
    assert before == after
