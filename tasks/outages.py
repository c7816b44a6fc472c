"""Training outlasts Prefect's server, and its database: what cannot be told to them is done without them."""

from collections.abc import Callable
from typing import TypeVar

import httpx
from prefect.client.orchestration import get_client
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError

from core.logs import headline
from core.planning.live.progress import LOG
from tasks.slots import is_away

_T = TypeVar("_T")
_TIMEOUT_S = 10.0
"""How long a server may take to say that it is healthy: one that hangs would hold up every phase."""


def outlasting(run: Callable[[], _T], instead: Callable[[], _T], what: str) -> _T:
    """Do something by Prefect, or without it if its server is away or in trouble, or comes to be meanwhile.

    A server whose database is away still says that it is healthy.

    Args:
        run: What is done by Prefect.
        instead: Does what that has left undone; the event log knows what.
        what: Named in the log.

    Returns:
        What either of them returned.
    """
    reason: BaseException | None = _silence()
    if reason is None:
        try:
            return run()
        except httpx.HTTPError as error:
            if not is_away(error):
                raise
            reason = error
        except ConcurrencySlotAcquisitionError as error:  # of the tags of a task: said of any failure to ask
            reason = error.__cause__ or error
            if not (isinstance(reason, httpx.HTTPError) and is_away(reason)) and _silence() is None:
                raise
    LOG.warning(
        "%s goes on without Prefect, which will miss it: its API does not answer (%s)",
        what,
        headline(str(reason)) or type(reason).__name__,
    )
    return instead()


def _silence() -> Exception | None:
    """Why the Prefect API does not answer; None if it does."""
    with get_client(httpx_settings={"timeout": _TIMEOUT_S}, sync_client=True) as client:
        return client.api_healthcheck()
