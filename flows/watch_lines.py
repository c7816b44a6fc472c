"""The live view where there is no terminal: a line for everything that changed, without control codes."""

import time
from collections.abc import Callable

from core.logs import printable
from core.planning.live.view import LiveView, PhaseView
from flows.watch_words import headline, left_words, model_words, now_words, percent, time_of_day, what_next

PROGRESS_S = 10.0
"""Least time between two lines that only tell of progress."""
_MOST_OLD = 5


class WatchLines:
    """Says what changed between looks.

    Args:
        say: Takes a line.
        clock: Seconds that only grow.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._before: LiveView | None = None
        self._said, self._said_s = "", -PROGRESS_S

    def show(self, view: LiveView) -> None:
        """Say what is new in a view."""
        before, self._before = self._before, view
        if before is None or (before.plan_id, before.status) != (view.plan_id, view.status):
            about = f"{headline(view)}: {view.status}" if view.plan_id else what_next(view)
            self._line(view, about)
            if view.plan_id and (todo := what_next(view)):
                self._line(view, todo)
            if view.problem:
                self._line(view, view.problem)
        for line in news(before, view):
            self._say(line)
        self._progress(view)

    def _progress(self, view: LiveView) -> None:
        text = progress_line(view)
        now_s = self._clock()
        due = view.is_over or now_s - self._said_s >= PROGRESS_S
        if text and text != self._said and due:
            self._said, self._said_s = text, now_s
            self._line(view, text)

    def _line(self, view: LiveView, text: str) -> None:
        self._say(f"{time_of_day(view.looked_at)}  {printable(text)}")


def progress_line(view: LiveView) -> str:
    """How far a plan is and what it does; empty where there is none."""
    if view.plan_id is None or not view.phases:
        return ""
    running = [_phase_words(phase) for phase in view.running] if view.status == "running" else []
    return printable("; ".join([f"{percent(view.fraction)} done, {left_words(view)}", *running]))


def news(before: LiveView | None, now: LiveView) -> list[str]:
    """What was decided and begun since the last look; of what was before the first one, only the last."""
    fresh = now.decisions[-_MOST_OLD:]
    begun: list[str] = []
    if before is not None and before.plan_id == now.plan_id:
        seen = set(before.decisions)
        fresh = tuple(decision for decision in now.decisions if decision not in seen)
        at_work = {(phase.dataset, phase.phase) for phase in before.running}
        begun = [
            f"{time_of_day(now.looked_at)}  {printable(phase.dataset)} {phase.phase}: begins"
            for phase in now.running
            if (phase.dataset, phase.phase) not in at_work and phase.attempt == 1
        ]
    said = [f"{time_of_day(d.at)}  {printable(f'{d.where}: {d.text}' if d.where else d.text)}" for d in fresh]
    return said + begun


def _phase_words(phase: PhaseView) -> str:
    words = ", ".join([*now_words(phase), *model_words(phase)])
    what = f"{phase.dataset} {phase.phase} {percent(phase.fraction)}"
    return f"{what}: {words}" if words else what
