"""The fold of results over any events: chunks, partial plans and unknown metrics."""

import json
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from core.analytics.canonical import to_json
from core.analytics.results import RESULTS, RetrainingResults, fold_results
from core.analytics.timeline import fold_epochs, fold_spans
from core.events.catalogue import ModelEvaluated, to_event
from core.events.event import Event
from tests.sample_log import sample_events

EVENTS = sample_events()
WHOLE = fold_results(EVENTS)
NUMBERS = st.none() | st.integers(-(2**53), 2**53) | st.floats()


@given(st.lists(st.integers(0, len(EVENTS)), max_size=5))
@settings(deadline=None, max_examples=50)
def test_fold_does_not_depend_on_where_it_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(EVENTS)]
    state = RetrainingResults()
    for first, last in pairwise(edges):
        state = RESULTS.fold(EVENTS[first:last], snapshot=state)
        state = RetrainingResults.model_validate_json(to_json(state))
    assert state == WHOLE


@given(st.lists(st.sampled_from(EVENTS), max_size=60))
@settings(deadline=None, max_examples=50)
def test_any_part_of_a_plan_folds_and_can_be_written(events: list[Event]) -> None:
    part = [event for event in EVENTS if any(event is chosen for chosen in events)]
    results = fold_results(part)
    assert RetrainingResults.model_validate_json(to_json(results)) == results
    assert all(span.started_at <= span.ended_at for span in fold_spans(part))
    assert len(fold_epochs(part)) <= len(part)


@given(st.dictionaries(st.text(max_size=12), NUMBERS, max_size=6), st.text(max_size=20), st.text(max_size=20))
@settings(deadline=None, max_examples=50)
def test_any_metric_model_and_folder_is_kept(
    metrics: dict[str, float | int | None], model: str, folder: str
) -> None:
    fact = ModelEvaluated(dataset="d", model=model, folder=folder, metrics=metrics)
    written = json.loads(to_json(fold_results([to_event("p", fact)])))
    assert set(written["datasets"]["d"]["metrics"][model][folder]) == set(metrics)
