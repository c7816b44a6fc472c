"""What maintenance may delete, and why: a pure decision over the plans' folds, ages, sizes and the budget.

==============  ========================================  ============================================
kind            kept while                                cost of deleting it
==============  ========================================  ============================================
litter          it is younger than a day                  none: a process that was killed left it
checkpoints     their plan is not done with the dataset   none: only a resume would read them
dashboards      the plan's events cannot be read          ``python -m flows.analyze`` writes them again
graphs          a plan is not done with the dataset       the next plan that needs them builds them
logs            their plan is worked on                   nobody can tell any more what went on
telemetry       their plan is worked on                   dashboards lack charts of resources
==============  ========================================  ============================================

The event log and models are no kind: nothing here can name them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

from core.planning.plan_state import PlanState
from settings.retention import RetentionSettings

Kind = Literal["litter", "checkpoints", "dashboards", "graphs", "logs", "telemetry"]
CHEAPEST_FIRST: tuple[Kind, ...] = ("litter", "checkpoints", "dashboards", "graphs", "logs", "telemetry")
"""Kinds by what it costs that they are gone."""
LEAST_AGE = timedelta(days=1)
"""Whatever is younger stays, also where the budget is exceeded: somebody may be at it."""
_GIB = 2**30


@dataclass(frozen=True)
class Item:
    """Something in the output directory that is deleted as a whole or not at all.

    Attributes:
        kind: What it is.
        paths: Its files, or one folder; the one that makes it count first.
        num_bytes: Of all of them.
        modified_at: When any of them was last written; the beginning of time where only its plan knows.
        plan_id: The plan that it belongs to; empty where it belongs to none.
        dataset: The dataset that it belongs to; empty for all of its plan's, or none.
        blobs: Part and stream of shared storage, instead of paths: it takes no room on this disk.
    """

    kind: Kind
    paths: tuple[Path, ...]
    num_bytes: int
    modified_at: datetime
    plan_id: str = ""
    dataset: str = ""
    blobs: tuple[str, str] | None = None


class Removal(NamedTuple):
    """An item that goes.

    Attributes:
        item: The item.
        last_used_at: When it was last written or needed.
        reason: Why it goes, for people.
    """

    item: Item
    last_used_at: datetime
    reason: str


def choose_removals(
    items: Iterable[Item],
    plans: Mapping[str, PlanState],
    policy: RetentionSettings,
    num_bytes: int,
    now: datetime,
) -> list[Removal]:
    """Decide what is deleted.

    Args:
        items: What there is.
        plans: State by plan, of all plans that can be read.
        policy: What the settings say.
        num_bytes: Of the whole output directory, what is never deleted included.
        now: The time.

    Returns:
        What goes, cheapest first and oldest first among equals.
    """
    found = [(item, _last_used_at(item, plans)) for item in items if not _is_needed(item, plans, now)]
    found.sort(key=lambda entry: (CHEAPEST_FIRST.index(entry[0].kind), entry[1], entry[0].paths))
    old = [(item, used_at) for item, used_at in found if now - used_at >= LEAST_AGE]
    removals = [
        Removal(item, used_at, reason)
        for item, used_at in old
        if (reason := _too_old(item.kind, now - used_at, policy))
    ]
    removals += _beyond_budget(old, removals, policy, num_bytes)
    return sorted(removals, key=lambda removal: CHEAPEST_FIRST.index(removal.item.kind))


def _beyond_budget(
    found: Sequence[tuple[Item, datetime]],
    removals: Sequence[Removal],
    policy: RetentionSettings,
    num_bytes: int,
) -> Iterator[Removal]:
    """What else has to go until the rest fits."""
    if not policy.max_disk_gib:
        return
    gone = {removal.item for removal in removals}
    left = num_bytes - sum(item.num_bytes for item in gone)
    for item, used_at in found:
        if left <= policy.max_disk_gib * _GIB:
            return
        if item not in gone and item.blobs is None:
            left -= item.num_bytes
            yield Removal(
                item, used_at, f"all outputs take more than retention.max_disk_gib={policy.max_disk_gib:g}"
            )


def _too_old(kind: Kind, age: timedelta, policy: RetentionSettings) -> str:
    if kind == "litter":
        return "left by a process that was killed"
    setting = {
        "checkpoints": "checkpoint_days",
        "dashboards": "plan_days",
        "graphs": "graphs_days",
        "logs": "log_days",
        "telemetry": "telemetry_days",
    }[kind]
    days: float = getattr(policy, setting)
    if not days or age < timedelta(days=days):
        return ""
    return f"not used for {age.days} days (retention.{setting}={days:g})"


def _is_needed(item: Item, plans: Mapping[str, PlanState], now: datetime) -> bool:
    """Whether something would be missed by a plan that is not over, or could not be made again."""
    match item.kind:
        case "litter":
            return False
        case "checkpoints":
            plan = plans.get(item.plan_id)
            return plan is None or any(map(plan.remaining, [item.dataset] if item.dataset else plan.datasets))
        case "graphs":
            return any(
                plan.remaining(dataset)
                for plan in plans.values()
                for dataset, built in plan.graphs.items()
                if Path(built.path).name == item.paths[0].name
            )
        case "dashboards" | "telemetry":
            return item.plan_id not in plans
        case "logs":
            plan = plans.get(item.plan_id)
            return bool(plan and plan.last_event_at and now - plan.last_event_at < LEAST_AGE)


def _last_used_at(item: Item, plans: Mapping[str, PlanState]) -> datetime:
    """When it was written, or when a plan that it belongs to was last heard of."""
    if item.kind == "graphs":
        users = [
            plan.last_event_at
            for plan in plans.values()
            for built in plan.graphs.values()
            if Path(built.path).name == item.paths[0].name
        ]
    else:
        users = [plans[item.plan_id].last_event_at] if item.plan_id in plans else []
    if item.kind == "dashboards" and users and users[0]:
        return users[0]  # writing it again is no use of it
    return max([item.modified_at, *filter(None, users)])


def shortage(free_bytes: int, folder: Path, policy: RetentionSettings) -> str:
    """Why no plan may begin on a disk with so much room; empty if one may.

    Args:
        free_bytes: What this user may still write.
        folder: The output directory.
        policy: What the settings say.
    """
    if free_bytes >= policy.min_free_gib * _GIB:
        return ""
    return (
        f"{free_bytes / _GIB:.2f} GiB are free on the disk of {folder}, less than "
        f"retention.min_free_gib={policy.min_free_gib:g}: make room (python -m flows.maintain deletes what "
        "is no longer needed; retention.max_disk_gib says how much may stay), or lower the setting"
    )
