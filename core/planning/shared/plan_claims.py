"""The right to carry out a plan, where machines share its storage: one process at a time has it.

Chains are claimed one by one (``core.planning.shared.claims``). This keeps a second machine from going
through the same plan beside the first, and from ending it while the first is at it.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from core.errors import EventLogError, LeaseHeldError, LeaseLostError
from core.events.leases import Lease, Leases, Sign, last_sign, renewing
from core.events.open import attempt, is_shared, open_store
from settings.layout import Layout

_LOG = logging.getLogger(__name__)


@contextmanager
def plan_claimed(layout: Layout, plan_id: str, lease_s: float) -> Iterator[Callable[[], None]]:
    """Be the one who carries out a plan; yields a check that it is still so.

    Where nothing is shared, the lock of the output directory does it (``core.planning.shared.lock``).

    Args:
        layout: The output directory.
        plan_id: The plan.
        lease_s: How long others wait for a sign of life, seconds.

    Raises:
        LeaseHeldError: Another process carries it out.
        LeaseLostError: Another took it over; raised by the check.
        EventLogError: The storage cannot be read or written.
    """
    if not is_shared(layout):
        yield lambda: None
        return

    def say(sign: Sign) -> None:
        _LOG.warning(
            "plan %s: %s carries it out; waiting for a sign of life, %g s at most",
            plan_id, sign.holder, sign.lease_s,
        )  # fmt: skip

    try:
        lease = Leases(open_store(layout, "leases")).take(_name(plan_id), plan_id, lease_s, say)
    except LeaseHeldError as error:
        raise LeaseHeldError(
            error.holder,
            error.purpose,
            f"{error.holder} (host, process, token) is carrying out plan {plan_id}: wait for it, or stop "
            "that process and try again",
        ) from error
    try:
        with renewing(lease, lambda: None, lambda: None):
            yield lambda: _require(lease, plan_id)
    finally:
        try:
            lease.give_back()
        except (OSError, EventLogError, LeaseLostError) as error:  # it runs out, or did
            _LOG.warning("plan %s: %s", plan_id, error)


def is_carried_out(layout: Layout, plan_id: str) -> bool:
    """Whether a process on any machine that shares the storage carries out a plan, as far as can be seen.

    One on another machine that was lost counts until somebody takes the plan up.

    Raises:
        EventLogError: The storage cannot be read.
    """
    if not is_shared(layout):
        return False
    store = open_store(layout, "leases")
    last = attempt(store, lambda: last_sign(store, _name(plan_id)))
    return last is not None and not last[1].is_free


def _require(lease: Lease, plan_id: str) -> None:
    if lease.clock() < lease.held_until:
        return
    try:
        lease.renew()
    except LeaseLostError as error:
        raise LeaseLostError(
            f"plan {plan_id}: this process gave no sign of life for too long, and another carries the plan "
            f"out by now ({error})"
        ) from error
    except OSError as error:
        raise EventLogError(
            f"cannot renew the lease of plan {plan_id} in {lease.store.location}: {error}"
        ) from error


def _name(plan_id: str) -> str:
    """No dataset can have such a name."""
    return f"plan,{plan_id}"
