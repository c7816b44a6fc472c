"""Logs of every released version can be read and folded by this one."""

from pathlib import Path

import pytest

from core.analytics.detection import fold_scores
from core.analytics.results import fold_plan, fold_results
from core.events.catalogue import to_fact
from core.events.log import EventLog
from core.planning.audit import audit
from core.planning.plan_state import PLAN_STATE
from core.planning.registry_view import registry_view

GOLDEN = sorted((Path(__file__).parents[1] / "golden").iterdir())


@pytest.mark.parametrize("root", GOLDEN, ids=lambda path: path.name)
def test_a_log_of_an_earlier_release_is_read_and_folded(root: Path) -> None:
    log = EventLog(root)
    (plan_id,) = log.streams()
    events = log.read(plan_id)
    assert [event.position for event in events] == list(range(len(events)))
    assert all(event.type == to_fact(event).TYPE for event in events)

    (found,) = audit(EventLog(root))
    assert (found.num_events, found.problem) == (len(events), "")
    assert found.num_unhashed == (len(events) if root.name == "0.1.0" else 0)

    state = PLAN_STATE.fold(events)
    assert state.status == "completed"
    assert {phase.status for phase in state.phases.values()} == {"completed"}
    assert {phase for _, phase in registry_view(log).models} == {"teacher", "student", "fusion"}
    assert fold_plan(events) is not None
    results = fold_results(events)
    assert results.datasets["demo"].metrics["fusion"]["test_01_known_vehicle_known_attack"]["f1"] is not None
    # Scores are logged since 0.4.0; whatever is older goes without.
    assert bool(fold_scores(events)) == (root.name not in {"0.1.0", "0.2.0", "0.3.0"})
