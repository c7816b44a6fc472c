"""After a plan: recommend settings for the next one, and rebuild every projection."""

from pathlib import Path

from core.analytics.projections import rebuild
from core.analytics.recommendations import recommend
from core.analytics.telemetry import summarize
from core.events.catalogue import ConfigRecommended, PlanCreated, PlanFinished, to_event, to_fact
from core.events.event import Event
from core.events.log import EventLog
from core.events.telemetry import read_telemetry
from settings.app import Settings
from settings.errors import SettingsError
from settings.layout import Layout


def analyze_plan(output_dir: Path, plan_id: str | None = None) -> tuple[str, list[Path]]:
    """Add a recommendation to the log if the plan's end has none yet, then rebuild the plan's projections.

    Args:
        output_dir: The plan's output directory.
        plan_id: The plan; None for the newest.

    Returns:
        The plan's id and the files written.

    Raises:
        SettingsError: There is no such plan.
    """
    layout = Layout(output_dir)
    log = EventLog(layout.events)
    plans = log.streams()
    chosen = plan_id or (plans[-1] if plans else "")
    if chosen not in plans:
        raise SettingsError(
            f"no plan {chosen} in {log.root}; known plans: {', '.join(plans) or 'none'} (setting output_dir, "
            "flag --output-dir)"
        )
    events = log.read(chosen)
    if _is_due(events):
        created = next(fact for e in events if isinstance(fact := to_fact(e), PlanCreated))
        settings = Settings(**created.settings)
        telemetry = summarize(read_telemetry(layout.telemetry, chosen))
        fact = recommend(events, telemetry, created.machine, settings)
        events += log.append([to_event(chosen, fact)])
    return chosen, rebuild(output_dir, chosen, events)


def _is_due(events: list[Event]) -> bool:
    """Whether the plan has ended since the last recommendation."""
    types = [event.type for event in events]
    ends = [i for i, name in enumerate(types) if name == PlanFinished.TYPE]
    return bool(ends) and ConfigRecommended.TYPE not in types[ends[-1] :]
