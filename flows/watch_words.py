"""The words of the live view, the same in the terminal's screen, in plain lines and on the page."""

from datetime import datetime

from core.planning.live.decisions import duration
from core.planning.live.remaining import Remaining
from core.planning.live.view import LiveView, PhaseView

_GIB = 2**10  # MiB


def headline(view: LiveView) -> str:
    """The plan."""
    return f"Plan {view.plan_id}" if view.plan_id else "no plan yet"


def left_words(view: LiveView) -> str:
    """How long it went on and will."""
    went = f"{duration(view.elapsed_s)} so far" if not view.is_over else f"took {duration(view.elapsed_s)}"
    if view.is_over or view.eta is None:
        return went
    verb = "left" if view.status == "running" else "still to do"
    return f"{went}, {remaining_words(view.eta, verb)}"


def remaining_words(eta: Remaining, verb: str) -> str:
    """A time that is still needed, with its bounds."""
    if eta.middle_s is None:
        return f"at least {_roughly(eta.low_s)} {verb}" if eta.low_s >= 10 else f"time {verb} unknown"
    text = f"about {_roughly(eta.middle_s)}"
    low, high = _roughly(eta.low_s), _roughly(eta.high_s) if eta.high_s is not None else "?"
    return f"{text} {verb} ({low} to {high})" if low != high else f"{text} {verb}"


def eta_words(phase: PhaseView) -> str:
    """What is to say of a phase's time, or why it does not run."""
    if phase.status == "running":
        return remaining_words(phase.eta, "left") if phase.eta else ""
    if phase.status == "completed":
        return f"done in {duration(phase.elapsed_s)}"
    if phase.status == "pending":
        eta = phase.eta
        return f"waits, {remaining_words(eta, 'needed')}" if eta and eta.middle_s is not None else "waits"
    if phase.status == "failed":
        return "failed: " + next(iter(phase.reason.splitlines()), "")
    return phase.reason


def now_words(phase: PhaseView) -> list[str]:
    """What a phase does now."""
    if phase.model is None:
        return [phase.doing] if phase.doing else []
    words = [phase.model]
    if phase.epoch is not None:
        of = f" of {phase.num_epochs}" if phase.num_epochs else ""
        words.append(f"epoch {phase.epoch}{of}")
    if phase.step is not None and phase.num_steps:
        words.append(f"step {phase.step} of {phase.num_steps}")
    elif phase.doing.startswith("validating"):
        words.append("validating")
    if phase.graphs_per_s:
        words.append(f"{phase.graphs_per_s:,.0f} graphs/s".replace(",", " "))
    return words


def model_words(phase: PhaseView) -> list[str]:
    """How well its model does."""
    known = {"loss": phase.train_loss, "validation": phase.val_loss, "MCC": phase.val_metric}
    return [f"{name} {value:.4g}" for name, value in known.items() if value is not None]


def what_next(view: LiveView) -> str:
    """What a person can do about a plan that does not go on."""
    if view.plan_id is None:
        return "waiting for a plan; python -m flows.retrain begins one"
    if view.status == "interrupted":
        return f"nobody carries it out; python -m flows.retrain --resume {view.plan_id} takes it up"
    return ""


def percent(fraction: float) -> str:
    """A share; 100 % only of what is done."""
    return f"{int(100 * fraction + 1e-9)} %"


def gib(mib: float | None) -> str:
    """An amount of memory."""
    if mib is None:
        return "?"
    size = mib / _GIB
    return f"{size:.0f} GiB" if size >= 100 else f"{size:.1f} GiB"


def time_of_day(at: str) -> str:
    """Hours, minutes and seconds of a time."""
    return f"{datetime.fromisoformat(at):%H:%M:%S}"


def _roughly(seconds: float) -> str:
    """A time to two figures: nobody knows more of the future."""
    return duration(float(f"{seconds:.2g}") if seconds < 600 else seconds)
