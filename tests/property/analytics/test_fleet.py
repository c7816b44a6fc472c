"""All plans at a glance: parts add up, order does not matter, the future does not show."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from core.analytics.fleet import Fleet, FleetHistory, columns_of, devices_of
from core.analytics.plan_summary import summarize_plan
from core.events.event import Event
from core.events.past import Past
from tests.simulated_fleet import simulated_fleet

FLEET = simulated_fleet(30, seed=3)
PLANS = list(FLEET)
fleets = st.lists(st.sampled_from(PLANS), unique=True, min_size=1)


def seen(streams: Mapping[str, Sequence[Event]], plan_id: str) -> Fleet:
    return FleetHistory(streams).seen_from(plan_id)


@settings(deadline=None)
@given(names=fleets)
def test_columns_and_devices_add_up_to_all_plans(names: list[str]) -> None:
    plans = [summary for name in sorted(names) if (summary := summarize_plan(FLEET[name]))]
    hours = sum(plan.worked_s for plan in plans) / 3600
    failures = sum((Counter(plan.failures) for plan in plans), Counter[str]())
    columns = columns_of(plans * 3)  # more than have a column each
    for parts, times in ((columns_of(plans).columns, 1), (columns.columns, 3)):
        assert sum(len(part.plans) for part in parts) == times * len(plans)
        assert abs(sum(part.hours for part in parts) - times * hours) < 1e-6
        assert sum((Counter(part.failures) for part in parts), Counter[str]()) == Counter(
            {kind: times * num for kind, num in failures.items()}
        )
    assert sum(len(device.plans) for device in devices_of(plans).devices) == len(plans)


@settings(deadline=None)
@given(names=fleets, data=st.data())
def test_the_order_in_which_plans_are_read_does_not_matter(names: list[str], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(names))
    viewer = names[0]
    assert seen({name: FLEET[name] for name in names}, viewer) == seen(
        {name: FLEET[name] for name in shuffled}, viewer
    )


@settings(deadline=None)
@given(viewer=st.sampled_from(PLANS), data=st.data())
def test_a_plan_sees_nothing_of_what_happened_after_it(viewer: str, data: st.DataObject) -> None:
    end = FLEET[viewer][-1].occurred_at
    # Clocks are not set back here.
    cut = {name: [e for e in events if e.occurred_at <= end] for name, events in FLEET.items()}
    later = data.draw(st.sets(st.sampled_from(PLANS)))
    grown = {name: events for name, events in FLEET.items() if cut[name] or name in later}
    assert seen(grown, viewer) == seen({name: events for name, events in cut.items() if events}, viewer)


def test_a_history_that_grows_is_folded_on() -> None:
    streams: dict[str, Sequence[Event]] = {}
    history = FleetHistory(streams)
    for name in PLANS[:6]:
        streams[name] = FLEET[name][:50]
        assert history.seen_from(name) == seen(streams, name)
        streams[name] = FLEET[name]
        assert history.seen_from(name) == seen(streams, name)


def test_a_clock_set_back_hides_what_came_after_the_first_later_event() -> None:
    first, second = PLANS[:2]
    end = FLEET[first][-1].occurred_at
    events = list(FLEET[second][:4])
    times = [end - timedelta(hours=1), end + timedelta(hours=1), end - timedelta(hours=2), end]
    streams = {
        first: FLEET[first],
        second: [e._replace(occurred_at=t) for e, t in zip(events, times, strict=True)],
    }
    assert Past(streams).lengths(first) == {first: len(FLEET[first]), second: 1}
