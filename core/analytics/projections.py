"""The files that people open: written from the event log, so any of them can be deleted and written again."""

import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from core.analytics.board import fold_dashboard
from core.analytics.canonical import to_json
from core.analytics.dashboard import render_html
from core.analytics.picture import render_png
from core.analytics.recommendations import config_yaml, device_slug
from core.analytics.results import fold_plan
from core.events.catalogue import ConfigRecommended
from core.events.event import Event
from core.events.telemetry import read_telemetry
from settings.layout import Layout


def rebuild(output_dir: Path, plan_id: str, events: Sequence[Event]) -> list[Path]:
    """Write all projections of a plan; the same events and resource samples give the same bytes.

    A generated configuration is named by its device alone: of several plans the one rebuilt last stays, so
    rebuild plans in the order in which they ran.

    Args:
        output_dir: Where outputs go; its telemetry is read.
        plan_id: The plan.
        events: Its events, in order.

    Returns:
        The files written.

    Raises:
        EventLogError: Events or resource samples cannot be read.
        OSError: The folder cannot be written; a file is there whole or as it was.
    """
    layout = Layout(output_dir)
    return [_write(path, content) for path, content in _projections(layout, plan_id, events)]


def _projections(layout: Layout, plan_id: str, events: Sequence[Event]) -> Iterator[tuple[Path, bytes]]:
    if plan := fold_plan(events):
        yield layout.plan_file(plan_id, "plan.json"), to_json(plan)
    dashboard = fold_dashboard(plan_id, events, read_telemetry(layout.telemetry, plan_id))
    yield layout.plan_file(plan_id, "results.json"), to_json(dashboard.results)
    yield layout.plan_file(plan_id, "dashboard.html"), render_html(dashboard).encode()
    yield layout.plan_file(plan_id, "dashboard.png"), render_png(dashboard)
    if found := dashboard.results.recommendation:
        fact = ConfigRecommended(
            device_name=found.device_name, settings=found.settings, reasons=list(found.reasons)
        )
        name = f"{device_slug(fact.device_name)}.yaml"
        yield layout.generated_configs / name, config_yaml(fact, plan_id).encode()


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temp.write_bytes(content)
        temp.replace(path)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    return path
