"""Global concurrency limits of a machine: the slots of its GPUs' memory, and of its processors."""

from collections.abc import Mapping

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.exceptions import ObjectNotFound

from deployments.changes import Change, kept


def ensure_limits(client: SyncPrefectClient, limits: Mapping[str, int], reset: bool) -> list[Change]:
    """Make the limits that are missing; slots that someone set are theirs, and held slots are never touched.

    Args:
        client: Of the Prefect API.
        limits: Slots by name, as ``core.planning.admission.machine_limits`` gives them.
        reset: Give every limit our number of slots again.

    Returns:
        What became of each.
    """
    return [_ensure(client, name, slots, reset) for name, slots in limits.items()]


def _ensure(client: SyncPrefectClient, name: str, slots: int, reset: bool) -> Change:
    thing = f"limit {name}"
    try:
        found = client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=slots))
        return Change(thing, "made", f"{slots} slots")
    if found.limit == slots and found.active:
        return Change(thing, "unchanged")
    theirs = f"{found.limit} slots" + ("" if found.active else ", not active")
    if not reset:
        return kept(thing, theirs, f"{slots} slots")
    client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(limit=slots, active=True))
    return Change(thing, "changed", f"{theirs} -> {slots} slots")
