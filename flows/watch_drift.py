"""The watch on drift: a flow that tells Prefect of datasets whose recent traffic scores otherwise now."""

from typing import Any

from prefect import State, flow
from prefect.artifacts import create_markdown_artifact

from core.analytics.drift_markdown import drift_markdown
from core.analytics.markdown import plain
from core.events.open import bind_storage
from core.planning.live.progress import LOG
from core.planning.sensors.drift import DriftMemory, DriftSeen, look_for_drift, watched_datasets
from flows.parameters import Datasets, File
from settings.app import load_settings
from tasks.domain_events import drift_found, tell
from tasks.logs import run_identified, shown_in_ui
from tasks.naming import artifact_key
from tasks.schedule import wait_for_turn


@flow(name="watch-drift", flow_run_name="watch-drift")
def watch_drift(datasets: Datasets = (), config: File = None) -> list[str] | State[Any]:
    """Score each dataset's recent traffic with its champion, and compare the scores with validation's.

    Recent traffic lies in the folder `drift.recent_dir` of the settings, a folder for each dataset. Where
    scores have drifted, Prefect is told `can-retrain.drift.found`, once for the captures that the models were
    trained on; an automation retrains them. Each look is an artifact, `drift-{dataset}`.

    Args:
        datasets: Names of datasets; only these are looked at. Empty: all with recent traffic.
        config: Settings file (YAML) on the machine that looks. None: the defaults and the environment
            variables of its worker.

    Returns:
        Names of the datasets that were told; the state `Skipped` where a newer look is due as well.

    Raises:
        SettingsError: Bad settings, or an unknown dataset.
    """
    if skipped := wait_for_turn(0):
        return skipped
    settings = load_settings(config)
    settings = settings.model_copy(update={"data": settings.data.absolute()})
    layout = bind_storage(settings)
    told = []
    with run_identified(), shown_in_ui():
        if settings.drift.recent_dir is None:
            LOG.info("drift is not looked for: drift.recent_dir is not set")
        for dataset in watched_datasets(settings, datasets):
            memory = DriftMemory.read(layout, dataset)
            found = look_for_drift(settings, dataset, memory.told)
            say = LOG.warning if found.status in ("drifted", "failed") else LOG.info
            say("%s: scores of recent traffic: %s: %s", dataset, found.status, found.reason)
            if found.status == "drifted":
                tell(drift_found(dataset, _numbers(found)))
                told.append(dataset)
            memory.remember(found)
            _publish(found)
    return told


def _numbers(found: DriftSeen) -> dict[str, float | int | str]:
    drift, version = found.drift, found.version
    if drift is None or version is None:
        return {}
    return {
        "psi": round(drift.psi, 4),
        "p_value": drift.p_value,
        "num_windows": drift.num_windows,
        "alarm_share": round(drift.alarm_share, 4),
        "version": version.number,
        "data_digest": version.data_digest,
    }


def _publish(found: DriftSeen) -> None:
    version = found.version
    model = f"fusion version {version.number} ({version.role or 'superseded'})" if version else "no model"
    create_markdown_artifact(
        drift_markdown(found.dataset, found.status, found.reason, model, found.drift),
        key=artifact_key("drift", found.dataset),
        description=plain(f"{found.dataset}: {found.status}. {found.reason}"),
    )
