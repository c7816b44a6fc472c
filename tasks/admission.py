"""Admission of phases to GPUs and processors: ``core.planning.admission`` decides, Prefect counts slots."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import httpx
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext, TaskRunContext

from core.planning.admission import (
    Lease,
    Placement,
    Request,
    Waiter,
    cpu_request,
    limits_for,
    place,
    vram_request,
)
from core.planning.chain import Chain
from core.planning.live.decisions import duration
from core.planning.live.progress import LOG
from core.resources.machine import probe_machine
from settings.errors import RetrainError
from settings.scheduling import SchedulingSettings
from tasks.slots import PrefectLimits, is_away

_SAY_AGAIN_S, _RETRY_S = 300.0, 2.0
_T = TypeVar("_T")


def is_on_worker() -> bool:
    """Whether the flow run at hand is one of a deployment: others may run beside it on this machine."""
    context = FlowRunContext.get()
    return bool(context and context.flow_run and context.flow_run.deployment_id)


@contextmanager
def admitted(chain: Chain, phase: str, scheduling: SchedulingSettings) -> Iterator[Placement]:
    """Wait until there is room for a phase on this machine, and hold it for as long as the context lasts.

    Args:
        chain: The phase's chain.
        phase: The phase.
        scheduling: Of this machine.

    Yields:
        Where the phase is to run.

    Raises:
        RetrainError: A limit is missing, or the phase needs a GPU and this worker may use none.
    """
    task_run, what = TaskRunContext.get(), f"{chain.dataset}: {phase}"
    with get_client(sync_client=True) as client:
        limits = PrefectLimits(client, task_run.task_run.id if task_run else None, chain.stop_training)
        requests = _when_it_answers(partial(_requests, chain, phase, scheduling, limits), what)
        waiter = Waiter(limits, requests, chain.is_priority, scheduling.patience_s)
        try:
            request, slots, waited_s = wait_for_room(waiter, requests, what)
        finally:
            waiter.give_up()
    try:
        most_mib = chain.settings.resources.vram_limit_mib
        yield place(request, waited_s, scheduling, most_mib)
    finally:
        slots.give_back()


def _requests(
    chain: Chain, phase: str, scheduling: SchedulingSettings, limits: PrefectLimits
) -> list[Request]:
    settings = chain.settings
    places = limits_for(phase, settings.training, probe_machine(every_slice=True), scheduling)
    if not places:
        raise RetrainError(
            f"{chain.dataset}: {phase} is to train on a GPU (training.device), and this worker may use none: "
            "see that nvidia-smi lists one and CUDA_VISIBLE_DEVICES does not hide it"
        )
    capacities = limits.capacities(places)
    estimates = chain.estimates(phase)
    lacking_mib = chain.phase_state(phase).lacking_mib
    most_mib = settings.resources.vram_limit_mib
    return [
        vram_request(gpu, capacities[name], estimates.get(gpu.name), lacking_mib, scheduling, most_mib)
        if gpu
        else cpu_request(capacities[name], settings.training.num_threads, scheduling)
        for name, gpu in places.items()
    ]


def _when_it_answers(ask: Callable[[], _T], what: str) -> _T:
    """Ask the Prefect API, however long it is away."""
    has_said = False
    while True:
        try:
            return ask()
        except httpx.HTTPError as error:
            if not is_away(error):
                raise
            if not has_said:
                LOG.warning("%s waits for the Prefect API, which does not answer: %s", what, error)
            has_said = True
        time.sleep(_RETRY_S)


def wait_for_room(waiter: Waiter, requests: Sequence[Request], what: str) -> tuple[Request, Lease, float]:
    """Look again and again; a server that is away is waited for.

    Args:
        waiter: Looks.
        requests: What it asks for.
        what: Who waits, for people.

    Returns:
        What was granted, the slots, and how long that took, seconds.

    Raises:
        RetrainError: A limit is missing.
    """
    asked = " or ".join(f"{request.slots} of {request.limit}" for request in requests)
    began, say_at = time.monotonic(), 1.0
    while True:
        waited_s = time.monotonic() - began
        try:
            granted = waiter.look(waited_s)
            reason = "others hold them"
        except httpx.HTTPError as error:
            if not is_away(error):
                raise
            granted, reason = None, f"the Prefect API does not answer: {error}"
        if granted:
            return (*granted, time.monotonic() - began)
        if waited_s >= say_at:
            LOG.info("%s waits for %s since %s: %s", what, asked, duration(waited_s), reason)
            say_at = waited_s + _SAY_AGAIN_S
        time.sleep(waiter.pause_s(waited_s))
