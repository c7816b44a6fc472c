"""Envelopes, upcasting and folds hold for whatever comes."""

import copy
import dataclasses
import types
import typing
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from core.events.catalogue import CATALOGUE, Fact, to_event, to_fact
from core.events.event import new_event
from core.events.log import EventLog
from core.events.projection import Following, Projection
from core.events.stores import MemoryStore
from core.events.upcasters import upcast
from core.planning.plan_state import PLAN_STATE
from core.planning.registry_view import REGISTRY_VIEW

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    str: st.sampled_from(["a", "b", "teacher", "evaluation", "graphs"]),
    int: st.integers(0, 1000),
    float: st.floats(0, 1e6),
    bool: st.booleans(),
    Any: JSON,
}


def value_of(kind: Any) -> st.SearchStrategy[Any]:
    if kind in BY_TYPE:
        return BY_TYPE[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        return st.lists(value_of(arguments[0]), max_size=2)
    if origin is dict:
        return st.dictionaries(st.text(max_size=3), value_of(arguments[1]), max_size=2)
    if origin in (types.UnionType, typing.Union):
        return st.one_of([st.none() if a is type(None) else value_of(a) for a in arguments])
    raise AssertionError(f"no strategy for {kind}")


def facts_of(cls: type[Fact]) -> st.SearchStrategy[Fact]:
    hints = typing.get_type_hints(cls)
    fields = {field.name: value_of(hints[field.name]) for field in dataclasses.fields(cls)}
    if cls.TYPE == "plan_created":
        step = st.fixed_dictionaries(
            dict.fromkeys(("dataset", "phase", "reason", "settings_digest"), BY_TYPE[str])
            | {"action": st.sampled_from(["run", "skip"])}
        )
        fields["steps"] = st.lists(step, max_size=4)
    return st.builds(cls, **fields)


FACTS = st.one_of([facts_of(cls) for cls in CATALOGUE.values()])


@given(FACTS)
def test_a_fact_comes_back_from_its_envelope(fact: Fact) -> None:
    event = to_event("plan", fact)
    assert to_fact(event) == fact
    assert (event.type, event.version) == (fact.TYPE, fact.VERSION)


PROJECTIONS: list[Projection[Any]] = [PLAN_STATE, REGISTRY_VIEW]


@settings(deadline=None)
@given(st.lists(FACTS, max_size=20), st.data())
def test_folding_from_a_snapshot_equals_folding_from_the_beginning(
    facts: list[Fact], data: st.DataObject
) -> None:
    events = [to_event("plan", f)._replace(position=i) for i, f in enumerate(facts)]
    cut = data.draw(st.integers(0, len(events)))
    for projection in PROJECTIONS:
        whole = projection.fold(events)
        snapshot = projection.fold(events[:cut])
        before = copy.deepcopy(snapshot)
        assert projection.fold(events[cut:], snapshot=snapshot) == whole
        assert snapshot == before, "a fold never changes the state it is given"
        assert projection.fold(events) == whole


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(FACTS, min_size=1, max_size=5), max_size=5), st.booleans())
def test_following_a_stream_gives_what_folding_all_of_it_gives(
    batches: list[list[Fact]], compacts: bool
) -> None:
    log, reader = EventLog(store := MemoryStore()), EventLog(store)
    for stream, projection in zip(("one", "two"), PROJECTIONS, strict=True):
        following = Following(reader, stream, projection)
        for facts in batches:
            log.append([to_event(stream, fact) for fact in facts])
            if compacts:
                log.compact(stream)
            events = log.read(stream)
            assert following.state() == projection.fold(events)
        assert following.state() == following.state()


@given(st.integers(1, 5), st.integers(1, 5))
def test_an_old_event_is_lifted_step_by_step_to_the_newest_version(newest: int, version: int) -> None:
    steps = {
        ("thing", n): lambda payload, n=n: {**payload, "path": [*payload["path"], n]}
        for n in range(1, newest)
    }
    event = new_event("plan", "thing", {"path": []}, version)
    lifted = upcast(event, steps)
    assert lifted.version == max(version, newest)
    assert lifted.payload["path"] == list(range(version, newest))
    assert lifted.event_id == event.event_id


def test_type_names_are_unique_and_in_the_past_tense() -> None:
    assert len(CATALOGUE) == len(Fact.__subclasses__())
    assert all(name.split("_")[-1].endswith(("d", "n", "t")) for name in CATALOGUE)
