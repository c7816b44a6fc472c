"""Phases as people see them: what the log tells, what the heartbeat adds, what past plans let expect."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from core.analytics.histograms import Range
from core.planning.live.remaining import (
    UNKNOWN,
    EpochsLeft,
    Remaining,
    after,
    at_least,
    at_pace,
    epochs_left,
    extrapolated,
    num_worse,
    one_after_the_other,
)
from core.planning.live.state import MODELS_OF, LiveState, ModelTrack, PhaseTrack, budget
from core.planning.live.view import ModelView, PhaseView
from core.planning.phases import EVALUATION, GRAPHS
from core.planning.plan_state import PhaseName, PhaseState
from core.resources.process_state import ProcessStatus

_DOING = re.compile(r"(training|validating|trained) (\w+)")
_READING = re.compile(r"reading (.+?)(?:, row \d+)?$")
_NEARLY = 0.99
"""The most that a phase under way has done, until it says that it is done."""


@dataclass(frozen=True)
class Pulse:
    """What the heartbeat of a training process says beyond the log.

    Attributes:
        doing: The last sign of progress, for people.
        model: The model that is trained; None where none is.
        epochs_done: Its epochs done, steps of the one under way included; None where that is not told.
        step: Steps done of the epoch under way.
        num_steps: Steps of it.
        loss: The last training loss.
        graphs_per_s: Speed.
        reading: The capture that is read.
    """

    doing: str = ""
    model: str | None = None
    epochs_done: float | None = None
    step: int | None = None
    num_steps: int | None = None
    loss: float | None = None
    graphs_per_s: float | None = None
    reading: str | None = None


def pulse_of(process: ProcessStatus | None) -> Pulse:
    """Read the heartbeat; of a process that is not at work it says nothing."""
    if process is None or process.state not in ("starting", "working", "hanging?", "stopped"):
        return Pulse()
    trained, read = _DOING.match(process.doing), _READING.match(process.doing)
    figures = process.figures
    pulse = Pulse(
        process.doing, graphs_per_s=process.graphs_per_s, reading=read[1] if read and not trained else None
    )
    if not trained:
        return pulse
    epoch, step, num_steps = (_number(figures, name) for name in ("epoch", "step", "num_steps"))
    done = None
    if epoch is not None:
        validating = _NEARLY if trained[1] == "validating" else 0.0
        done = epoch + (min(_NEARLY, step / num_steps) if step is not None and num_steps else validating)
    return Pulse(
        process.doing,
        trained[2],
        done,
        None if step is None else int(step),
        None if num_steps is None else int(num_steps),
        _number(figures, "loss"),
        process.graphs_per_s,
    )


def view_phase(
    name: PhaseName,
    state: LiveState,
    pulse: Pulse,
    past: Range | None,
    paces_s: Mapping[str, float],
    now: datetime,
    floor: float = 0.0,
) -> PhaseView:
    """One phase as people see it.

    Args:
        name: Dataset and phase.
        state: The plan by its log.
        pulse: Heartbeat of the dataset's process; of use while the phase runs.
        past: What the phase took in past plans.
        paces_s: Time per epoch as watched, by model, for those that have not finished one.
        now: The time.
        floor: Fraction that was seen of this attempt before.
    """
    dataset, phase = name
    known = state.plan.phases[name]
    track = state.tracks.get(name, PhaseTrack())
    runs = known.status == "running"
    pulse = pulse if runs else Pulse()
    models = _models(phase, state, track, pulse)
    elapsed_s = _elapsed_s(track, now)
    fraction = _fraction(name, state, known, track, models, pulse)
    if runs:
        fraction = min(_NEARLY, max(fraction, floor))
        if phase in (GRAPHS, EVALUATION) and not fraction and past:
            fraction = min(_NEARLY, elapsed_s / past.middle)
    current = _current(models, pulse)
    shown = current or ModelView(name="")
    if (pulse.epochs_done or 0.0) < int(shown.epochs_done):  # the log is ahead of the heartbeat
        pulse = replace(pulse, doing="", step=None, num_steps=None)
    return PhaseView(
        dataset=dataset,
        phase=phase,
        status=known.status,
        reason=known.reason,
        attempt=known.attempts,
        fraction=fraction,
        elapsed_s=elapsed_s,
        eta=_eta(name, state, track, models, past, paces_s, elapsed_s, fraction),
        doing=pulse.doing,
        model=current.name if current else None,
        epoch=_epoch(current),
        num_epochs=shown.num_epochs,
        step=pulse.step,
        num_steps=pulse.num_steps,
        train_loss=next((x for x in (pulse.loss, *shown.train_losses[::-1]) if x is not None), None),
        val_loss=shown.val_losses[-1] if shown.val_losses else None,
        val_metric=shown.val_metric,
        graphs_per_s=pulse.graphs_per_s
        or (track.models[shown.name].graphs_per_s if shown.name in track.models else None),
        models=tuple(models.values()),
    )


def share_read(captures: Sequence[Mapping[str, Any]], reading: str | None) -> float:
    """Share of the bytes of all captures that lie before the one that is read, in the order of reading."""
    ordered = sorted(captures, key=lambda row: (row.get("role") == "test", row["path"]))
    total = sum(row["num_bytes"] for row in ordered)
    before = 0
    for row in ordered:
        if row["path"].rpartition("/")[2] == reading:
            return float(before / total) if total else 0.0
        before += row["num_bytes"]
    return 0.0


def _models(phase: str, state: LiveState, track: PhaseTrack, pulse: Pulse) -> dict[str, ModelView]:
    expected = MODELS_OF.get(phase, ())
    granted = budget(state.plan, phase)
    at_work = expected.index(pulse.model) if pulse.model in expected else -1
    views = {}
    for place, name in enumerate(expected):
        model = track.models.get(name, ModelTrack())
        ended = model.is_over or place < at_work or (place == at_work and pulse.doing.startswith("trained"))
        done = max(model.epochs_done, (pulse.epochs_done or 0.0) if place == at_work else 0.0)
        views[name] = ModelView(
            name=name,
            num_epochs=granted[0] if granted else None,
            epochs_done=min(done, granted[0]) if granted else done,
            is_over=ended,
            epochs=tuple(epoch.number for epoch in model.curve),
            train_losses=tuple(epoch.train_loss for epoch in model.curve),
            val_losses=tuple(epoch.val_loss for epoch in model.curve),
            val_metric=model.val_metric,
        )
    return views


def _fraction(
    name: PhaseName,
    state: LiveState,
    known: PhaseState,
    track: PhaseTrack,
    models: Mapping[str, ModelView],
    pulse: Pulse,
) -> float:
    dataset, phase = name
    if known.status in ("completed", "skipped"):
        return 1.0
    if known.status != "running":
        return 0.0
    if models:
        shares = [
            1.0 if model.is_over else model.epochs_done / model.num_epochs if model.num_epochs else 0.0
            for model in models.values()
        ]
        return sum(shares) / len(shares)
    captures = state.captures.get(dataset, [])
    if phase == GRAPHS:
        return share_read(captures, pulse.reading)
    num_folders = len({row.get("folder") for row in captures if row.get("role") == "test"})
    return min(1.0, track.num_evaluated / max(1, track.num_thresholds * num_folders))


def _eta(
    name: PhaseName,
    state: LiveState,
    track: PhaseTrack,
    models: Mapping[str, ModelView],
    past: Range | None,
    paces_s: Mapping[str, float],
    elapsed_s: float,
    fraction: float,
) -> Remaining | None:
    known = state.plan.phases[name]
    if known.status == "failed" and name[0] in state.plan.open_chains:
        return after(0.0, past)  # it is about to be tried again
    if known.status in ("pending", "interrupted"):
        return after(0.0, past)
    if known.status != "running":
        return None
    whole = after(elapsed_s, past)
    if not models:
        return whole if whole.middle_s is not None else extrapolated(elapsed_s, fraction)
    granted = budget(state.plan, name[1])
    parts = [_model_eta(model, track, granted, paces_s) for model in models.values() if not model.is_over]
    rest = one_after_the_other(parts)
    return rest if rest.middle_s is not None else at_least(rest.low_s, whole)


def _model_eta(
    model: ModelView, track: PhaseTrack, granted: tuple[int, int] | None, paces_s: Mapping[str, float]
) -> Remaining:
    if granted is None:
        return UNKNOWN
    left = epochs_left(model.epochs_done, *granted, num_worse(model.val_losses))
    measured = track.models.get(model.name, ModelTrack()).durations_s
    watched = (paces_s[model.name],) if model.name in paces_s else ()
    return at_pace(EpochsLeft(left.low, left.high), measured or watched)


def _current(models: Mapping[str, ModelView], pulse: Pulse) -> ModelView | None:
    if pulse.model is not None and pulse.model in models:
        return models[pulse.model]
    begun = [model for model in models.values() if model.epochs or model.epochs_done]
    return begun[-1] if begun else None


def _epoch(model: ModelView | None) -> int | None:
    if model is None:
        return None
    number = int(model.epochs_done) + (not model.is_over)
    return min(number, model.num_epochs) if model.num_epochs else number


def _elapsed_s(track: PhaseTrack, now: datetime) -> float:
    if track.began_at is None:
        return track.earlier_s
    return track.earlier_s + max(0.0, ((track.ended_at or now) - track.began_at).total_seconds())


def _number(figures: Mapping[str, Any], name: str) -> float | None:
    value = figures.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
