"""Dashboards and recommendations from the log: the flow, and the command ``python -m flows.analyze``."""

import sys

if __name__ == "__main__":  # files need no Prefect; the flow adds artifacts and MLflow
    from flows.cli import analyze_command

    sys.exit(analyze_command())

from prefect import flow, tags

from core.events.open import bind_storage, open_log
from core.resources.machine import probe_machine
from core.resources.profiles import fit_to_machine
from flows.parameters import EnvironmentChoice, File, PlanId
from settings.app import flag_overrides, load_settings
from settings.errors import SettingsError
from tasks.logs import run_logged
from tasks.naming import label_flow_run
from tasks.publish import publish_artifacts, update_mlflow, write_projections


@flow(name="analyze", flow_run_name="analyze")
def analyze(
    config: File = None,
    environment: EnvironmentChoice = None,
    output_dir: File = None,
    plan_id: PlanId | None = None,
) -> str:
    """Make results, dashboard and recommendations of a plan anew from its events, and publish them.

    Nothing is trained: what is shown follows from the event log alone, so it can be made again at any time.

    Args:
        config: Settings file (YAML) on the machine of the worker: where outputs, MLflow and dashboards are.
            None: the defaults and the environment variables of the worker.
        environment: What to fit settings to; with `ci` MLflow is left alone. None: as the settings say.
        output_dir: Folder of models, event log and dashboards. Wins over the settings file.
        plan_id: Id of the plan; the run `retrain-ID` has it in its name. None: the newest one.

    Returns:
        The plan's id.

    Raises:
        SettingsError: There is no such plan, or the output directory is bound to other storage.
    """
    settings = load_settings(config, **flag_overrides(None, output_dir, environment))
    tracking = fit_to_machine(settings, probe_machine()).tracking
    layout = bind_storage(settings)
    log = open_log(layout)
    chosen = plan_id or max(log.streams(), default="")
    if not chosen:
        raise SettingsError(f"no plans in {log.location} (setting output_dir)")
    label_flow_run(f"analyze-{chosen}", [f"plan:{chosen}"])
    with run_logged(layout, chosen), tags(f"plan:{chosen}"):
        write_projections(layout.root, chosen)
        publish_artifacts(layout.root, chosen, tracking.dashboards_url)
        if tracking.mlflow:  # MLflow away fails its task, visibly, and nothing else; the next call catches up
            update_mlflow(layout.root, chosen, tracking, return_state=True)
    return chosen
