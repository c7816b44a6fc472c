"""Names, tags and artifact keys by which a person finds things in the Prefect UI."""

import hashlib
import re
from collections.abc import Collection

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from core.planning.live.progress import LOG


def artifact_key(kind: str, name: str) -> str:
    """The key of an artifact: lower case, digits and dashes, never shared by different names.

    ``metrics``, ``hcrl_ch`` give ``metrics-hcrl-ch``; a name that has more in it than lower case, digits and
    single underscores gets some of its digest behind two dashes.

    Args:
        kind: What it shows; a key in itself.
        name: Of a dataset or device.
    """
    return f"{kind}-{_slug(name)}"


def _slug(name: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if slug.replace("-", "_") == name:
        return slug
    return f"{slug}--{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}".lstrip("-")


def plan_tags(plan_id: str, device_name: str) -> tuple[str, str]:
    """Tags of every flow run and task run of a plan."""
    return f"plan:{plan_id}", f"device:{device_name}"


def dataset_tag(dataset: str) -> str:
    """Tag of every flow run and task run that works on a dataset."""
    return f"dataset:{dataset}"


def label_flow_run(name: str, tags: Collection[str]) -> None:
    """Name and tag the flow run at hand by what it turned out to be; one that cannot be named still runs.

    Args:
        name: Its name from now on.
        tags: Besides those it has.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run(context.flow_run.id, name=name, tags={*context.flow_run.tags, *tags})
    except Exception as error:  # noqa: BLE001 - names are for people, the work goes on without
        LOG.warning("the flow run cannot be named %s: %s", name, error, exc_info=True)
