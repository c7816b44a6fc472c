"""A terminal for tests: runs a command in a pseudo-terminal and shows what a person would see."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.commands import HANG_S, ROOT, environment

_CODE = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])")
_TOKEN = re.compile(r"\x1b\[\??[\d;]*[A-Za-z]|.", re.DOTALL)


class Terminal:
    """A command in a terminal of some size.

    Args:
        arguments: Of the interpreter.
        columns: Width.
        rows: Height.

    Attributes:
        raw: Everything that was written to it.
    """

    def __init__(self, *arguments: str, columns: int, rows: int) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.raw, self._screen = "", _Screen(columns)
        self._pending = b""
        extra = {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": str(rows), "PYTHONUTF8": "1"}
        self.process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env=environment(**extra),
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def read(self) -> str:
        """Everything written so far."""
        while select.select([self._ours], [], [], 0.05)[0]:
            try:
                piece = os.read(self._ours, 65536)
            except OSError:  # the command has ended
                break
            if not piece:
                break
            self._pending += piece
        self.raw += (text := self._pending.decode("utf-8", "ignore"))
        self._pending = self._pending[len(text.encode()) :]
        return self.raw

    def wait_for(self, condition: Callable[[list[str]], bool]) -> list[str]:
        """Wait until what is seen is as it should be; that."""
        deadline = time.monotonic() + HANG_S
        while True:
            ended = self.process.poll() is not None
            if condition(seen := self.seen()):
                return seen
            assert time.monotonic() < deadline, "\n".join(seen)
            assert not ended, "\n".join([f"ended: {self.process.returncode}", *seen])
            time.sleep(0.1)

    def wait_for_end(self) -> int:
        """Wait until the command has ended, reading all the while; its exit code."""
        deadline = time.monotonic() + HANG_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "\n".join(self.seen())
            self.read()
        self.read()
        return self.process.returncode

    def seen(self) -> list[str]:
        """Lines on the terminal, those that were scrolled away too, as a person sees them."""
        self._screen.feed(self.read()[self._screen.num_fed :])
        return self._screen.lines


class _Screen:
    """What a terminal makes of output: it prints, wraps, goes up and clears lines, and knows no more."""

    def __init__(self, columns: int) -> None:
        self.num_fed = 0
        self._columns = columns
        self._cells: list[list[str]] = [[]]
        self._row = self._column = 0

    @property
    def lines(self) -> list[str]:
        return ["".join(cells).rstrip() for cells in self._cells]

    def feed(self, text: str) -> None:
        begun = text.rfind("\x1b")
        if begun >= 0 and not _CODE.match(text, begun):
            text = text[:begun]  # the rest of the code is still to come
        self.num_fed += len(text)
        for token in _TOKEN.finditer(text):
            if code := _CODE.fullmatch(token[0]):
                self._obey(code[1], code[2])
            else:
                self._print(token[0])

    def _obey(self, argument: str, kind: str) -> None:
        if kind == "A":
            self._row = max(0, self._row - int(argument or 1))
        elif kind == "K" and argument == "2":
            self._cells[self._row] = []
        elif kind not in "mhl":
            raise AssertionError(f"control code {argument}{kind}")

    def _print(self, letter: str) -> None:
        if letter == "\r":
            self._column = 0
            return
        if letter == "\n" or self._column == self._columns:
            self._row, self._column = self._row + 1, 0
        self._cells += [[] for _ in range(self._row + 1 - len(self._cells))]
        if letter != "\n":
            cells = self._cells[self._row]
            cells += " " * (self._column + 1 - len(cells))
            cells[self._column] = letter
            self._column += 1
