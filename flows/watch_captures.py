"""The sensor of captures: a flow that tells Prefect of datasets whose captures have changed."""

import time
from functools import partial
from typing import Annotated, Any

from prefect import State, flow
from prefect.artifacts import create_table_artifact
from pydantic import Field

from core.analytics.markdown import plain
from core.events.open import bind_storage
from core.planning.live.progress import LOG
from core.planning.sensors.captures import CaptureMemory, Watched, is_at_work, look_at_captures
from flows.parameters import Datasets, File
from settings.app import load_settings
from tasks.domain_events import DiskWatch, captures_changed, tell
from tasks.logs import run_identified, shown_in_ui
from tasks.schedule import wait_for_turn

_QUIET = ("unchanged", "told")


@flow(name="watch-captures", flow_run_name="watch-captures")
def watch_captures(
    datasets: Datasets = (), settle_s: Annotated[float, Field(ge=0, le=3600)] = 30.0, config: File = None
) -> list[str] | State[Any]:
    """Compare the captures of each dataset with those that its models were trained on; nothing is trained.

    A dataset with other captures, or one that was never trained, is told to Prefect as
    `can-retrain.captures.changed`, once for the same captures; an automation retrains it. Captures that are
    still being written are left for the next look, as are those of a dataset that is being trained.

    Args:
        datasets: Names of datasets; only these are looked at. Empty: your own, and those that are there,
            without `demo`.
        settle_s: Seconds that new captures must stay as they are before they count.
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
    with run_identified(), shown_in_ui():
        DiskWatch(layout.root).look()
        memory = CaptureMemory.read(layout)
        found = look_at_captures(
            settings, memory, datasets, partial(time.sleep, settle_s), partial(is_at_work, layout)
        )
        memory.write()
        for dataset in found:
            _say(dataset)
            if dataset.status == "changed":
                tell(captures_changed(dataset.dataset, dataset.data_digest, dataset.num_captures))
                memory.remember_told(dataset)
        _publish(found)
    return [dataset.dataset for dataset in found if dataset.status == "changed"]


def _say(found: Watched) -> None:
    say = LOG.warning if found.status == "unreadable" else LOG.debug if found.status in _QUIET else LOG.info
    say("%s: captures %s: %s", found.dataset, found.status, found.reason)


def _publish(found: list[Watched]) -> None:
    rows = [
        {
            "dataset": plain(dataset.dataset),
            "captures": dataset.status,
            "why": plain(dataset.reason),
            "number": dataset.num_captures,
        }
        for dataset in found
    ]
    create_table_artifact(rows, key="watched-captures", description="Captures of datasets, as last seen.")
