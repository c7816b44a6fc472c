"""Whatever a log says, a plan's record can be made of it, and says what its events say."""

from hypothesis import given, settings
from hypothesis import strategies as st

from core.analytics.observations import record_plan
from core.events.catalogue import EpochFinished, Fact, PlanCreated, to_event
from tests.property.events.test_catalogue_and_projections import FACTS


@settings(deadline=None)
@given(st.lists(FACTS, max_size=20))
def test_any_events_give_a_record_if_they_say_what_the_plan_is(facts: list[Fact]) -> None:
    events = [to_event("plan", fact)._replace(position=i) for i, fact in enumerate(facts)]
    found = record_plan(events)
    assert (found is not None) == any(isinstance(fact, PlanCreated) for fact in facts)
    if found:
        epochs = {(f.dataset, f.phase, f.model, f.epoch) for f in facts if isinstance(f, EpochFinished)}
        told = {
            (*key, name, epoch)
            for key, run in found.phases.items()
            for name, model in run.models.items()
            for epoch in model.epochs
        }
        assert told == {name for name in epochs if name[:2] in found.phases}
