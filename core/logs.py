"""Logs: JSON lines in files for tools, one sentence a record for people.

A record says when (UTC), how serious, which logger and process, what happened, and what it belongs to: the
ids that `identified` put around the work, such as ``plan``, ``dataset``, ``phase``, ``attempt``,
``flow_run_id`` and ``task_run_id``. Where something failed, ``traceback`` has all of it, in files only.
"""

import copy
import fcntl
import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from pythonjsonlogger.json import JsonFormatter

MAX_BYTES = 10 * 2**20
"""A log file is put aside when it would grow beyond this."""

NUM_BACKUPS = 4
"""Files put aside that are kept: ``{name}.1`` is the newest."""

_IDS: ContextVar[Mapping[str, Any]] = ContextVar("ids")
_SHOWN_SECRETS = (
    re.compile(r"(://[^/@\s:\"]*:)[^\s\"']+(?=@)"),
    re.compile(r"([?&](?:password|passwd|token|secret|api_?key|signature|sig)=)[^&#\s\"']+", re.IGNORECASE),
    re.compile(r"(\b(?:Basic|Bearer) )[A-Za-z0-9+/=._~-]{8,}"),
)
"""Passwords in addresses and headers; what stands before each is kept."""
_SECRET_VARIABLE = re.compile(
    r"(AUTH_STRING|API_KEY|PRIVATE_KEY|ACCESS_KEY$|ACCOUNT_KEY|CONNECTION_STRING|SECRET|TOKEN|PASSWORD|PASSWD"
    r"|PASSPHRASE|WEBHOOK)(?!.*_(FILE|PATH|DIR)$)"
)
_SHORTEST_SECRET = 6
"""A shorter value of a variable is no secret, but part of many words."""


def log_ids() -> dict[str, Any]:
    """The ids that records get here."""
    return dict(_IDS.get({}))


@contextmanager
def identified(**ids: Any) -> Iterator[None]:
    """Put ids into every record that is logged within, besides those already there; None is left out.

    Args:
        ids: By name; plain values.
    """
    token = _IDS.set({**log_ids(), **{name: value for name, value in ids.items() if value is not None}})
    try:
        yield
    finally:
        _IDS.reset(token)


def without_secrets(text: str) -> str:
    """A text without passwords of addresses, keys of headers, and values of variables that hold secrets."""
    for secret in _secrets():
        text = text.replace(secret, "***")
    for pattern in _SHOWN_SECRETS:
        text = pattern.sub(r"\1***", text)
    return text


def _secrets() -> list[str]:
    """What the environment holds under a name that says so, in every spelling, longest first."""
    values = [
        value
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST_SECRET and _SECRET_VARIABLE.search(name.upper())
    ]
    return sorted({spelling for value in values for spelling in _spellings(value)}, key=len, reverse=True)


def _spellings(value: str) -> Iterator[str]:
    """A value as it is and as Python shows it, each also in JSON, and in an address."""
    for text in (value, repr(value)[1:-1]):
        yield text
        yield json.dumps(text)[1:-1]
        yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield quote(value, safe="", errors="surrogateescape")


def printable(text: str) -> str:
    """Text of one line without what would move the cursor or change the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def shown(text: str) -> str:
    """A text as it may go to a terminal: no secret, and but for the ends of its lines all printable."""
    return "\n".join(map(printable, without_secrets(text).splitlines()))


def headline(message: str) -> str:
    """The sentence that a failure's message begins with; tracebacks and output are on the lines below it."""
    return message.partition("\n")[0].removesuffix(":")


class Sentences(logging.Formatter):
    """Records as people read them: no traceback, no secret, nothing that a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        """The record in the given format."""
        plain = copy.copy(record)
        plain.exc_info = plain.exc_text = plain.stack_info = None
        return shown(super().format(plain))


class JsonLines(JsonFormatter):
    """Records as objects of one line: time, level, logger, pid, message, whatever else they have, and ids."""

    def __init__(self) -> None:
        names = {"levelname": "level", "name": "logger", "process": "pid", "exc_info": "traceback"}
        super().__init__(
            ["levelname", "name", "process", "message"], rename_fields=names, json_ensure_ascii=False
        )

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Begin with the time, and add the ids."""
        log_data["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        super().add_fields(log_data, record, message_dict)
        for name, value in log_ids().items():
            log_data.setdefault(name, value)

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        return without_secrets(super().format(record))


class LogFile(RotatingFileHandler):
    """JSON lines in a file that several processes may write to at once; none is lost when it is rotated.

    Args:
        path: The file; its folder is made.
        max_bytes: Where it is put aside.

    Raises:
        OSError: The folder cannot be made.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Half of a character pair, as in a file's name that is no UTF-8, becomes a JSON escape.
        super().__init__(
            path, "a", max_bytes, NUM_BACKUPS, encoding="utf-8", delay=True, errors="backslashreplace"
        )
        self._folder = os.open(path.parent, os.O_RDONLY)
        self._has_failed = False
        self.setFormatter(JsonLines())

    def emit(self, record: logging.LogRecord) -> None:
        """Append a record; the folder's lock keeps other processes from rotating meanwhile."""
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX)
            try:
                self._follow_rotation()
                super().emit(record)
            finally:
                fcntl.flock(self._folder, fcntl.LOCK_UN)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - of the base class
        """Say once that the file is incomplete: a log that cannot be written must not stop the work."""
        del record
        self._say_incomplete()

    def _open(self) -> Any:
        """Open the file; a link under its name is no log of ours."""
        return open(self.baseFilename, self.mode, encoding=self.encoding, errors=self.errors, opener=_opener)

    def close(self) -> None:
        """Close the file; what there was no room for is lost, and hides nothing else that has failed."""
        try:
            super().close()
        except OSError:
            self._say_incomplete()
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    def writes_like(self, other: logging.Handler) -> bool:
        """Whether another handler writes to the same file."""
        return isinstance(other, LogFile) and other.baseFilename == self.baseFilename

    def _say_incomplete(self) -> None:
        if not self._has_failed:
            self._has_failed = True
            print(f"the log {self.baseFilename} is incomplete: {sys.exc_info()[1]}", file=sys.stderr)

    def _follow_rotation(self) -> None:
        """Open the file anew if another process has put it aside."""
        if self.stream is None:
            return
        try:
            ours, there = os.fstat(self.stream.fileno()), Path(self.baseFilename).stat()
            is_same = os.path.samestat(ours, there)
        except FileNotFoundError:
            is_same = False
        if not is_same:
            self.stream.close()
            self.stream = self._open()


@contextmanager
def logged_to(path: Path, name: str, level: int | None = None) -> Iterator[None]:
    """Write all that a logger and those below it log to a file as well, whoever else listens.

    Args:
        path: The file; where the logger writes to it already, nothing is done.
        name: The logger.
        level: What it logs meanwhile; None for what it does anyway.

    Raises:
        OSError: The file's folder cannot be made.
    """
    handler, log = LogFile(path), logging.getLogger(name)
    if any(map(handler.writes_like, log.handlers)):
        yield
        return
    before = log.level
    log.setLevel(before if level is None else level)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
        handler.close()


def open_output(path: Path) -> IO[bytes]:
    """Open a file for what a child process prints; one that has grown too long is put aside.

    Args:
        path: The file; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > MAX_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    return open(path, "ab", opener=_opener)


def _opener(path: str, flags: int) -> int:
    """Open a log, which nobody else may write, whatever the umask; and never what a link leads to."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o644)
