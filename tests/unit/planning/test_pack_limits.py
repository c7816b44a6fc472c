"""What plans say of pack limits, folded."""

from typing import Any

from core.events.catalogue import to_event
from core.events.fact import Fact
from core.events.resource_facts import PackLimitChanged, PackLimitChosen
from core.planning.pack_limits import fold_pack_limits
from core.training.packs import KnownLimit, LimitChange, PackLimit

FULL = {"graphs": 40, "nodes": 400, "edges": 4000}
HALF = {"graphs": 20, "nodes": 200, "edges": 2000}
MEASURED = {"base_mib": 1.0}


def chosen(key: str = "k", **changes: Any) -> PackLimitChosen:
    values: dict[str, Any] = {
        "dataset": "car",
        "phase": "teacher",
        "model": "teacher_gat",
        "limit": FULL,
        "most": FULL,
        "binds": "memory",
        "source": "probed",
        "memory": MEASURED,
        "key": key,
    }
    return PackLimitChosen(**(values | changes))


def changed(
    reason: str, after: dict[str, int], epoch: int | None = 1, step: int | None = 2, **changes: Any
) -> PackLimitChanged:
    values: dict[str, Any] = {
        "dataset": "car",
        "phase": "teacher",
        "model": "teacher_gat",
        "epoch": epoch,
        "step": step,
        "stage": "forward",
        "reason": reason,
        "before": FULL,
        "after": after,
        "allocated_mib": None,
        "reserved_mib": None,
    }
    return PackLimitChanged(**(values | changes))


def known(*plans: tuple[str, list[Fact]], plan: str = "next", phase: str = "teacher") -> Any:
    streams = [[to_event(name, fact) for fact in facts] for name, facts in plans]
    return fold_pack_limits(streams).known(plan, "car", phase)


def test_a_plan_goes_by_what_it_chose_first_and_knows_every_change_at_its_step() -> None:
    facts = [
        chosen(),
        changed("cuda_oom", HALF),
        chosen(limit=HALF, source="history"),
        changed("room", FULL, 3, 4),
    ]
    own = known(("p", facts), plan="p").own
    changes = (LimitChange(1, 2, "cuda_oom", PackLimit(**HALF)), LimitChange(3, 4, "room", PackLimit(**FULL)))
    assert own == {
        "teacher_gat": KnownLimit(PackLimit(**FULL), PackLimit(**FULL), MEASURED, "memory", changes)
    }
    assert known(("p", facts), plan="p", phase="student").own == {}
    assert known(("p", facts)).own == {}


def test_scoring_changes_nothing_that_a_training_goes_by() -> None:
    facts = [chosen(), changed("cuda_oom", HALF, None, None)]
    assert known(("p", facts), plan="p").own["teacher_gat"].changes == ()
    assert known(("p", facts)).history["k"].limit == PackLimit(**FULL)


def test_the_next_plan_begins_with_the_last_limit_under_the_same_conditions() -> None:
    first: tuple[str, list[Fact]] = ("1", [chosen(), changed("cuda_oom", HALF)])
    history = known(first).history
    assert history == {"k": KnownLimit(PackLimit(**HALF), PackLimit(**FULL), MEASURED, "memory")}
    assert known(first, ("2", [chosen("other")])).history["k"].limit == PackLimit(**HALF)
    grown: tuple[str, list[Fact]] = ("2", [chosen(limit=HALF), changed("room", FULL)])
    assert known(first, grown).history["k"].limit == PackLimit(**FULL)


def test_where_all_that_was_asked_for_fits_nothing_is_remembered() -> None:
    assert known(("1", [chosen()]), ("2", [chosen(binds="step")])).history == {}
    assert known(("1", [chosen(binds="step"), changed("host_oom", HALF)])).history["k"].limit == PackLimit(
        **HALF
    )


def test_a_network_that_said_nothing_at_its_beginning_has_changes_too() -> None:
    own = known(("1", [changed("host_oom", HALF, 0, 3, model="fusion")]), plan="1").own
    assert own["fusion"].changes == (LimitChange(0, 3, "host_oom", PackLimit(**HALF)),)
