"""What the log says about saved models and captures: the projection that "missing or stale" is decided by."""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from core.errors import DamagedLogError
from core.events.catalogue import CapturesDigested, ModelSaved, PhaseFinished, PlanCreated, to_fact
from core.events.event import Event
from core.events.log import EventLog
from core.events.projection import Projection
from core.planning.phases import EVALUATION


@dataclass(frozen=True)
class RegistryView:
    """The newest facts about each dataset, over all plans.

    Attributes:
        models: Last saved model by (dataset, phase).
        captures: Last digest of each dataset's captures.
        planned: Settings digest of the evaluation that a plan set out to do, by (plan, dataset).
        evaluated: That digest for each dataset whose last saved models have been evaluated.
    """

    models: Mapping[tuple[str, str], ModelSaved] = field(default_factory=dict)
    captures: Mapping[str, CapturesDigested] = field(default_factory=dict)
    planned: Mapping[tuple[str, str], str] = field(default_factory=dict)
    evaluated: Mapping[str, str] = field(default_factory=dict)

    def known_hashes(self, dataset: str) -> dict[tuple[str, int, int], str]:
        """sha256 of captures by (path, bytes, mtime_ns), so that unchanged files are not read again."""
        digested = self.captures.get(dataset)
        rows = digested.captures if digested else []
        return {(row["path"], row["num_bytes"], row["mtime_ns"]): row["sha256"] for row in rows}


def _apply(view: RegistryView, event: Event) -> RegistryView:
    if event.type not in _RELEVANT:
        return view
    fact = to_fact(event)
    match fact:
        case ModelSaved():
            return replace(
                view,
                models={**view.models, (fact.dataset, fact.phase): fact},
                evaluated={name: d for name, d in view.evaluated.items() if name != fact.dataset},
            )
        case CapturesDigested():
            return replace(view, captures={**view.captures, fact.dataset: fact})
        case PhaseFinished(phase=phase) if phase == EVALUATION:
            digest = view.planned.get((event.stream, fact.dataset), "")
            return replace(view, evaluated={**view.evaluated, fact.dataset: digest})
        case PlanCreated():
            planned = {
                (event.stream, step["dataset"]): step["settings_digest"]
                for step in fact.steps
                if step["phase"] == EVALUATION
            }
            return replace(view, planned={**view.planned, **planned})
        case _:
            return view


_RELEVANT = {PlanCreated.TYPE, ModelSaved.TYPE, CapturesDigested.TYPE, PhaseFinished.TYPE}
REGISTRY_VIEW: Projection[RegistryView] = Projection(RegistryView(), _apply)


def registry_view(log: EventLog) -> RegistryView:
    """Fold the registry from every plan's events.

    Raises:
        DamagedLogError: Some plan's events are damaged: what is stale cannot be told without them.
    """
    try:
        return fold_registry([log.read(stream) for stream in log.streams()])
    except DamagedLogError as error:
        raise DamagedLogError(
            f"{error}; no plan can be made or taken up without it (python -m flows.verify checks all of them)"
        ) from error


def fold_registry(streams: Iterable[Iterable[Event]]) -> RegistryView:
    """Fold the registry from the events of several plans: each in its own order, all by time."""
    relevant = ([event for event in stream if event.type in _RELEVANT] for stream in streams)
    return REGISTRY_VIEW.fold(heapq.merge(*relevant, key=lambda event: event.occurred_at))
