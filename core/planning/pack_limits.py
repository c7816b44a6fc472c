"""What the log says of how much packs may hold: where a training starts, and what a resumed one repeats."""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from core.events.catalogue import to_fact
from core.events.event import Event
from core.events.projection import Projection
from core.events.resource_facts import PackLimitChanged, PackLimitChosen
from core.training.packs import KnownLimit, KnownLimits, LimitChange, PackLimit

_Training = tuple[str, str, str, str]
"""Plan, dataset, phase and model."""


@dataclass(frozen=True)
class PackLimits:
    """Pack limits of all trainings.

    Attributes:
        trainings: What each plan chose first for each of its models, and what became of it.
        keys: What the last choice of each holds for.
        last: The last limit under each key, where memory bound it.
    """

    trainings: Mapping[_Training, KnownLimit] = field(default_factory=dict)
    keys: Mapping[_Training, str] = field(default_factory=dict)
    last: Mapping[str, KnownLimit] = field(default_factory=dict)

    def known(self, plan_id: str, dataset: str, phase: str) -> KnownLimits:
        """What an attempt of a phase needs of it."""
        own = {
            model: known
            for (plan, of_dataset, of_phase, model), known in self.trainings.items()
            if (plan, of_dataset, of_phase) == (plan_id, dataset, phase)
        }
        return KnownLimits(own, self.last)


def _apply(view: PackLimits, event: Event) -> PackLimits:
    if event.type not in _RELEVANT:
        return view
    fact = to_fact(event)
    match fact:
        case PackLimitChosen():
            return _choose(view, (event.stream, fact.dataset, fact.phase, fact.model), fact)
        case PackLimitChanged() if fact.epoch is not None and fact.step is not None:  # else it was scoring
            return _change(view, (event.stream, fact.dataset, fact.phase, fact.model), fact)
        case _:
            return view


def _choose(view: PackLimits, training: _Training, fact: PackLimitChosen) -> PackLimits:
    chosen = KnownLimit(PackLimit(**fact.limit), PackLimit(**fact.most), fact.memory, fact.binds)
    last = dict(view.last)
    if training in view.trainings:  # another attempt, which goes by the first one
        chosen = view.trainings[training]
    elif fact.binds in ("memory", "history"):
        last[fact.key] = chosen
    else:  # all that was asked for fits: nothing to remember
        last.pop(fact.key, None)
    return replace(
        view,
        trainings={**view.trainings, training: chosen},
        keys={**view.keys, training: fact.key},
        last=last,
    )


def _change(view: PackLimits, training: _Training, fact: PackLimitChanged) -> PackLimits:
    after = PackLimit(**fact.after)
    # The fusion networks begin with all that is asked for, without a word.
    begun = PackLimit(**fact.before)
    known = view.trainings.get(training, KnownLimit(begun, begun, {}, "step"))
    change = LimitChange(fact.epoch or 0, fact.step or 0, fact.reason, after)
    known = replace(known, changes=(*known.changes, change))
    last = dict(view.last)
    if key := view.keys.get(training):
        last[key] = replace(known, limit=after, changes=())
    return replace(view, trainings={**view.trainings, training: known}, last=last)


_RELEVANT = {PackLimitChosen.TYPE, PackLimitChanged.TYPE}
PACK_LIMITS: Projection[PackLimits] = Projection(PackLimits(), _apply)


def fold_pack_limits(streams: Iterable[Iterable[Event]]) -> PackLimits:
    """Fold the pack limits from the events of several plans: each in its own order, all by time."""
    relevant = ([event for event in stream if event.type in _RELEVANT] for stream in streams)
    return PACK_LIMITS.fold(heapq.merge(*relevant, key=lambda event: event.occurred_at))
