"""Work pools and their queues as code: what ``prefect.yaml`` sends flow runs to."""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound

from deployments.changes import Change

_TEMPLATES = Path(__file__).parent / "templates"


class WorkPool(NamedTuple):
    """A work pool: where its flow runs run, and what each of them is given.

    Attributes:
        name: By which deployments and workers name it.
        type: Of its workers.
        description: For people, in the UI.
    """

    name: str
    type: str
    description: str

    def base_job_template(self) -> dict[str, Any]:
        """What a flow run is made of, with the variables that a deployment or a run may set."""
        return _template(self.type)


WORK_POOLS = (
    WorkPool("gpu", "process", "Retraining and chains of datasets, as processes on machines with GPUs."),
    WorkPool("cpu", "process", "Dashboards, sensors and maintenance, as processes; needs no GPU."),
    WorkPool("gpu-docker", "docker", "Chains of datasets, as containers that see a machine's GPUs."),
    WorkPool("gpu-kubernetes", "kubernetes", "Chains of datasets, as jobs of a cluster with GPU nodes."),
)
QUEUES = {"priority": 1, "default": 2}
"""Of every pool, with their priorities: all runs of a smaller number are begun first."""


@cache
def _template(kind: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((_TEMPLATES / f"{kind}.yaml").read_text(encoding="utf-8"))
    return loaded


def ensure_work_pools(client: SyncPrefectClient) -> list[Change]:
    """Make pools and queues that are missing, and let those that are there be as they are here.

    A pool's own concurrency limit, and whether it is paused, belong to those who operate it.

    Args:
        client: Of the Prefect API.

    Returns:
        What became of each.
    """
    return [change for pool in WORK_POOLS for change in (_pool(client, pool), *_queues(client, pool.name))]


def _pool(client: SyncPrefectClient, pool: WorkPool) -> Change:
    thing, template = f"work pool {pool.name}", pool.base_job_template()
    try:
        found = client.read_work_pool(pool.name)
    except ObjectNotFound:
        client.create_work_pool(
            WorkPoolCreate(
                name=pool.name, type=pool.type, description=pool.description, base_job_template=template
            )
        )
        return Change(thing, "made", pool.type)
    if found.type != pool.type:
        return Change(
            thing, "kept", f"it is of type {found.type}, ours would be {pool.type}: it is another's"
        )
    differing = [
        name
        for name, theirs, ours in (
            ("description", found.description, pool.description),
            ("base job template", found.base_job_template, template),
        )
        if theirs != ours
    ]
    if not differing:
        return Change(thing, "unchanged")
    client.update_work_pool(
        pool.name, WorkPoolUpdate(description=pool.description, base_job_template=template)
    )
    return Change(thing, "changed", ", ".join(differing))


def _queues(client: SyncPrefectClient, pool: str) -> list[Change]:
    changes = []
    # Smallest first: a queue that takes a number moves those that have it out of the way.
    for name, priority in sorted(QUEUES.items(), key=lambda queue: queue[1]):
        thing = f"work queue {pool}/{name}"
        try:
            found = client.read_work_queue_by_name(name, work_pool_name=pool)
        except ObjectNotFound:
            client.create_work_queue(name, priority=priority, work_pool_name=pool)
            changes.append(Change(thing, "made", f"priority {priority}"))
            continue
        if found.priority == priority:
            changes.append(Change(thing, "unchanged"))
            continue
        client.update_work_queue(found.id, priority=priority)
        changes.append(Change(thing, "changed", f"priority {found.priority} -> {priority}"))
    return changes
