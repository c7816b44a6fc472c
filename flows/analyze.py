"""Dashboards and recommendations from the log: the flow, and the command ``python -m flows.analyze``."""

import sys

if __name__ == "__main__":  # files need no Prefect; the flow adds artifacts and MLflow
    from flows.cli import analyze_command

    sys.exit(analyze_command())

from pathlib import Path

from prefect import flow

from core.events.log import EventLog
from settings.app import load_settings
from settings.layout import Layout
from settings.tracking import TrackingSettings
from tasks.publish import publish_artifacts, update_mlflow, write_projections


@flow(name="analyze")
def analyze(
    output_dir: Path | None = None, plan_id: str | None = None, tracking: TrackingSettings | None = None
) -> str:
    """Rebuild every projection of a plan and publish it.

    Args:
        output_dir: The plan's output directory; None for that of the settings.
        plan_id: The plan; None for the newest.
        tracking: Where MLflow is; None for what the settings say.

    Returns:
        The plan's id.

    Raises:
        SettingsError: There is no such plan.
    """
    settings = load_settings()
    output_dir, tracking = output_dir or settings.output_dir, tracking or settings.tracking
    chosen = plan_id or max(EventLog(Layout(output_dir).events).streams(), default="")
    write_projections(output_dir, chosen)
    publish_artifacts(output_dir, chosen)
    if tracking.mlflow:  # MLflow away fails its task, visibly, and nothing else; the next call catches up
        update_mlflow(output_dir, chosen, tracking, return_state=True)
    return chosen
