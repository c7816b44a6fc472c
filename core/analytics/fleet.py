"""All plans of an output directory, as they were when one of them was last heard of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from core.analytics.plan_summary import PlanSummary, summarize_plan
from core.errors import EventLogError
from core.events.event import Event
from core.events.past import Past


@dataclass(frozen=True)
class Fleet:
    """All plans.

    Attributes:
        plans: In order of their beginning.
        unreadable: Plans that are left out because their events cannot be read, by name.
    """

    plans: Sequence[PlanSummary] = ()
    unreadable: Sequence[str] = ()


class FleetHistory:
    """Any plan's view of all plans; each plan is folded once for every length it is seen with.

    Args:
        streams: The events of all plans; they may grow.
        unreadable: Plans whose events cannot be read; they may become more.
    """

    def __init__(self, streams: Mapping[str, Sequence[Event]], unreadable: Mapping[str, object] = {}) -> None:
        self._streams, self._unreadable, self._past = streams, unreadable, Past(streams)
        self._summaries: dict[tuple[str, int], PlanSummary | None] = {}

    def seen_from(self, plan_id: str) -> Fleet:
        """All plans as they were when a plan's last event was appended.

        So the same plan sees the same, however many plans come after it. An unfinished plan counts as
        interrupted once another one has begun: one at a time works in an output directory.
        """
        if not self._streams.get(plan_id):
            return Fleet(unreadable=sorted(self._unreadable))
        broken = set(self._unreadable)
        found = []
        for name, length in self._past.lengths(plan_id).items():
            try:
                summary = self._summary(name, length)
            except EventLogError:
                broken.add(name)
                continue
            if summary:
                found.append(summary)
        plans = sorted(found, key=lambda plan: (plan.began_at, plan.plan_id))
        newest = max((plan.began_at for plan in plans), default=datetime.min)
        plans = [
            replace(plan, status="interrupted")
            if plan.status == "unfinished" and plan.plan_id != plan_id and plan.ended_at < newest
            else plan
            for plan in plans
        ]
        return Fleet(plans, sorted(broken))

    def _summary(self, plan_id: str, length: int) -> PlanSummary | None:
        key = plan_id, length
        if key not in self._summaries:
            self._summaries[key] = summarize_plan(self._streams[plan_id][:length])
        return self._summaries[key]
