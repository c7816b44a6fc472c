"""How far a plan is: the projection behind resume, retries and status."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from core.events.catalogue import (
    ChainFinished,
    ChainStarted,
    ChainStopped,
    CheckpointWritten,
    EpochFinished,
    Fact,
    GraphsBuilt,
    GraphsLost,
    PhaseFailed,
    PhaseFinished,
    PhaseSkipped,
    PhaseStarted,
    PlanCreated,
    PlanFinished,
    PlanResumed,
    to_fact,
)
from core.events.event import Event
from core.events.projection import Projection
from core.events.resource_facts import PackLimitChanged, PackLimitChosen, PhaseAdmitted
from core.planning.phases import GRAPHS
from core.resources.failures import OOM_KINDS
from settings.app import Settings

PhaseName = tuple[str, str]
"""Dataset and phase."""

PhaseStatus = Literal["pending", "running", "interrupted", "completed", "failed", "skipped", "blocked"]


@dataclass(frozen=True)
class PhaseState:
    """One phase of one dataset in one plan.

    Attributes:
        status: Where it stands; ``interrupted`` was stopped and goes on when the plan is resumed, ``skipped``
            is up to date, ``blocked`` waits for a failed parent.
        reason: Why it is planned or skipped, or what the last failure said.
        attempts: Attempts begun.
        failures: Kind and message of each attempt that failed, in order.
        num_fruitless: Failures in a row without progress, since the plan was last taken up.
        micro_batch_size: Graphs per forward/backward of the last attempt; 0 before the first.
        pack_graphs: Most graphs of a pack by the last limit that this attempt told; None before it told any.
        lacking_graphs: The same of the last attempt that ran out of memory.
        admitted: What the last attempt was granted; None where nobody had to ask.
        lacking_mib: VRAM that the last attempt that ran out of it had been granted, MiB.
    """

    status: PhaseStatus = "pending"
    reason: str = ""
    attempts: int = 0
    failures: tuple[tuple[str, str], ...] = ()
    num_fruitless: int = 0
    micro_batch_size: int = 0
    pack_graphs: int | None = None
    lacking_graphs: int | None = None
    admitted: PhaseAdmitted | None = None
    lacking_mib: int | None = None
    progressed: bool = False
    """Whether this attempt wrote a checkpoint."""

    @property
    def failure_kinds(self) -> list[str]:
        """Failure class of each attempt that failed, in order."""
        return [kind for kind, _ in self.failures]


class PlanState(NamedTuple):
    """One plan.

    Attributes:
        phases: State by (dataset, phase), in plan order.
        graphs: The graphs built or found for each dataset.
        created: The plan as made; None while the stream is empty.
        open_chains: The process that works on each dataset on which work began and has not ended, as
            ``chain_started`` names it; empty where nobody does any more, or nobody knows.
        data_dir: Where a resume said that captures are; None where the plan was made.
        status: ``running`` until the plan has finished, then ``completed`` or ``failed``.
        started_at: When the plan was made.
        worked_s: Time worked on it, without the pauses before it was taken up again, seconds.
        last_event_at: When anything was last heard of it.
    """

    phases: Mapping[PhaseName, PhaseState]
    graphs: Mapping[str, GraphsBuilt]
    created: PlanCreated | None = None
    open_chains: Mapping[str, str] = {}
    data_dir: str | None = None
    status: str = "running"
    started_at: datetime | None = None
    worked_s: float = 0.0
    last_event_at: datetime | None = None

    @property
    def datasets(self) -> list[str]:
        """Datasets in plan order."""
        return list(dict.fromkeys(dataset for dataset, _ in self.phases))

    @property
    def unfinished_datasets(self) -> list[str]:
        """Datasets with phases still to do, or whose chain has not said how it ended, in plan order."""
        return [name for name in self.datasets if name in self.open_chains or self.remaining(name)]

    def settings_in(self, output_dir: Path, data_dir: Path | None = None) -> Settings:
        """What the plan goes by, wherever its outputs and its captures are now.

        Args:
            output_dir: Where its outputs are.
            data_dir: Where its captures are on this machine; None where the plan says.
        """
        planned = self.created.settings if self.created else {}
        settings = Settings(**{**planned, "output_dir": output_dir})
        found = data_dir or (Path(self.data_dir) if self.data_dir else None)
        if found is None:
            return settings
        return settings.model_copy(update={"data": settings.data.moved_to(found)})

    def remaining(self, dataset: str) -> list[str]:
        """Phases of a dataset still to do, in order."""
        return [
            phase
            for (name, phase), state in self.phases.items()
            if name == dataset and state.status not in ("completed", "skipped")
        ]


def progress(events: Sequence[Event], state: PlanState) -> dict[PhaseName, str]:
    """The last epoch of each phase that runs, for people.

    Args:
        events: The plan's events; read backwards, and only as far as needed.
        state: The plan after them.
    """
    found: dict[PhaseName, str] = {}
    running = {name for name, phase in state.phases.items() if phase.status == "running"}
    for event in reversed(events):
        if not running:
            break
        if event.type in (EpochFinished.TYPE, PhaseStarted.TYPE):
            name = (event.payload["dataset"], event.payload["phase"])
            if name in running and event.type == EpochFinished.TYPE:
                found[name] = f"{event.payload['model']} epoch {event.payload['epoch']}"
            running.discard(name)
    return found


def _apply(state: PlanState, event: Event) -> PlanState:
    at, worked_s = event.occurred_at, state.worked_s
    if event.type != PlanResumed.TYPE and state.last_event_at:  # nobody worked on it before that
        # A clock that was set back has measured nothing.
        worked_s += max(0.0, (at - state.last_event_at).total_seconds())
    state = PlanState._make((*state[:-2], worked_s, at))
    return _apply_fact(state, to_fact(event), at) if event.type in _RELEVANT else state  # nearly none is


def _apply_fact(state: PlanState, fact: Fact, at: datetime) -> PlanState:
    if isinstance(fact, PlanResumed):
        given = {name: replace(phase, num_fruitless=0) for name, phase in state.phases.items()}
        state = state._replace(phases=given, status="running", data_dir=fact.data_dir or state.data_dir)
    state = state._replace(started_at=state.started_at or at)
    match fact:
        case PlanCreated():
            phases = {
                (step["dataset"], step["phase"]): PhaseState(
                    status="pending" if step["action"] == "run" else "skipped", reason=step["reason"]
                )
                for step in fact.steps
            }
            return state._replace(created=fact, phases=phases)
        case PlanFinished():
            return state._replace(status=fact.status)
        case ChainStarted() | ChainStopped() | ChainFinished():
            return _apply_to_chain(state, fact)
        case GraphsBuilt():
            return state._replace(graphs={**state.graphs, fact.dataset: fact})
        case (
            PhaseStarted()
            | PhaseFinished()
            | PhaseFailed()
            | PhaseSkipped()
            | GraphsLost()
            | CheckpointWritten()
            | PackLimitChosen()
            | PackLimitChanged()
            | PhaseAdmitted()
        ):
            key = (fact.dataset, GRAPHS if isinstance(fact, GraphsLost) else fact.phase)
            old = state.phases.get(key, PhaseState())
            return state._replace(phases={**state.phases, key: _apply_to_phase(old, fact)})
        case _:
            return state


_RELEVANT = {
    fact.TYPE
    for fact in (
        PlanCreated,
        PlanResumed,
        PlanFinished,
        ChainStarted,
        ChainStopped,
        ChainFinished,
        GraphsBuilt,
        GraphsLost,
        PhaseStarted,
        PhaseFinished,
        PhaseFailed,
        PhaseSkipped,
        CheckpointWritten,
        PackLimitChosen,
        PackLimitChanged,
        PhaseAdmitted,
    )
}


def _apply_to_chain(state: PlanState, fact: ChainStarted | ChainStopped | ChainFinished) -> PlanState:
    others = {name: who for name, who in state.open_chains.items() if name != fact.dataset}
    match fact:
        case ChainStarted():
            return state._replace(open_chains={**others, fact.dataset: fact.holder})
        case ChainFinished():
            return state._replace(open_chains=others)
    if state.open_chains.get(fact.dataset) != fact.holder:
        return state  # another works on it by now
    phases = {
        name: replace(phase, status="interrupted", reason=f"broken off: {fact.reason}")
        if name[0] == fact.dataset and phase.status == "running"
        else phase
        for name, phase in state.phases.items()
    }
    return state._replace(phases=phases, open_chains={**others, fact.dataset: ""})


def _apply_to_phase(phase: PhaseState, fact: Fact) -> PhaseState:
    changes: dict[str, Any] = {}
    match fact:
        case PhaseStarted():
            changes = {
                "status": "running",
                "attempts": phase.attempts + 1,
                "micro_batch_size": fact.micro_batch_size,
                "pack_graphs": None,
                "progressed": False,
            }
        case CheckpointWritten():
            changes = {"progressed": True}
        case PhaseAdmitted():
            changes = {"admitted": fact}
        case PackLimitChosen():
            changes = {"pack_graphs": fact.limit.get("graphs")}
        case PackLimitChanged():
            changes = {"pack_graphs": fact.after.get("graphs")}
        case PhaseFinished():
            changes = {"status": "completed"}
        case PhaseFailed():
            changes = {
                "status": "failed",
                "reason": f"{fact.kind}: {fact.message}",
                "failures": (*phase.failures, (fact.kind, fact.message)),
                "num_fruitless": 0 if phase.progressed else phase.num_fruitless + 1,
                "lacking_graphs": phase.pack_graphs if fact.kind in OOM_KINDS else phase.lacking_graphs,
                "lacking_mib": _lacking_mib(phase, fact),
            }
        case PhaseSkipped():
            changes = {"status": "blocked", "reason": fact.reason}
        case GraphsLost():
            changes = {"status": "pending", "reason": "its graphs are gone"}
    return replace(phase, **changes)


def _lacking_mib(phase: PhaseState, failed: PhaseFailed) -> int | None:
    granted = phase.admitted
    ran_out = granted and granted.gpu_uuid and failed.kind in OOM_KINDS and failed.kind != "host_oom"
    return granted.slots if granted and ran_out else phase.lacking_mib


PLAN_STATE: Projection[PlanState] = Projection(PlanState(phases={}, graphs={}), _apply)
