"""What a supervisor remembers of its training process, and tells others while it runs."""

import logging
import os
import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from core.errors import TrainingProcessError
from core.events.fact import Fact
from core.events.heartbeat import Beat
from core.resources.process_report import measure_process, write_report
from core.resources.process_state import Failure, ProcessId, ProcessState, now

_LOG = logging.getLogger(__name__)
_NUM_SIGNS = 60
_INTERVAL_S = 1.0
"""Least time between two measurements, and between two writes of the state file."""
_NAMED_FIELDS = ("phase", "model", "epoch", "num_steps", "folder")
_MESSAGE_CHARS = 2000


class Watch:
    """Keeps the last signs of a training process, and its state file.

    Args:
        name: The process's name.
        folder: Of its log, its reports and its state file.
        log: The log's file name.

    Attributes:
        state: What the file says, or will within a second.
    """

    def __init__(self, name: str, folder: Path, log: str) -> None:
        self.state = ProcessState(name=name, supervisor=ProcessId.of(os.getpid()), log=log)
        self._folder = folder
        self._signs: deque[str] = deque(maxlen=_NUM_SIGNS)
        self._figures = "not measured"
        self._beat: tuple[Beat, float] | None = None
        self._measured_s = self._written_s = -_INTERVAL_S
        self._is_written, self._warned = True, False

    def started(self, pid: int) -> None:
        """A child was started."""
        process = None
        with suppress(psutil.Error):  # it ended at once
            process = ProcessId.of(pid)
        self._beat = None
        self._tell(process=process, num_starts=self.state.num_starts + 1)

    def call_began(self, target: str, hang_timeout_s: float | None) -> None:
        """A call was sent to the child."""
        self._signs.clear()
        self._note(f"call of {target}")
        self._tell(
            at_once=True,
            activity="starting",
            target=target,
            doing=f"about to {target.rpartition(':')[2].replace('_', ' ')}",
            figures={},
            graphs_per_s=None,
            began_at=now(),
            progress_at=now(),
            hang_timeout_s=hang_timeout_s,
        )
        self.tick()

    def heard(self, sign: Fact | Beat) -> None:
        """The child made progress."""
        if isinstance(sign, Beat):
            self._note(str(sign))
            self._tell(
                activity="working",
                doing=str(sign),
                figures=dict(sign.figures),
                graphs_per_s=self._speed(sign),
                progress_at=now(),
            )
        else:
            said = {name: getattr(sign, name, None) for name in _NAMED_FIELDS}
            named = [f"{name} {value}" for name, value in said.items() if value is not None]
            self._note(" ".join([f"told {sign.TYPE}", *named]))
            self._tell(activity="working", progress_at=now())
        self.tick()

    def tick(self) -> None:
        """Measure the child and write what changed, if that is a second ago."""
        clock = time.monotonic()
        if clock - self._measured_s >= _INTERVAL_S and self.state.process:
            self._measured_s = clock
            if figures := measure_process(self.state.process.pid):
                self._figures = f"{now()}  {figures}"
        if not self._is_written and clock - self._written_s >= _INTERVAL_S:
            self._write()

    def call_ended(self) -> None:
        """The call returned."""
        self._tell(at_once=True, activity="idle", progress_at=now())

    def failed(self, error: TrainingProcessError) -> None:
        """The call failed; the child is being killed."""
        failure = Failure(error.kind, str(error)[:_MESSAGE_CHARS], now(), error.report)
        self._tell(at_once=True, activity="failed", process=None, failure=failure)

    def ended(self) -> None:
        """The supervisor needs the child no more; the last failure stays in sight."""
        if self.state.num_starts:
            self._tell(at_once=True, activity="ended", process=None)

    def report(self, kind: str, title: str, **sections: str) -> str | None:
        """Write a report: title, figures, last signs, and further sections.

        Returns:
            The file; None where it could not be written.
        """
        state = self.state
        facts = {
            "call": state.target,
            "began": state.began_at,
            "last sign of progress": f"{state.progress_at}  {state.doing}",
            "process": state.process.pid if state.process else "none",
            "figures": self._figures,
        }
        path = write_report(
            self._folder,
            f"{state.name}-{kind}",
            f"{state.name}: {title}",
            [
                ("What it was doing", [f"{name}: {value}" for name, value in facts.items()]),
                ("Last signs of progress, oldest first", self._signs),
                *((heading.replace("_", " "), text.splitlines()) for heading, text in sections.items()),
            ],
        )
        return str(path) if path else None

    def _note(self, text: str) -> None:
        self._signs.append(f"{now()}  {text}")

    def _speed(self, beat: Beat) -> float | None:
        """Graphs per second since the last sign of the same work."""
        clock = time.monotonic()
        last, self._beat = self._beat, (beat, clock)
        if last is None or last[0].what != beat.what or clock <= last[1]:
            return None
        num_graphs = beat.num_graphs - last[0].num_graphs
        return num_graphs / (clock - last[1]) if num_graphs else None

    def _tell(self, *, at_once: bool = False, **changes: Any) -> None:
        self.state = replace(self.state, **changes)
        self._is_written = False
        if at_once:
            self._write()

    def _write(self) -> None:
        self._written_s, self._is_written = time.monotonic(), True
        try:
            self.state.write(self._folder)
        except OSError as error:
            if not self._warned:
                _LOG.warning("python -m flows.status cannot see how %s is: %s", self.state.name, error)
            self._warned = True
