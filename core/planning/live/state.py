"""The fold behind the live view: how far each phase's models are, and the last decisions of a plan."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

from core.events.catalogue import (
    CATALOGUE,
    CapturesDigested,
    EpochFinished,
    Fact,
    ModelEvaluated,
    PhaseFailed,
    PhaseFinished,
    PhaseStarted,
    ThresholdCalibrated,
    TrainingResumed,
    to_fact,
)
from core.events.event import Event
from core.events.projection import Projection
from core.planning.live.decisions import sentences, stopped_early
from core.planning.phases import EVALUATION, FUSION, STUDENT, TEACHER
from core.planning.plan_state import PLAN_STATE, PhaseName, PlanState

MODELS_OF = {
    TEACHER: ("teacher_vgae", "teacher_gat"),
    STUDENT: ("student_vgae", "student_gat"),
    FUSION: ("fusion", "mlp_fusion"),
}
"""Models that a phase trains, in order."""
_MOST_EPOCHS, _MOST_DECISIONS, _NUM_PACES = 240, 60, 5
_QUIET = {"checkpoint_written", "model_saved", "chain_started", "plan_created"}


class Epoch(NamedTuple):
    """One epoch of a model."""

    number: int
    train_loss: float
    val_loss: float


@dataclass(frozen=True)
class ModelTrack:
    """How far one model of a phase is.

    Attributes:
        epochs_done: In this attempt, or before it and gone on from.
        curve: The last epochs.
        val_metric: MCC on validation after the last one.
        graphs_per_s: Speed of the last one.
        durations_s: What the last few of this attempt took.
        is_over: Whether it needs no more epochs.
    """

    epochs_done: float = 0.0
    curve: tuple[Epoch, ...] = ()
    val_metric: float | None = None
    graphs_per_s: float | None = None
    durations_s: tuple[float, ...] = ()
    is_over: bool = False


@dataclass(frozen=True)
class PhaseTrack:
    """How far a phase is.

    Attributes:
        models: By name, in order.
        began_at: When its attempt began; None before the first and after one that failed.
        ended_at: When the last attempt ended; None while it runs.
        earlier_s: Time that failed attempts took, seconds.
        num_thresholds: Models to be evaluated.
        num_evaluated: Models evaluated, times folders.
    """

    models: Mapping[str, ModelTrack] = field(default_factory=dict)
    began_at: datetime | None = None
    ended_at: datetime | None = None
    earlier_s: float = 0.0
    num_thresholds: int = 0
    num_evaluated: int = 0


class Happened(NamedTuple):
    """A decision with its time."""

    at: datetime
    tone: str
    where: str
    text: str


class LiveState(NamedTuple):
    """One plan, as far as watching it needs.

    Attributes:
        plan: How far it is.
        tracks: How far its phases are, from their first attempt on.
        captures: Captures of each dataset: path, role, folder and num_bytes of each.
        decisions: The last ones.
        failure: The last failure, and when it was.
    """

    plan: PlanState = PLAN_STATE.initial
    tracks: Mapping[PhaseName, PhaseTrack] = {}
    captures: Mapping[str, list[dict[str, Any]]] = {}
    decisions: tuple[Happened, ...] = ()
    failure: tuple[PhaseFailed, datetime] | None = None


def budget(plan: PlanState, phase: str) -> tuple[int, int] | None:
    """Most epochs of a phase's models, and the patience; None where the plan does not say."""
    training = plan.created.settings.get("training", {}) if plan.created else {}
    epochs = training.get("dqn", {}).get("episodes") if phase == FUSION else training.get("epochs")
    patience = training.get("patience")
    return (int(epochs), int(patience)) if epochs and patience else None


def _apply(state: LiveState, event: Event) -> LiveState:
    state = state._replace(plan=PLAN_STATE.apply(state.plan, event))
    if event.type not in _RELEVANT:
        return state
    fact, at = to_fact(event), event.occurred_at
    state = _say(_track(state, fact, at), fact, at)
    if isinstance(fact, PhaseFailed):
        return state._replace(failure=(fact, at))
    return state


def _track(state: LiveState, fact: Fact, at: datetime) -> LiveState:
    match fact:
        case CapturesDigested():
            return state._replace(captures={**state.captures, fact.dataset: fact.captures})
        case ThresholdCalibrated() | ModelEvaluated():
            key = (fact.dataset, EVALUATION)
        case PhaseStarted() | PhaseFinished() | PhaseFailed() | EpochFinished() | TrainingResumed():
            key = (fact.dataset, fact.phase)
        case _:
            return state
    before = state.tracks.get(key, PhaseTrack())
    track = _apply_to_phase(before, fact, at)
    state = state._replace(tracks={**state.tracks, key: track})
    for name, model in track.models.items():
        if model.is_over and not before.models.get(name, model).is_over:
            state = _say_how_it_ended(state, key, name, model, at)
    return state


def _apply_to_phase(track: PhaseTrack, fact: Fact, at: datetime) -> PhaseTrack:
    changes: dict[str, Any] = {}
    match fact:
        case PhaseStarted():
            fresh = {
                name: replace(model, epochs_done=0.0, durations_s=(), is_over=False)
                for name, model in track.models.items()
            }
            changes = {
                "models": fresh,
                "began_at": at,
                "ended_at": None,
                "num_thresholds": 0,
                "num_evaluated": 0,
            }
        case PhaseFailed():
            begun_s = max(0.0, (at - track.began_at).total_seconds()) if track.began_at else 0.0
            changes = {"began_at": None, "ended_at": at, "earlier_s": track.earlier_s + begun_s}
        case PhaseFinished():
            changes = {"ended_at": at, "models": _over(track.models, tuple(track.models))}
        case ThresholdCalibrated():
            changes = {"num_thresholds": track.num_thresholds + 1}
        case ModelEvaluated():
            changes = {"num_evaluated": track.num_evaluated + 1}
        case TrainingResumed() | EpochFinished():
            models = dict(track.models)
            models[fact.model] = _apply_to_model(models.get(fact.model, ModelTrack()), fact)
            expected = MODELS_OF.get(fact.phase, ())
            earlier = expected[: expected.index(fact.model)] if fact.model in expected else ()
            changes = {"models": _over(models, earlier)}
    return replace(track, **changes)


def _apply_to_model(model: ModelTrack, fact: Fact) -> ModelTrack:
    match fact:
        case TrainingResumed():
            kept = tuple(epoch for epoch in model.curve if epoch.number < fact.epoch)
            return replace(model, epochs_done=max(model.epochs_done, float(fact.epoch)), curve=kept)
        case EpochFinished():
            kept = tuple(epoch for epoch in model.curve if epoch.number < fact.epoch)
            return replace(
                model,
                epochs_done=max(model.epochs_done, fact.epoch + 1.0),
                curve=(*kept[1 - _MOST_EPOCHS :], Epoch(fact.epoch, fact.train_loss, fact.val_loss)),
                val_metric=fact.val_metric,
                graphs_per_s=fact.graphs_per_s,
                durations_s=(*model.durations_s, fact.duration_s)[-_NUM_PACES:],
            )
        case _:
            return model


def _over(models: Mapping[str, ModelTrack], names: tuple[str, ...]) -> dict[str, ModelTrack]:
    return {name: replace(model, is_over=True) if name in names else model for name, model in models.items()}


def _say_how_it_ended(
    state: LiveState, key: PhaseName, name: str, model: ModelTrack, at: datetime
) -> LiveState:
    granted = budget(state.plan, key[1])
    if granted is None or not 0 < model.epochs_done < granted[0]:
        return state
    text = stopped_early(int(model.epochs_done), *granted)
    return _add(state, Happened(at, "good", f"{key[0]} {name}", text))


def _say(state: LiveState, fact: Fact, at: datetime) -> LiveState:
    for tone, where, text in sentences(fact):
        state = _add(state, Happened(at, tone, where, text))
    return state


def _add(state: LiveState, happened: Happened) -> LiveState:
    return state._replace(decisions=(*state.decisions, happened)[-_MOST_DECISIONS:])


_RELEVANT = CATALOGUE.keys() - _QUIET
LIVE_STATE: Projection[LiveState] = Projection(LiveState(), _apply)
