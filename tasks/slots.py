"""Slots of Prefect's global concurrency limits, leased: whoever is lost holds them no longer than a lease.

Prefect's own ``concurrency`` gives a lease up after three renewals that failed, and ends the work or lets
others have its slots. Here a lease is renewed for as long as it takes: a server that is away grants nothing
to anybody meanwhile, and training goes on. Only when the server is back and has given the slots to others,
and there are none left, is the holder told.
"""

import threading
from collections.abc import Callable, Collection
from contextvars import copy_context
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.exceptions import ObjectNotFound

from core.planning.admission import LEASE_S
from core.planning.live.progress import LOG
from settings.errors import RetrainError

_RENEW_S, _RETRY_S = LEASE_S / 4, 2.0
_NOT_FREE, _GONE = 423, 410


class PrefectLimits:
    """The limits of the Prefect API, for one who waits.

    Args:
        client: Of the API.
        task_run_id: Who holds slots, as the UI shows it; None for nobody it knows.
        on_lost: Called from a thread when slots that were held are another's.
    """

    def __init__(
        self, client: SyncPrefectClient, task_run_id: UUID | None, on_lost: Callable[[], None]
    ) -> None:
        self._client, self._on_lost = client, on_lost
        self._holder = ConcurrencyLeaseHolder(type="task_run", id=task_run_id) if task_run_id else None

    def capacities(self, limits: Collection[str]) -> dict[str, int]:
        """Slots of each limit.

        Raises:
            RetrainError: One is missing.
        """
        return {name: self._read(name)[0] for name in limits}

    def free(self, limit: str) -> int:
        """Slots that nobody holds at the moment; errors as of ``capacities``."""
        slots, active = self._read(limit)
        return slots - active

    def take(self, limit: str, slots: int) -> "HeldSlots | None":
        """Hold slots until they are given back; None where they are not free.

        Raises:
            RetrainError: The limit is missing.
        """
        lease_id = _lease(self._client, limit, slots, self._holder)
        if lease_id is None:
            return None
        return HeldSlots(limit, slots, lease_id, self._holder, self._on_lost)

    def _read(self, limit: str) -> tuple[int, int]:
        try:
            found = self._client.read_global_concurrency_limit_by_name(limit)
        except ObjectNotFound as error:
            raise _missing(limit) from error
        return found.limit, found.active_slots


class HeldSlots:
    """Slots that are held, and renewed from a thread of their own.

    Args:
        limit: The limit.
        slots: How many.
        lease_id: Their lease.
        holder: As the UI shows it.
        on_lost: Called from the thread when they are another's.
    """

    def __init__(
        self,
        limit: str,
        slots: int,
        lease_id: UUID,
        holder: ConcurrencyLeaseHolder | None,
        on_lost: Callable[[], None],
    ) -> None:
        self._limit, self._slots, self._lease_id = limit, slots, lease_id
        self._holder, self._on_lost = holder, on_lost
        self._ended = threading.Event()
        # Its own copy of the context: settings and the ids of log records are in it.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._renew,), name=f"slots-{limit}", daemon=True
        )
        self._thread.start()

    def give_back(self) -> None:
        """Let go of them; where the server does not answer they are free when their lease has run out."""
        self._ended.set()
        self._thread.join(LEASE_S)
        try:
            with get_client(sync_client=True) as client:
                client.release_concurrency_slots_with_lease(lease_id=self._lease_id)
        except httpx.HTTPError as error:
            LOG.warning("slots of %s cannot be given back, and are free in a minute: %s", self._limit, error)

    def _renew(self) -> None:
        wait_s, warned = _RENEW_S, False
        with get_client(sync_client=True) as client:
            while not self._ended.wait(wait_s):
                try:
                    client.renew_concurrency_lease(lease_id=self._lease_id, lease_duration=LEASE_S)
                except httpx.HTTPError as error:
                    if _status(error) == _GONE and not self._take_again(client):
                        return
                    if not warned and _status(error) != _GONE:
                        LOG.warning("the slots of %s cannot be renewed, trying again: %s", self._limit, error)
                    wait_s, warned = _RETRY_S, True
                else:
                    wait_s, warned = _RENEW_S, False

    def _take_again(self, client: SyncPrefectClient) -> bool:
        """Hold other slots instead of those that are gone; tell the holder where there are none."""
        try:
            lease_id = _lease(client, self._limit, self._slots, self._holder)
        except httpx.HTTPError:
            return True  # the server is away again
        except RetrainError:
            lease_id = None
        if lease_id is None:
            LOG.error("the slots of %s were given to others while the server was away", self._limit)
            self._on_lost()
            return False
        self._lease_id = lease_id
        return True


def _lease(
    client: SyncPrefectClient, limit: str, slots: int, holder: ConcurrencyLeaseHolder | None
) -> UUID | None:
    try:
        answer = client.increment_concurrency_slots_with_lease([limit], slots, "concurrency", LEASE_S, holder)
    except httpx.HTTPStatusError as error:
        if error.response.status_code == _NOT_FREE:
            return None
        raise
    granted = answer.json()
    if not granted["limits"]:
        raise _missing(limit)
    return UUID(granted["lease_id"])


def _missing(limit: str) -> RetrainError:
    return RetrainError(
        f"the Prefect API has no concurrency limit {limit}: run `python -m deployments.apply --machine` on "
        "the machine that trains, once, and again whenever its GPUs change"
    )


def is_away(error: httpx.HTTPError) -> bool:
    """Whether the server may answer later: it is not there, or in trouble."""
    status = _status(error)
    return status is None or status >= 500


def _status(error: httpx.HTTPError) -> int | None:
    return error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
