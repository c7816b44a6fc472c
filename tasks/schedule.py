"""Runs that nobody began by hand: which of several does the work, and when.

Of runs that a schedule began, missed ones are coalesced, and those of a fleet do not all begin at once. Of
runs that automations began for the same cause, the first does the work: Prefect acts at least once, and on a
busy server several times. Runs that a person or a command began are left alone.
"""

import hashlib
import socket
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext
from prefect.states import Completed

SKIPPED = "Skipped"
"""Name of the state of a run that another one made needless."""
_BEGUN = {StateType.PENDING, StateType.RUNNING}
_AUTOMATION = "AUTOMATION"
"""Type of what began a run."""
# By state, not by time: the server's clock says what is due, whatever that of this machine says.
_DUE = {"Late", "AwaitingConcurrencySlot"}


def wait_for_turn(start_jitter_s: float, cause: str | None = None) -> State[Any] | None:
    """Let a scheduled run wait a little, or end at once because another run does the work.

    With its worker away for days, a deployment has a run for each night: only the newest does the work, the
    others end as ``Skipped``, as does all but the first of those that automations began for one event. The
    wait comes before anything is opened, held or computed.

    Args:
        start_jitter_s: Most seconds to wait, see `start_delay_s`; 0 waits not at all.
        cause: Id of the event that an automation began the run for.

    Returns:
        The state to end with; None where the work is to be done.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    # A run that is begun again, by a person or after a crash, has waited already.
    if run is None or not run.deployment_id or run.run_count > 1:
        return None
    if cause and (first := _first_for_cause(run, run.deployment_id)):
        return _skipped(f"run {first.id} was begun for the same cause")
    if not run.auto_scheduled:
        return None
    if newer := _coalesce(run, run.deployment_id):
        return _superseded(newer)
    if run.expected_start_time and start_jitter_s:
        host = socket.gethostname()
        delay_s = start_delay_s(run.deployment_id, host, run.expected_start_time, start_jitter_s)
        get_run_logger().info(
            "begins in %.0f s, so that a fleet does not begin at once (start_jitter_s)", delay_s
        )
        time.sleep(delay_s)
    return None


def start_delay_s(deployment_id: UUID, host: str, scheduled: datetime, most_s: float) -> float:
    """How long a scheduled run waits: the same for the same run on the same host, spread evenly over others.

    Args:
        deployment_id: Whose run it is.
        host: Where it runs.
        scheduled: When it was due.
        most_s: Upper bound, seconds.

    Returns:
        Seconds, at least 0 and less than ``most_s``.
    """
    name = f"{deployment_id} {host} {scheduled.timestamp():.0f}"
    digest = hashlib.sha256(name.encode()).digest()
    return most_s * int.from_bytes(digest[:4], "big") / 2**32


def newest_due(runs: Sequence[FlowRun], run: FlowRun) -> FlowRun:
    """The newest run of the same schedule that is due or has begun, perhaps the one at hand.

    Args:
        runs: Unfinished runs of the deployment.
        run: The one at hand.
    """
    return max([run, *_missed(runs, run)], key=_due_at)


def first_for_cause(runs: Sequence[FlowRun], run: FlowRun) -> FlowRun:
    """The run that an automation began first for the same cause, perhaps the one at hand.

    Args:
        runs: Runs of the deployment.
        run: The one at hand.
    """
    if not run.created_by or run.created_by.type != _AUTOMATION:
        return run
    same = [
        other
        for other in runs
        if other.created_by == run.created_by and other.parameters.get("cause") == run.parameters.get("cause")
    ]
    return min([run, *same], key=_created_at)


def _created_at(run: FlowRun) -> tuple[float, str]:
    return run.created.timestamp() if run.created else 0.0, str(run.id)


def _missed(runs: Sequence[FlowRun], run: FlowRun) -> list[FlowRun]:
    """Other runs of the same schedule that are due or have begun."""
    return [
        other
        for other in runs
        if other.id != run.id
        and other.auto_scheduled
        and other.created_by == run.created_by
        and other.state
        and (other.state.type in _BEGUN or other.state.name in _DUE)
    ]


def _due_at(run: FlowRun) -> tuple[float, str]:
    return run.expected_start_time.timestamp() if run.expected_start_time else 0.0, str(run.id)


def _first_for_cause(run: FlowRun, deployment_id: UUID) -> FlowRun | None:
    """The run that was begun first for the same cause, if it is not the one at hand."""
    try:
        with get_client(sync_client=True) as client:
            first = first_for_cause(_runs(client, deployment_id), run)
    except Exception as error:  # noqa: BLE001 - a run too many does no harm, none at all does
        get_run_logger().warning("other runs for the same cause are not known: %s", error, exc_info=True)
        return None
    return first if first.id != run.id else None


def _coalesce(run: FlowRun, deployment_id: UUID) -> FlowRun | None:
    """End every missed run but the newest.

    Returns:
        The newest, if it is not the one at hand.
    """
    try:
        with get_client(sync_client=True) as client:
            runs = _runs(client, deployment_id, StateType.SCHEDULED, *_BEGUN)
            newest = newest_due(runs, run)
            for other in _missed(runs, run):
                if other.id != newest.id and other.state and other.state.type == StateType.SCHEDULED:
                    client.set_flow_run_state(other.id, _superseded(newest))
    except Exception as error:  # noqa: BLE001 - a run too many does no harm, none at all does
        get_run_logger().warning("missed runs are not coalesced: %s", error, exc_info=True)
        return None
    return newest if newest.id != run.id else None


def _runs(client: SyncPrefectClient, deployment_id: UUID, *states: StateType) -> list[FlowRun]:
    """Runs of a deployment in some states, or in any; the newest 200."""
    chosen = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment_id]))
    if states:
        chosen.state = FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states)))
    return client.read_flow_runs(flow_run_filter=chosen, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=200)


def _superseded(newer: FlowRun) -> State[Any]:
    return _skipped(f"the run that was due at {newer.expected_start_time} does the work")


def _skipped(reason: str) -> State[Any]:
    return Completed(name=SKIPPED, message=f"not needed: {reason}")
