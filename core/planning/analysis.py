"""After a plan: recommend settings for the next one, and rebuild every projection."""

from pathlib import Path

from core.analytics.projections import rebuild, write_configs
from core.analytics.recommendations import recommend
from core.analytics.telemetry import summarize
from core.events.catalogue import (
    ConfigRecommended,
    PhaseFinished,
    PlanCreated,
    PlanFinished,
    to_event,
    to_fact,
)
from core.events.event import Event
from core.events.log import EventLog
from core.events.telemetry import read_telemetry
from core.planning.plan_state import PLAN_STATE
from settings.errors import SettingsError
from settings.layout import Layout


def analyze_plans(output_dir: Path, plan_id: str | None = None) -> list[Path]:
    """Add a recommendation to the log of each plan whose end has none yet, then rebuild the projections.

    Args:
        output_dir: The plans' output directory.
        plan_id: Only this plan; None for all of them.

    Returns:
        The files written.

    Raises:
        SettingsError: There is no such plan, or none at all.
        EventLogError: The log cannot be read.
    """
    layout = Layout(output_dir)
    log = EventLog(layout.events)
    plans = log.streams()
    if not plans or (plan_id and plan_id not in plans):
        asked = f"plan {plan_id}" if plan_id else "plans"
        raise SettingsError(
            f"no {asked} in {log.location} (setting output_dir, flag --output-dir); known plans: "
            f"{', '.join(plans) or 'none'}"
        )
    written = []
    for chosen in [plan_id] if plan_id else plans:
        events = log.read(chosen)
        if _is_due(events):
            events += log.append([to_event(chosen, _recommend(layout, chosen, events))])
        written += rebuild(output_dir, chosen, events)
    return written + write_configs(output_dir, (log.read(plan) for plan in plans))


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
