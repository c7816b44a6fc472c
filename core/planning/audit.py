"""Looking back: the log as it was at any position, and whether anyone changed it since."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import EventLogError
from core.events.catalogue import PlanCreated, to_fact
from core.events.event import Event
from core.events.log import EventLog
from core.events.segments import EMPTY, Head
from settings.errors import SettingsError


def as_it_was(
    streams: Mapping[str, Sequence[Event]], plan_id: str, position: int
) -> dict[str, Sequence[Event]]:
    """The events there were when one of them was appended.

    Args:
        streams: All events by plan.
        plan_id: The plan whose event it is.
        position: The event's position; it is the last of its plan in what is returned.

    Returns:
        Of that plan everything up to the position, of the others everything up to its time; plans that had
        not begun are left out.

    Raises:
        SettingsError: The plan has no such position.
    """
    events = streams[plan_id]
    if not 0 <= position < len(events):
        raise SettingsError(
            f"plan {plan_id} has no event {position}: its positions are 0 to {len(events) - 1}"
        )
    moment = events[position].occurred_at
    past: dict[str, Sequence[Event]] = {
        name: other[: bisect_right(other, moment, key=lambda event: event.occurred_at)]
        for name, other in streams.items()
    }
    return {name: other for name, other in (past | {plan_id: events[: position + 1]}).items() if other}


@dataclass(frozen=True)
class StreamAudit:
    """What the hashes say about one plan's events.

    Attributes:
        plan_id: The plan.
        num_events: Events that could be read; None if the stream is damaged.
        head: Where the stream stands: keep its sha256 elsewhere, and no change up to there stays unnoticed.
        num_unhashed: Events of release 0.1.0, which carry no hash of their own.
        problem: What is wrong; empty if nothing is.
    """

    plan_id: str
    num_events: int | None
    head: Head
    num_unhashed: int
    problem: str


def audit(log: EventLog) -> list[StreamAudit]:
    """Check every stream's hashes, and that every plan that names the end of the one before finds it so.

    Returns:
        One entry per plan, by name; a plan that is gone altogether but is named by another has one too.
    """
    heads: dict[str, list[Head]] = {}
    audits: dict[str, StreamAudit] = {}
    anchors: dict[str, list[tuple[str, Head]]] = {}
    for plan_id in log.streams():
        try:
            events = log.read(plan_id)
            heads[plan_id] = log.heads(plan_id)
        except EventLogError as error:
            audits[plan_id] = StreamAudit(plan_id, None, EMPTY, 0, str(error))
            continue
        audits[plan_id] = StreamAudit(plan_id, len(events), heads[plan_id][-1], log.num_unhashed(plan_id), "")
        created = to_fact(events[0])
        for named in created.previous if isinstance(created, PlanCreated) else ():
            anchor = Head(named["number"], named["position"], named["sha256"])
            anchors.setdefault(named["plan"], []).append((plan_id, anchor))
    for plan_id, named_by in anchors.items():
        for witness, anchor in named_by:
            if plan_id not in audits or (plan_id in heads and anchor not in heads[plan_id]):
                found = audits.get(plan_id, StreamAudit(plan_id, None, EMPTY, 0, ""))
                audits[plan_id] = StreamAudit(
                    plan_id, found.num_events, found.head, found.num_unhashed, _missing(anchor, witness)
                )
    return [audits[plan_id] for plan_id in sorted(audits)]


def _missing(anchor: Head, witness: str) -> str:
    return (
        f"its first {anchor.position + 1} events are not those that plan {witness} saw "
        f"(sha256 {anchor.sha256[:12]}... at position {anchor.position}): they were changed or removed; "
        "restore them from a backup"
    )


def unnamed_heads(log: EventLog) -> list[dict[str, Any]]:
    """Where every plan stands that has gone on since a plan last named it, for ``PlanCreated.previous``.

    Raises:
        EventLogError: The log cannot be read.
    """
    named: dict[str, list[str]] = {}
    streams = log.streams()
    for plan_id in streams:
        created = to_fact(log.read(plan_id)[0])
        for anchor in created.previous if isinstance(created, PlanCreated) else ():
            named.setdefault(anchor["plan"], []).append(anchor["sha256"])
    heads = {plan_id: log.heads(plan_id)[-1] for plan_id in streams}
    return [
        {"plan": plan_id, **head._asdict()}
        for plan_id, head in heads.items()
        if head.sha256 not in named.get(plan_id, ())
    ]
