"""Dashboards and recommendations from the log: the flow, and the command ``python -m flows.analyze``."""

import sys

if __name__ == "__main__":  # files need no Prefect; the flow adds artifacts and MLflow
    from flows.cli import analyze_command

    sys.exit(analyze_command())

from pathlib import Path

from prefect import flow, tags

from core.events.open import bind_storage, open_log
from settings.app import load_settings
from settings.errors import SettingsError
from settings.layout import Layout
from settings.tracking import TrackingSettings
from tasks.logs import run_logged
from tasks.naming import label_flow_run
from tasks.publish import publish_artifacts, update_mlflow, write_projections


@flow(name="analyze", flow_run_name="analyze")
def analyze(
    output_dir: Path | None = None, plan_id: str | None = None, tracking: TrackingSettings | None = None
) -> str:
    """Make results, dashboard and recommendations of a plan anew from its events, and publish them.

    Nothing is trained: what is shown follows from the event log alone, so it can be made again at any time.

    Args:
        output_dir: Folder of the event log. Empty: that of the settings.
        plan_id: The plan. Empty: the newest one.
        tracking: Where MLflow is, and where dashboards are served. Empty: what the settings say.

    Returns:
        The plan's id.

    Raises:
        SettingsError: There is no such plan, or the output directory is bound to other storage.
    """
    settings = load_settings()
    output_dir, tracking = output_dir or settings.output_dir, tracking or settings.tracking
    log = open_log(bind_storage(settings.model_copy(update={"output_dir": output_dir})))
    chosen = plan_id or max(log.streams(), default="")
    if not chosen:
        raise SettingsError(f"no plans in {log.location} (setting output_dir)")
    label_flow_run(f"analyze-{chosen}", [f"plan:{chosen}"])
    with run_logged(Layout(output_dir), chosen), tags(f"plan:{chosen}"):
        write_projections(output_dir, chosen)
        publish_artifacts(output_dir, chosen, tracking.dashboards_url)
        if tracking.mlflow:  # MLflow away fails its task, visibly, and nothing else; the next call catches up
            update_mlflow(output_dir, chosen, tracking, return_state=True)
    return chosen
