"""Which phase may use which GPU, or how many processors, and when: leased slots, counted by Prefect.

====================  ============================================================
limit                 slots
====================  ============================================================
``can-vram-{uuid}``   MiB of a GPU, or of a MIG slice of one, that phases may fill
``can-cpu-{host}``    processor cores of a machine
``{either}-turn``     one: whoever has it may take slots of the other
====================  ============================================================

A phase takes the turn only for as long as it takes to ask for its slots. One of a priority dataset, or one
that has waited for long, keeps it until it has been admitted: nothing overtakes it, so large phases are not
starved by small ones.
"""

import math
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from core.analytics.history import PhaseEstimate
from core.events.resource_facts import PhaseAdmitted
from core.planning.phases import GRAPHS
from core.resources.machine import Gpu, Machine
from settings.app import Settings
from settings.scheduling import SchedulingSettings
from settings.training import TrainingSettings

LEASE_S = 60.0
"""Slots of a holder that was lost are free after this time; the least that Prefect grants."""
_GROWTH = 2
"""An attempt after one that ran out of VRAM asks for so many times what that one was granted."""
_LEAST_MIB = 64
"""Of VRAM for tensors; anything smaller is a measurement of nothing."""


def vram_limit(uuid: str) -> str:
    """Name of the limit of a GPU's memory, by the GPU's (or MIG slice's) uuid."""
    return f"can-vram-{uuid.replace('/', '-')}"


def cpu_limit(scheduling: SchedulingSettings) -> str:
    """Name of the limit of this machine's processors."""
    return f"can-cpu-{scheduling.host or socket.gethostname()}"


def turn_of(limit: str) -> str:
    """Name of the limit that orders those who wait for another one."""
    return f"{limit}-turn"


def machine_limits(machine: Machine, scheduling: SchedulingSettings) -> dict[str, int]:
    """Every limit that a machine needs, with its slots.

    Args:
        machine: Probed with every MIG slice.
        scheduling: Names the machine, and says how much of each GPU is left to others.
    """
    slots = {cpu_limit(scheduling): machine.num_cores}
    for gpu in machine.gpus if machine.device == "cuda" else ():
        slots[vram_limit(gpu.uuid)] = max(1, int(gpu.vram_total_mib) - scheduling.vram_headroom_mib)
    return slots | {turn_of(name): 1 for name in slots}


@dataclass(frozen=True)
class Request:
    """Slots that a phase asks for at one place.

    Attributes:
        limit: The limit's name.
        slots: How many.
        gpu: The GPU; None for processors.
        basis: What the number rests on, for people.
    """

    limit: str
    slots: int
    gpu: Gpu | None = None
    basis: str = ""


@dataclass(frozen=True)
class Placement:
    """Where a phase was admitted.

    Attributes:
        request: The slots it holds.
        waited_s: How long it waited for them, seconds.
        vram_limit_mib: Most VRAM that its tensors may fill, MiB; 0 where it holds none.
    """

    request: Request
    waited_s: float
    vram_limit_mib: int = 0

    def admitted(self, dataset: str, phase: str, machine: Mapping[str, Any]) -> PhaseAdmitted:
        """The fact that a phase was admitted.

        Args:
            dataset: The phase's dataset.
            phase: The phase.
            machine: Where it runs, as ``describe_machine`` has it.
        """
        gpu = self.request.gpu
        return PhaseAdmitted(
            dataset=dataset,
            phase=phase,
            limit=self.request.limit,
            slots=self.request.slots,
            device_name=gpu.name if gpu else machine["cpu_model"],
            gpu_uuid=gpu.uuid if gpu else "",
            vram_limit_mib=self.vram_limit_mib,
            waited_s=self.waited_s,
            reason=self.request.basis,
        )

    def environment(self) -> dict[str, str]:
        """Variables that its training process needs: it sees no GPU but its own."""
        return {"CUDA_VISIBLE_DEVICES": self.request.gpu.uuid} if self.request.gpu else {}

    def settings(self, planned: Settings) -> Settings:
        """The plan's settings, held to what was granted."""
        if not self.request.gpu:
            return planned
        resources = planned.resources.model_copy(update={"vram_limit_mib": self.vram_limit_mib})
        return planned.model_copy(update={"resources": resources})


def limits_for(
    phase: str, training: TrainingSettings, machine: Machine, scheduling: SchedulingSettings
) -> dict[str, Gpu | None]:
    """Names of the limits of which one has room for a phase, with the GPUs they are of.

    Args:
        phase: Graphs are built by processors; models are trained and judged where ``training.device`` says.
        training: Of the plan.
        machine: Probed with every MIG slice that this process may use.
        scheduling: Names the machine.
    """
    device = machine.device if training.device == "auto" else training.device
    if phase == GRAPHS or device == "cpu":
        return {cpu_limit(scheduling): None}
    return {vram_limit(gpu.uuid): gpu for gpu in machine.gpus}


def vram_request(
    gpu: Gpu,
    capacity_mib: int,
    estimate: PhaseEstimate | None,
    lacking_mib: int | None,
    scheduling: SchedulingSettings,
    most_mib: int = 0,
) -> Request:
    """What a phase asks for on one GPU.

    That is the highest peak to expect by what it took before, with its error bar, and what the process takes
    besides; all there is where nothing is known. After an attempt that ran out of VRAM it is more.

    Args:
        gpu: The GPU.
        capacity_mib: Slots of its limit.
        estimate: What the phase took on such a GPU before; None for the first time.
        lacking_mib: What the last attempt that ran out of VRAM had been granted; None without one.
        scheduling: What a process takes besides its tensors.
        most_mib: ``resources.vram_limit_mib`` of the plan; 0 for none.
    """
    if estimate is None or not math.isfinite(estimate.peak_memory.high):
        wanted, basis = capacity_mib, "never measured on such a GPU: all of it"
    else:
        wanted = max(_LEAST_MIB, math.ceil(estimate.peak_memory.high)) + scheduling.cuda_context_mib
        basis = f"peaks of {estimate.num} plans, {estimate.peak_memory.high:.0f} MiB at most"
    if lacking_mib is not None and wanted < _GROWTH * lacking_mib:
        wanted, basis = _GROWTH * lacking_mib, f"{lacking_mib} MiB were too little"
    if most_mib:
        wanted = min(wanted, most_mib + scheduling.cuda_context_mib)
    return Request(vram_limit(gpu.uuid), min(wanted, capacity_mib), gpu, basis)


def cpu_request(capacity: int, num_threads: int, scheduling: SchedulingSettings) -> Request:
    """What a phase asks for on processors: a slot for each of its threads.

    Args:
        capacity: Slots of the limit.
        num_threads: ``training.num_threads`` of the plan; 0 for all cores.
        scheduling: Names the machine.
    """
    basis = f"{num_threads} threads" if num_threads else "all cores"
    return Request(cpu_limit(scheduling), min(num_threads or capacity, capacity), basis=basis)


def place(request: Request, waited_s: float, scheduling: SchedulingSettings, most_mib: int = 0) -> Placement:
    """Where a phase is, once it holds what it asked for; arguments as of ``vram_request``."""
    if request.gpu is None:
        return Placement(request, waited_s)
    for_tensors = max(_LEAST_MIB, request.slots - scheduling.cuda_context_mib)
    return Placement(request, waited_s, min(most_mib or for_tensors, for_tensors))


class Lease(Protocol):
    """Slots that are held."""

    def give_back(self) -> None:
        """Let go of them."""
        ...


class Limits(Protocol):
    """The limits of a machine, as whoever counts their slots shows them."""

    def free(self, limit: str) -> int:
        """Slots that nobody holds at the moment."""
        ...

    def take(self, limit: str, slots: int) -> Lease | None:
        """Hold slots, all of them or none; None where they are not free."""
        ...


class Waiter:
    """One phase that waits to be admitted.

    Args:
        limits: The limits.
        requests: What it asks for: one place of these.
        is_priority: Whether its dataset is to be done first.
        patience_s: Seconds after which nothing overtakes it any more.
    """

    def __init__(
        self, limits: Limits, requests: Sequence[Request], is_priority: bool, patience_s: float
    ) -> None:
        self._limits, self._requests = limits, requests
        self._is_priority, self._patience_s = is_priority, patience_s
        self._turn: tuple[str, Lease] | None = None

    def goes_first(self, waited_s: float) -> bool:
        """Whether it keeps the turn while it waits."""
        return self._is_priority or waited_s >= self._patience_s

    def pause_s(self, waited_s: float) -> float:
        """Seconds until it looks again: whoever goes first looks more often, and so gets a free turn."""
        return 0.5 if self._is_priority else 1.0 if self.goes_first(waited_s) else 2.0

    def look(self, waited_s: float) -> tuple[Request, Lease] | None:
        """Try to be admitted, at the place with the most room first.

        Args:
            waited_s: How long it has waited so far, seconds.

        Returns:
            What was granted; None where it has to look again later.
        """
        free = {request.limit: self._limits.free(request.limit) for request in self._requests}
        for request in sorted(self._requests, key=lambda request: -free[request.limit]):
            has_room = free[request.limit] >= request.slots
            if not has_room and (self._turn or not self.goes_first(waited_s)):
                continue
            if granted := self._try(request, keep=self.goes_first(waited_s)):
                return granted
        return None

    def give_up(self) -> None:
        """Let go of the turn, if it has one."""
        if self._turn:
            self._turn[1].give_back()
            self._turn = None

    def _try(self, request: Request, keep: bool) -> tuple[Request, Lease] | None:
        limit = turn_of(request.limit)
        is_kept = self._turn is not None and self._turn[0] == limit
        turn = self._turn[1] if self._turn and is_kept else self._limits.take(limit, 1)
        if turn is None:
            return None
        try:
            slots = self._limits.take(request.limit, request.slots)
        except BaseException:
            if not is_kept:
                turn.give_back()
            raise
        if slots is None and keep and self._turn is None:
            self._turn = limit, turn
        elif not is_kept:
            turn.give_back()
        if slots is None:
            return None
        self.give_up()
        return request, slots
