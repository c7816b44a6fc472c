"""After a plan: recommend settings for the next one, and rebuild every projection."""

from pathlib import Path

from core.analytics.projections import rebuild, write_configs
from core.analytics.recommendations import recommend
from core.analytics.telemetry import summarize
from core.errors import ConcurrencyError, EventLogError
from core.events.catalogue import (
    PhaseFinished,
    PlanCreated,
    PlanFinished,
    to_event,
    to_fact,
)
from core.events.event import Event
from core.events.log import EventLog
from core.events.resource_facts import ConfigRecommended
from core.events.telemetry import read_telemetry
from core.planning.audit import readable
from core.planning.plan_state import PLAN_STATE
from settings.errors import SettingsError
from settings.layout import Layout


def analyze_plans(
    output_dir: Path, plan_id: str | None = None
) -> tuple[list[Path], dict[str, EventLogError]]:
    """Add a recommendation to the log of each plan whose end has none yet, then rebuild the projections.

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
    log = EventLog(layout.events)
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
    for chosen in [plan_id] if plan_id else streams:
        try:
            streams[chosen] = _with_recommendation(layout, log, chosen, streams[chosen])
            written += rebuild(output_dir, chosen, streams[chosen])
        except EventLogError as error:
            if plan_id:
                raise
            problems[chosen] = error
    return written + write_configs(output_dir, streams.values()), problems


def _with_recommendation(layout: Layout, log: EventLog, plan_id: str, events: list[Event]) -> list[Event]:
    """The plan's events, with the recommendation that its end is due: one, whoever else analyzes it."""
    while _is_due(events):
        recommended = to_event(plan_id, _recommend(layout, plan_id, events))
        try:
            return events + log.append([recommended], expected_position=events[-1].position)
        except ConcurrencyError:
            events = log.read(plan_id)
    return events


def _recommend(layout: Layout, plan_id: str, events: list[Event]) -> ConfigRecommended:
    created = next(fact for e in events if isinstance(fact := to_fact(e), PlanCreated))
    settings = PLAN_STATE.fold(events).settings_in(layout.root)
    telemetry = summarize(read_telemetry(layout.telemetry, plan_id))
    return recommend(events, telemetry, created.machine, settings)


def _is_due(events: list[Event]) -> bool:
    """Whether the plan has done something and ended since its last recommendation."""
    types = [event.type for event in events]
    ends = [i for i, name in enumerate(types) if name == PlanFinished.TYPE]
    return bool(ends) and PhaseFinished.TYPE in types and ConfigRecommended.TYPE not in types[ends[-1] :]
