"""What the log says about saved models and captures: the projection that "missing or stale" is decided by."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from core.events.catalogue import CapturesDigested, ModelSaved, PhaseFinished, to_fact
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
        evaluated: Datasets whose last saved models have been evaluated.
    """

    models: Mapping[tuple[str, str], ModelSaved] = field(default_factory=dict)
    captures: Mapping[str, CapturesDigested] = field(default_factory=dict)
    evaluated: frozenset[str] = frozenset()

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
                evaluated=view.evaluated - {fact.dataset},
            )
        case CapturesDigested():
            return replace(view, captures={**view.captures, fact.dataset: fact})
        case PhaseFinished(phase=phase) if phase == EVALUATION:
            return replace(view, evaluated=view.evaluated | {fact.dataset})
        case _:
            return view


_RELEVANT = {ModelSaved.TYPE, CapturesDigested.TYPE, PhaseFinished.TYPE}
REGISTRY_VIEW: Projection[RegistryView] = Projection(RegistryView(), _apply)


def registry_view(log: EventLog) -> RegistryView:
    """Fold the registry from every plan's events, in the order they happened."""
    events = [event for stream in log.streams() for event in log.read(stream)]
    return REGISTRY_VIEW.fold(sorted(events, key=lambda event: event.occurred_at))
