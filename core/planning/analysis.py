"""After a plan: recommend settings for the next one, and rebuild every projection."""

from dataclasses import replace
from pathlib import Path

from core.analytics.advice.evidence import gather
from core.analytics.advice.judging import judge
from core.analytics.bottlenecks import fold_bottlenecks
from core.analytics.fleet import FleetHistory
from core.analytics.observations import PlanRecord, record_plan
from core.analytics.projections import rebuild, write_configs
from core.analytics.recommendations import recommend
from core.analytics.telemetry import summarize
from core.errors import ConcurrencyError, DamagedLogError, EventLogError
from core.events.catalogue import Fact, PhaseFinished, PlanFinished, to_event, to_fact
from core.events.event import Event
from core.events.log import EventLog
from core.events.open import open_log
from core.events.resource_facts import ConfigRecommended
from core.events.shared_telemetry import fetched_telemetry
from core.events.telemetry import reduce_telemetry
from core.planning.audit import readable
from core.planning.live.progress import log_bottleneck, log_progress
from core.planning.plan_state import PLAN_STATE
from settings.errors import SettingsError
from settings.layout import Layout


def analyze_plans(
    output_dir: Path, plan_id: str | None = None
) -> tuple[list[Path], dict[str, EventLogError]]:
    """Add a recommendation to the log of each plan whose end has none yet, then rebuild the projections.

    What earlier recommendations came to, where the plan went by them, is added with it.

    Args:
        output_dir: The plans' output directory.
        plan_id: Only this plan; None for all of them.

    Returns:
        The files written, and by plan why it is left out: of recommended settings as well, if its events
        cannot be read.

    Raises:
        SettingsError: There is no such plan, or none at all.
        EventLogError: The one plan, or the list of them, cannot be read, or the log cannot be written.
    """
    layout = Layout(output_dir)
    log = open_log(layout)
    streams, problems = readable(log)
    plans = sorted({*streams, *problems})
    if not plans or (plan_id and plan_id not in plans):
        asked = f"plan {plan_id}" if plan_id else "plans"
        raise SettingsError(
            f"no {asked} in {log.location} (setting output_dir, flag --output-dir); known plans: "
            f"{', '.join(plans) or 'none'}"
        )
    if plan_id in problems:
        raise problems[plan_id]
    written = []
    history = _History(streams, problems)
    fleet = FleetHistory(streams, problems)
    for chosen in [plan_id] if plan_id else list(streams):
        try:
            streams[chosen] = _with_recommendation(layout, log, history, chosen)
            written += rebuild(output_dir, chosen, streams, fleet)
        except EventLogError as error:
            if plan_id:
                raise
            problems[chosen] = error
    return written + write_configs(output_dir, streams.values()), problems


class _History:
    """What plans measured, folded when it is first asked for: most calls only rebuild files.

    Args:
        streams: The events of all plans.
        problems: Told why a plan is left out.
    """

    def __init__(self, streams: dict[str, list[Event]], problems: dict[str, EventLogError]) -> None:
        self.streams, self._problems = streams, problems
        self._records: dict[tuple[str, int], PlanRecord | None] = {}

    def before(self, plan: PlanRecord) -> list[PlanRecord]:
        """Plans on the same device that had ended when this one ended, oldest first."""
        records = filter(None, map(self._record, self.streams))
        earlier = [
            record
            for record in records
            if record.device_name == plan.device_name
            and record.plan_id != plan.plan_id
            and record.ended_s <= plan.ended_s
        ]
        return sorted(earlier, key=lambda record: (record.began_s, record.plan_id))

    def _record(self, plan_id: str) -> PlanRecord | None:
        # One whose advice was only just written counts with it: it is looked up again.
        num = len(self.streams[plan_id])
        if (plan_id, num) not in self._records:
            try:
                self._records[plan_id, num] = record_plan(self.streams[plan_id])
            except EventLogError as error:
                self._records[plan_id, num] = None
                self._problems[plan_id] = error
        return self._records[plan_id, num]


def _with_recommendation(layout: Layout, log: EventLog, history: _History, plan_id: str) -> list[Event]:
    """The plan's events, with the recommendation that its end is due: one, whoever else analyzes it."""
    events = history.streams[plan_id]
    while _is_due(events):
        learned = [to_event(plan_id, fact) for fact in _learned(layout, history, plan_id, events)]
        try:
            events = events + log.append(learned, expected_position=events[-1].position)
        except ConcurrencyError:
            events = log.read(plan_id)
            continue
        for event in learned:
            log_progress(to_fact(event))
    return events


def _learned(layout: Layout, history: _History, plan_id: str, events: list[Event]) -> list[Fact]:
    """What recommendations the plan went by came to, and what is recommended after it."""
    plan = record_plan(events)
    if plan is None:
        raise DamagedLogError(
            f"plan {plan_id} does not say what it set out to do: its first event is missing"
        )
    before = history.before(plan)
    judged = judge([*before, plan])
    plan = replace(plan, judged=(*plan.judged, *judged))
    telemetry, bottlenecks = reduce_telemetry(
        fetched_telemetry(layout, plan_id),
        plan_id,
        lambda samples: (summarize(samples), fold_bottlenecks(events, samples)),
    )
    settings = PLAN_STATE.fold(events).settings_in(layout.root)
    for found in bottlenecks:
        log_bottleneck(found)
    evidence = gather(plan, before, telemetry, settings, bottlenecks)
    return [*judged, recommend(evidence)]


def _is_due(events: list[Event]) -> bool:
    """Whether the plan has done something and ended since its last recommendation."""
    types = [event.type for event in events]
    ends = [i for i, name in enumerate(types) if name == PlanFinished.TYPE]
    return bool(ends) and PhaseFinished.TYPE in types and ConfigRecommended.TYPE not in types[ends[-1] :]
