"""Work pools as code: ``python -m deployments.work_pools`` makes those that ``prefect.yaml`` names.

Start a worker on each GPU machine with ``prefect worker start --pool gpu --limit 1``.
"""

import argparse

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound

WORK_POOLS = {
    "gpu": "Retraining on GPU machines; start each worker with --limit 1.",
    "cpu": "Dashboards and recommendations; needs no GPU.",
}


def ensure_work_pools(client: SyncPrefectClient) -> list[str]:
    """Make the process work pools that are missing; existing ones are left as they are.

    Args:
        client: Of the Prefect API.

    Returns:
        Names of the pools that were made.
    """
    made = []
    for name, description in WORK_POOLS.items():
        try:
            client.read_work_pool(name)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=name, type="process", description=description))
            made.append(name)
    return made


def main() -> None:
    """Make the pools of the configured Prefect API."""
    argparse.ArgumentParser(
        prog="python -m deployments.work_pools",
        description="Make the work pools `gpu` and `cpu` on the configured Prefect API (PREFECT_API_URL, "
        "profile), where they are missing.",
    ).parse_args()
    with get_client(sync_client=True) as client:
        made = ensure_work_pools(client)
    print(f"made work pools: {', '.join(made) or 'none, all are there'}")


if __name__ == "__main__":
    main()
