"""Waits for slots of a limit as a phase does, says so, and holds them until it is told to go on or is killed.

::

    python -m tests.slot_holder LIMIT SLOTS [--priority]

Prints ``granted`` when it has them; ends when its standard input is closed.
"""

import sys

from prefect.client.orchestration import get_client

from core.planning.admission import Request, Waiter
from tasks.admission import wait_for_room
from tasks.slots import PrefectLimits


def main() -> None:
    limit, slots = sys.argv[1], int(sys.argv[2])
    with get_client(sync_client=True) as client:
        limits = PrefectLimits(client, None, on_lost=lambda: print("lost", flush=True))
        requests = [Request(limit, slots)]
        waiter = Waiter(limits, requests, "--priority" in sys.argv, 3600.0)
        _, held, _ = wait_for_room(waiter, requests, "a test")
        print("granted", flush=True)
        sys.stdin.read()
        held.give_back()


if __name__ == "__main__":
    main()
