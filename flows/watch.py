"""Following a plan in the terminal: ``python -m flows.status --watch``, and ``flows.retrain --verbose``."""

import io
import logging
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from core.errors import EventLogError
from core.planning.live.view import LiveView
from core.planning.live.watching import Watch
from flows.watch_lines import PROGRESS_S, WatchLines, progress_line
from flows.watch_screen import LiveScreen
from settings.errors import SettingsError

INTERVAL_S = 1.0
"""Time between looks."""
_SHARE = 0.6
"""Of the terminal's rows for the view below a run's log lines."""
_LOG = logging.getLogger("core.live")


def watch(output_dir: Path, plan_id: str | None) -> None:
    """Show a plan until it has ended; on a terminal in place, else in lines.

    Args:
        output_dir: The output directory; it may be missing.
        plan_id: The plan; None for the one that something happened in last, or the first there will be.

    Raises:
        SettingsError: No such plan.
    """
    watched, console = Watch(output_dir, plan_id), _Terminal()
    require_plan(look(watched), plan_id)
    if not _is_screen(console):
        lines = WatchLines(lambda line: print(line, flush=True))
        while not _shown(watched, lines):
            time.sleep(INTERVAL_S)
        return
    with _live(console, transient=False) as live:
        view = LiveView(looked_at=datetime.now(UTC).isoformat())
        while not view.is_over:
            view = look(watched)
            _show(live, LiveScreen(view))
            if not view.is_over:
                time.sleep(INTERVAL_S)


@contextmanager
def watched_run(output_dir: Path, plan_id: str | None, ignored: Collection[str]) -> Iterator[None]:
    """Show the plan that this process carries out, from a thread of its own, below what is logged meanwhile.

    Args:
        output_dir: The output directory.
        plan_id: The plan; None for the next one.
        ignored: Plans that were there before.
    """
    console, ended = _Terminal(), threading.Event()
    if not _is_screen(console):
        with _beside(ended, lambda: _log_progress(Watch(output_dir, plan_id, ignored), ended)):
            yield
        return
    with (
        _live(console, transient=True) as live,
        _beside(ended, lambda: _draw(live, Watch(output_dir, plan_id, ignored), ended)),
    ):
        yield


def require_plan(view: LiveView, plan_id: str | None) -> None:
    """Refuse to wait for a plan that never was.

    Raises:
        SettingsError: The view knows no such plan.
    """
    known = [line.plan_id for line in view.plans]
    if plan_id is not None and plan_id not in known:
        raise SettingsError(f"no plan {plan_id}; known plans: {', '.join(known) or 'none'}")


def look(watched: Watch) -> LiveView:
    """A look that shows what is wrong instead of raising it."""
    try:
        return watched.look()
    except EventLogError as error:
        return LiveView(looked_at=datetime.now(UTC).isoformat(), status="unreadable", problem=str(error))


class _Terminal(Console):
    """A console that one thread writes to at a time: none comes between erasing the view and drawing it."""

    def __init__(self) -> None:
        super().__init__(file=sys.stdout)  # the real one, whatever takes its place
        self._writing = threading.RLock()

    def __enter__(self) -> Self:
        self._writing.acquire()
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        try:
            super().__exit__(*raised)
        finally:
            self._writing.release()


class _Above(io.TextIOBase):
    """Takes the place of a stream: whole lines go above the live view.

    Rich's own stand-in is no help: other consoles of rich, such as that of Prefect's log, look through it.
    """

    def __init__(self, console: _Terminal, file: TextIO) -> None:
        self._console, self._file, self._begun = console, file, ""

    def write(self, text: str) -> int:
        with self._console:
            *lines, self._begun = (self._begun + text).split("\n")
            if lines:
                self._console.print(Text.from_ansi("\n".join(lines)), soft_wrap=True)
        return len(text)

    def isatty(self) -> bool:
        return self._file.isatty()

    def fileno(self) -> int:
        return self._file.fileno()


@contextmanager
def _live(console: _Terminal, *, transient: bool) -> Iterator[Live]:
    live = Live(
        console=console,
        auto_refresh=False,
        vertical_overflow="crop",
        transient=transient,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    live.start()
    try:
        with _everything_above(console):
            yield live
    finally:
        with console:  # before the lock of `live`, as whoever prints takes them
            live.stop()


def _show(live: Live, screen: LiveScreen) -> None:
    with live.console:
        live.update(screen, refresh=True)


def _is_screen(console: Console) -> bool:
    return console.is_terminal and not console.is_dumb_terminal


def _shown(watched: Watch, lines: WatchLines) -> bool:
    view = look(watched)
    lines.show(view)
    return view.is_over


def _draw(live: Live, watched: Watch, ended: threading.Event) -> None:
    while not ended.is_set():
        _show(live, LiveScreen(look(watched), _SHARE, advises=False))
        ended.wait(INTERVAL_S)


def _log_progress(watched: Watch, ended: threading.Event) -> None:
    said = ""
    while not ended.wait(PROGRESS_S):
        text = progress_line(look(watched))
        if text and text != said:
            said = text
            _LOG.info("%s", text)


@contextmanager
def _beside(ended: threading.Event, run: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=run, name="live-view", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _everything_above(console: _Terminal) -> Iterator[None]:
    """Let what is printed and logged to the terminal go above the live view."""
    streams = {sys.stdout: _Above(console, sys.stdout), sys.stderr: _Above(console, sys.stderr)}
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    moved = [
        (handler, handler.stream)
        for logger in loggers
        for handler in getattr(logger, "handlers", ())
        if isinstance(handler, logging.StreamHandler) and handler.stream in streams
    ]
    for handler, stream in moved:
        handler.setStream(streams[stream])
    try:
        with redirect_stdout(streams[sys.stdout]), redirect_stderr(streams[sys.stderr]):
            yield
    finally:
        for handler, stream in moved:
            handler.setStream(stream)
