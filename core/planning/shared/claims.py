"""The right to work on a dataset: one process at a time, over all plans that share a storage.

Two things keep others out. A *lease* (``core.events.leases``) says who lives: it is taken before anything is
done, and a training process lives only as long as it is renewed. The *log* says whose word counts: every
append of a chain goes right after what was seen, and is refused once another was seen to work on the dataset.
So whoever wakes up after another took over (a stopped process, a machine that was lost and is back) finds his
training dead and writes nothing more.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from core.errors import (
    ChainHeldError,
    ChainLostError,
    ConcurrencyError,
    EventLogError,
    LeaseHeldError,
    LeaseLostError,
)
from core.events.catalogue import ChainStarted, ChainStopped, Fact, to_event
from core.events.leases import Lease, Leases, Sign, last_sign, renewing
from core.events.log import EventLog
from core.events.open import open_store
from core.events.projection import Following
from core.planning.plan_state import PLAN_STATE, PlanState
from core.resources.process import TrainingProcess
from core.resources.process_state import kill_training
from settings.layout import Layout

_LOG = logging.getLogger(__name__)


@dataclass
class Claim:
    """A dataset that this process works on.

    Attributes:
        dataset: The dataset.
        holder: This process, as ``chain_started`` names it.
    """

    dataset: str
    holder: str
    _plan_id: str
    _plan: Following[PlanState]
    _lease: Lease
    _process: TrainingProcess
    _appending: threading.Lock = field(default_factory=threading.Lock)

    def append(self, fact: Fact) -> None:
        """Append a fact to the plan's stream, unless another works on the dataset by now.

        Raises:
            ChainLostError: Another does, or may; nothing was written.
            EventLogError: As in ``EventLog.append``.
        """
        event = to_event(self._plan_id, fact)
        with self._appending:
            self._require_lease()
            while True:
                if not isinstance(fact, ChainStarted):
                    self._require_named()
                try:
                    self._plan.append(event)
                except ConcurrencyError:
                    self._plan.state()
                else:
                    return

    def _require_lease(self) -> None:
        """Renew a lease that may have run out: this process was stopped, or cannot reach the storage."""
        if self._lease.clock() < self._lease.held_until:
            return
        try:
            self._lease.renew()
        except (LeaseLostError, EventLogError) as error:
            raise self._lost(str(error)) from error
        except OSError as error:
            place = self._lease.store.location
            raise self._lost(f"its lease in {place} cannot be renewed: {error}") from error
        self._process.allow_until(self._lease.held_until)

    def _require_named(self) -> None:
        who = self._plan.latest.open_chains.get(self.dataset)
        if who != self.holder:
            raise self._lost(f"{who} works on it" if who else "another process ended its work on it")

    def _lost(self, reason: str) -> ChainLostError:
        return ChainLostError(
            f"{self.dataset}: this process ({self.holder}) no longer holds the dataset: {reason}. It gave no "
            "sign of life for too long, and writes nothing more; the plan goes on with whoever holds it, or "
            f"with --resume {self._plan_id}"
        )


@contextmanager
def claimed(
    dataset: str,
    plan_id: str,
    plan: Following[PlanState],
    log: EventLog,
    layout: Layout,
    process: TrainingProcess,
    lease_s: float,
) -> Iterator[Claim]:
    """Hold a dataset for as long as the context lasts; then it is free at once.

    Args:
        dataset: The dataset.
        plan_id: The plan that it is worked on for.
        plan: That plan's state.
        log: Where that plan is.
        layout: The plan's output directory.
        process: The training process, which is allowed to live only as long as the lease does.
        lease_s: How long others wait for a sign of life, seconds.

    Raises:
        ChainHeldError: Another process works on the dataset.
        EventLogError: The storage cannot be read or written.
    """

    def say(sign: Sign) -> None:
        _LOG.warning(
            "%s: %s holds it for plan %s; waiting for a sign of life, %g s at most",
            dataset, sign.holder, sign.purpose, sign.lease_s,
        )  # fmt: skip

    try:
        lease = Leases(open_store(layout, "leases")).take(dataset, plan_id, lease_s, say)
    except LeaseHeldError as error:
        raise ChainHeldError(
            error.holder,
            error.purpose,
            f"{dataset}: {error.holder} (host, process, token) works on it for plan {error.purpose}: wait "
            f"for it, or stop that process and try again (python -m flows.retrain --resume {plan_id})",
        ) from error

    def allow() -> None:
        process.allow_until(lease.held_until)

    try:
        allow()
        with renewing(lease, allow, process.stop):
            if lease.before:
                _end_work_of(lease.before, dataset, plan_id, log, layout)
            yield Claim(dataset, str(lease.sign.holder), plan_id, plan, lease, process)
    finally:
        _give_back(lease)


def holders(layout: Layout, plan_id: str, state: PlanState) -> dict[str, str]:
    """Who works on each dataset of a plan now, as far as that can be seen from here.

    A process on another machine that was lost counts until somebody takes its work over.

    Raises:
        EventLogError: The storage cannot be read.
    """
    named = {dataset: who for dataset, who in state.open_chains.items() if who}
    if not named:
        return {}
    store = open_store(layout, "leases")
    try:
        signs = {dataset: last_sign(store, dataset) for dataset in named}
    except OSError as error:
        raise EventLogError(f"cannot read the leases in {store.location}: {error}") from error
    return {
        dataset: named[dataset]
        for dataset, last in signs.items()
        if last and last[1].purpose == plan_id and not last[1].is_free
    }


def _end_work_of(before: Sign, dataset: str, plan_id: str, log: EventLog, layout: Layout) -> None:
    """See that whoever held a dataset before neither trains nor commits anything any more."""
    if before.holder.is_near:
        kill_training(layout.process_logs, f"{before.purpose}-{dataset}")
    if before.purpose == plan_id:
        return  # the start of this chain says it
    holder = str(before.holder)
    stopped = ChainStopped(
        dataset=dataset, holder=holder, reason=f"no sign of life; taken over for plan {plan_id}"
    )
    event, plan = to_event(before.purpose, stopped), Following(log, before.purpose, PLAN_STATE)
    try:
        while plan.state().open_chains.get(dataset) == holder:
            try:
                plan.append(event)
            except ConcurrencyError:
                continue
    except EventLogError as error:  # its stream is damaged: then nobody can append to it
        _LOG.warning("%s: cannot tell plan %s that its work was ended: %s", dataset, before.purpose, error)


def _give_back(lease: Lease) -> None:
    try:
        lease.give_back()
    except LeaseLostError:
        _LOG.warning("%s: another process holds it by now", lease.name)
    except (OSError, EventLogError) as error:
        _LOG.warning("%s: it stays held until its lease runs out: %s", lease.name, error)
