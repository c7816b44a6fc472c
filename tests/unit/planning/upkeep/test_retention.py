"""What may go, when, and in which order: a table of decisions without a file."""

from datetime import timedelta
from pathlib import Path

import pytest

from core.events.event import Event
from core.planning.plan_state import PLAN_STATE
from core.planning.upkeep.retention import CHEAPEST_FIRST, Item, Kind, choose_removals, shortage
from settings.retention import RetentionSettings
from tests.kept_outputs import BEGAN
from tests.sample_log import sample_events

OLD, PLAN = BEGAN, "plan"
NOW = BEGAN + timedelta(days=400)
MIB, GIB = 2**20, 2**30
EVENTS = sample_events(PLAN, ("hcrl_sa", "set_01"), failures=False, start=BEGAN)
FAILED = sample_events(PLAN, ("hcrl_sa", "set_01"), failures=True, start=BEGAN)
DEFAULTS = RetentionSettings()
KEPT_FOR_EVER = RetentionSettings(checkpoint_days=0, graphs_days=0, plan_days=0, log_days=0, telemetry_days=0)


def item(kind: Kind, name: str = "a", dataset: str = "set_01", age_days: float = 400.0, mib: int = 1) -> Item:
    modified_at = NOW - timedelta(days=age_days)
    return Item(kind, (Path("out", kind, name),), mib * MIB, modified_at, PLAN, dataset)


def chosen(
    *items: Item, events: list[Event] = EVENTS, policy: RetentionSettings = DEFAULTS, mib: int = 0
) -> list[Item]:
    removals = choose_removals(items, {PLAN: PLAN_STATE.fold(events)}, policy, mib * MIB, NOW)
    return [removal.item for removal in removals]


def unfinished(dataset: str) -> list[Event]:
    """The plan as it stood when one of its datasets had everything still to do."""
    return [
        event for event in EVENTS if event.payload.get("dataset") != dataset or event.type == "graphs_built"
    ]


@pytest.mark.parametrize("kind", CHEAPEST_FIRST)
def test_what_was_not_used_for_long_goes(kind: Kind) -> None:
    assert chosen(item(kind)) == [item(kind)]


@pytest.mark.parametrize("kind", CHEAPEST_FIRST)
def test_what_is_younger_than_a_day_stays_whatever_the_budget(kind: Kind) -> None:
    events = [event._replace(occurred_at=NOW - timedelta(hours=1)) for event in EVENTS]
    young = item(kind, age_days=0.9)
    assert chosen(young, events=events, policy=RetentionSettings(max_disk_gib=0.001), mib=10_000) == []


@pytest.mark.parametrize("kind", [kind for kind in CHEAPEST_FIRST if kind != "litter"])
def test_zero_days_keep_for_ever(kind: Kind) -> None:
    assert chosen(item(kind), policy=KEPT_FOR_EVER) == []


def test_the_checkpoints_of_a_dataset_that_its_plan_is_not_done_with_stay_whatever_the_budget() -> None:
    needed, done = item("checkpoints", "needed", "set_01"), item("checkpoints", "done", "hcrl_sa")
    tight = RetentionSettings(max_disk_gib=0.001)
    assert chosen(needed, done, events=unfinished("set_01"), policy=tight, mib=10_000) == [done]


def test_the_checkpoints_of_a_plan_that_nobody_knows_or_can_read_stay() -> None:
    unknown = Item("checkpoints", (Path("out/a.json"),), MIB, OLD, "another plan", "set_01")
    nameless = Item("checkpoints", (Path("out/b.json"),), MIB, OLD, "", "set_01")
    assert chosen(unknown, nameless, policy=RetentionSettings(max_disk_gib=0.001), mib=10_000) == []


def test_dashboards_and_samples_of_a_plan_whose_events_cannot_be_read_stay() -> None:
    items = [Item(kind, (Path("out", kind),), MIB, OLD, "damaged") for kind in ("dashboards", "telemetry")]
    assert chosen(*items, policy=RetentionSettings(max_disk_gib=0.001), mib=10_000) == []


def test_graphs_stay_while_a_plan_is_not_done_with_their_dataset() -> None:
    [built] = [e.payload for e in EVENTS if e.type == "graphs_built" and e.payload["dataset"] == "set_01"]
    graphs = item("graphs", Path(built["path"]).name)
    assert chosen(graphs) == [graphs]
    assert chosen(graphs, events=unfinished("set_01")) == []
    assert chosen(graphs, events=unfinished("hcrl_sa")) == [graphs]


def test_graphs_were_last_used_when_a_plan_that_used_them_was_last_heard_of() -> None:
    [built] = [e.payload for e in EVENTS if e.type == "graphs_built" and e.payload["dataset"] == "set_01"]
    used, unused = item("graphs", Path(built["path"]).name), item("graphs", "unused")
    recent = [event._replace(occurred_at=NOW - timedelta(days=29)) for event in EVENTS]
    assert chosen(used, unused, events=recent) == [unused]


def test_what_a_plan_that_was_taken_up_again_has_is_as_young_as_its_last_event() -> None:
    recent = [*EVENTS[:-1], EVENTS[-1]._replace(occurred_at=NOW - timedelta(days=3))]
    items = [item("checkpoints"), item("dashboards"), item("telemetry"), item("logs")]
    assert chosen(*items, events=recent) == []


def test_a_dashboard_that_was_written_again_is_as_old_as_its_plan() -> None:
    written_again = item("dashboards", age_days=2.0)
    assert chosen(written_again) == [written_again]


def test_the_budget_takes_what_is_cheapest_to_make_again_first_and_oldest_first_and_no_more_than_needed() -> (
    None
):
    stay = [item("graphs", "new", age_days=2), item("logs", age_days=20), item("telemetry", age_days=20)]
    go = [
        item("litter", age_days=2),
        item("checkpoints", age_days=2),
        item("dashboards", age_days=2),
        item("graphs", "old", age_days=20),
    ]
    recent = [event._replace(occurred_at=NOW - timedelta(days=2)) for event in EVENTS]
    policy = RetentionSettings(max_disk_gib=1.0)
    assert chosen(*stay, *reversed(go), events=recent, policy=policy, mib=1024 + 4) == go
    assert chosen(*stay, *go, events=recent, policy=policy, mib=1024) == go[:1]  # litter goes anyway


def test_what_goes_by_its_age_counts_for_the_budget() -> None:
    old = Item("logs", (Path("out/a.jsonl"),), 500 * MIB, OLD)
    young = item("checkpoints", age_days=2)
    recent = [event._replace(occurred_at=NOW - timedelta(days=2)) for event in EVENTS]
    assert chosen(old, young, events=recent, policy=RetentionSettings(max_disk_gib=1.0), mib=1500) == [old]


def test_each_removal_says_by_which_setting() -> None:
    removals = choose_removals(
        [item("telemetry")], {PLAN: PLAN_STATE.fold(EVENTS)}, RetentionSettings(), 0, NOW
    )
    assert [removal.reason for removal in removals] == [
        "not used for 399 days (retention.telemetry_days=365)"
    ]


def test_too_little_room_is_said_with_what_to_do() -> None:
    policy = RetentionSettings(min_free_gib=2.0)
    assert shortage(2 * GIB, Path("out"), policy) == ""
    said = shortage(GIB // 2, Path("out"), policy)
    for word in ("0.50 GiB", "out", "retention.min_free_gib=2", "python -m flows.maintain"):
        assert word in said
    assert shortage(0, Path("out"), RetentionSettings(min_free_gib=0)) == ""
