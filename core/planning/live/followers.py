"""Plans followed from look to look: only what changed is read, and what did not change is not even listed."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from core.errors import EventLogError
from core.events.log import EventLog
from core.events.projection import Following, Projection
from core.planning.plan_state import PLAN_STATE, PlanState

State = TypeVar("State")

_SETTLED_NS = 2 * 10**9
"""A folder that changed longer ago than this cannot have changed again within the same tick of its clock."""
_REMOTE_S = 1.0
"""How often an object store is asked at most, which cannot say cheaply whether anything changed."""


class Follower(Generic[State]):
    """Follows a stream, and does not even list its folder while that has not changed."""

    def __init__(self, log: EventLog, plan_id: str, projection: Projection[State]) -> None:
        self._folders = [log.folder / plan_id] if log.folder else None
        self._following = Following(log, plan_id, projection)
        self._state = projection.initial
        self._error: EventLogError | None = None
        self._changes = _Changes()

    def state(self) -> State:
        """The state now; errors as in ``EventLog.read``."""
        if self._changes.seen_in(self._folders):
            self._error = None
            try:
                self._state = self._following.state()
            except EventLogError as error:
                self._error = error
        if self._error:
            raise self._error
        return self._state


class AllPlans:
    """How all plans of an output directory stand."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._followers: dict[str, Follower[PlanState]] = {}
        self._changes = _Changes()
        self._without_events: list[Path] = []

    def states(
        self, watched: Mapping[str, Callable[[], PlanState]]
    ) -> tuple[dict[str, PlanState], dict[str, EventLogError]]:
        """State by plan, and by plan why it cannot be read.

        Args:
            watched: Plans that are followed elsewhere, and their states.

        Raises:
            EventLogError: The plans cannot be listed.
        """
        # A plan's folder is there a moment before its first event.
        root = self._log.folder
        if self._changes.seen_in([root, *self._without_events] if root else None):
            self._list()
        states: dict[str, PlanState] = {}
        problems: dict[str, EventLogError] = {}
        for name, follower in self._followers.items():
            try:
                states[name] = watched.get(name, follower.state)()
            except EventLogError as error:
                problems[name] = error
        return states, problems

    def _list(self) -> None:
        root = self._log.folder
        folders = [path for path in root.iterdir() if path.is_dir()] if root and root.is_dir() else []
        names = self._log.streams()
        self._without_events = [path for path in folders if path.name not in names]
        self._followers = {
            name: self._followers.get(name) or Follower(self._log, name, PLAN_STATE) for name in names
        }


class _Changes:
    """Whether anything was put into some folders since they were last looked at."""

    def __init__(self) -> None:
        self._times_ns: list[int] | None = None
        self._settled = False
        self._asked_s: float | None = None

    def seen_in(self, folders: list[Path] | None) -> bool:
        """Whether to look into them; in doubt it is so. None stands for what lies in no folder here."""
        if folders is None:
            now_s = time.monotonic()
            is_due = self._asked_s is None or now_s - self._asked_s >= _REMOTE_S
            self._asked_s = now_s if is_due else self._asked_s
            return is_due
        now_ns = time.time_ns()
        times_ns = [_changed_ns(folder) for folder in folders]
        changed = times_ns != self._times_ns or not self._settled
        self._times_ns, self._settled = times_ns, now_ns - max(times_ns) > _SETTLED_NS
        return changed


def _changed_ns(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0
