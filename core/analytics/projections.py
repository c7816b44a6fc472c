"""The files that people open: written from the event log, so any of them can be deleted and written again."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from altair.utils.schemapi import debug_mode

from core.analytics.board import Dashboard, fold_dashboard
from core.analytics.canonical import to_json
from core.analytics.dashboard import render_html
from core.analytics.fleet import FleetHistory
from core.analytics.picture import render_png
from core.analytics.recommendations import config_yaml, device_slug
from core.analytics.results import RetrainingPlan, fold_plan
from core.events.event import Event
from core.events.files import replace_file
from core.events.resource_facts import ConfigRecommended
from core.events.shared_telemetry import fetched_telemetry
from core.events.telemetry import reduce_telemetry
from settings.layout import Layout


def rebuild(
    output_dir: Path,
    plan_id: str,
    streams: Mapping[str, Sequence[Event]],
    history: FleetHistory | None = None,
) -> list[Path]:
    """Write all projections of a plan; the same events and resource samples give the same bytes.

    Events that happened after the plan's last one change nothing, so it can be written again at any time.

    Args:
        output_dir: Where outputs go; its telemetry is read.
        plan_id: The plan.
        streams: The events of each plan, in order: the dashboard shows all plans.
        history: All plans, where projections of several are written; None to fold them for this one.

    Returns:
        The files written.

    Raises:
        EventLogError: Events or resource samples cannot be read.
        OSError: The folder cannot be written; a file is there whole or as it was.
    """
    layout = Layout(output_dir)
    dashboard = reduce_telemetry(
        fetched_telemetry(layout, plan_id),
        plan_id,
        lambda samples: fold_dashboard(plan_id, streams, samples, history),
    )
    plan = fold_plan(streams.get(plan_id, ()))
    with debug_mode(False):  # tests see that charts are valid: to check them takes as long as all else
        return [_write(path, content) for path, content in _projections(layout, dashboard, plan)]


def write_configs(output_dir: Path, streams: Iterable[Sequence[Event]]) -> list[Path]:
    """Write the newest recommendation for each device as a settings file.

    Args:
        output_dir: Where outputs go.
        streams: The events of all plans.

    Returns:
        The files written.
    """
    recommended = sorted(
        (event for events in streams for event in events if event.type == ConfigRecommended.TYPE),
        key=lambda event: event.occurred_at,
    )
    newest = {event.payload["device_name"]: event for event in recommended}
    return [
        _write(
            Layout(output_dir).generated_configs / f"{device_slug(device)}.yaml",
            config_yaml(ConfigRecommended(**event.payload), event.stream).encode(),
        )
        for device, event in sorted(newest.items())
    ]


def _projections(
    layout: Layout, dashboard: Dashboard, plan: RetrainingPlan | None
) -> Iterator[tuple[Path, bytes]]:
    plan_id = dashboard.results.plan_id
    if plan:
        yield layout.plan_file(plan_id, "plan.json"), to_json(plan)
    yield layout.plan_file(plan_id, "results.json"), to_json(dashboard.results)
    yield layout.plan_file(plan_id, "dashboard.html"), render_html(dashboard).encode()
    yield layout.plan_file(plan_id, "dashboard.png"), render_png(dashboard)


def _write(path: Path, content: bytes) -> Path:
    replace_file(path, content)
    return path
