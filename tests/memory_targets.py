"""Phases whose memory really runs out; called in the training process by tests."""

import os
import signal
from dataclasses import dataclass

import psutil

from core.events.catalogue import Emit
from core.events.fact import Fact
from core.events.resource_facts import PackLimitChanged, PackLimitChosen
from core.resources import memory
from core.training import phases
from core.training.job import PhaseJob
from core.training.memory import _release_memory
from core.training.step import Stepper
from settings.resources import ResourceSettings

_MIB = 2**20


@dataclass(frozen=True)
class Starved:
    """When memory is short, and when to die.

    Attributes:
        model: While which model is trained, from the first step of an epoch on.
        room_mib: What is left to allocate then.
        num_changes: Die by SIGKILL with this change of a pack limit; 0 lives on.
    """

    model: str
    room_mib: int
    num_changes: int = 0


def train(job: PhaseJob, starved: Starved, emit: Emit) -> None:
    """Run a phase with little memory left for one of its models, which does not know it when it begins."""
    num_left, training = starved.num_changes, ""
    update = Stepper.step

    def tell(fact: Fact) -> None:
        nonlocal num_left, training
        emit(fact)
        if isinstance(fact, PackLimitChosen):
            training = fact.model
            memory.limit_memory(ResourceSettings())
        if isinstance(fact, PackLimitChanged):
            num_left -= 1
            if num_left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def step(self: Stepper, index: int, seed: int) -> object:
        if index == 0 and training == starved.model:
            _release_memory()  # else the step is made of what the heap holds free
            held = psutil.Process().memory_info().data // _MIB
            memory.limit_memory(ResourceSettings(memory_limit_mib=held + starved.room_mib))
        return update(self, index, seed)

    Stepper.step = step  # type: ignore[assignment, method-assign]
    try:
        phases.PHASES[job.phase](job, tell)
    finally:
        Stepper.step = update  # type: ignore[method-assign]
        memory.limit_memory(ResourceSettings())
