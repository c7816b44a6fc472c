"""Every change that a process makes to files, one by one: to die at any of them, or to write them down."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch


class Operation(NamedTuple):
    """A change to files: create, write, fsync, link, unlink or mkdir.

    Attributes:
        kind: Which one.
        path: The file or folder.
        target: The new name that a link gives to ``path``.
        content: What is written.
    """

    kind: str
    path: str
    target: str = ""
    content: bytes = b""


Watch = Callable[[Operation, Callable[[], Any]], Any]
"""Gets each operation and what does it; returns what that returned."""


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Let every function that changes files go through ``watch``."""

    class File(io.FileIO):
        def write(self, content: Any) -> int:
            operation = Operation("write", str(self.name), content=bytes(content))
            written: int = watch(operation, lambda: super(File, self).write(content))
            return written

    real_open, fsync, link, unlink, mkdir = io.open, os.fsync, os.link, os.unlink, os.mkdir

    def watched_open(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if "x" not in mode:
            return real_open(file, mode, *args, **options)
        return watch(Operation("create", str(file)), lambda: File(str(file), mode))

    def watched_fsync(descriptor: int) -> None:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        watch(Operation("fsync", path), lambda: fsync(descriptor))

    def watched_link(path: Any, target: Any, **options: Any) -> None:
        watch(Operation("link", str(path), str(target)), lambda: link(path, target, **options))

    def watched_unlink(path: Any) -> None:
        watch(Operation("unlink", str(path)), lambda: unlink(path))

    def watched_mkdir(path: Any, mode: int = 0o777) -> None:
        watch(Operation("mkdir", str(path)), lambda: mkdir(path, mode))

    with ExitStack() as patches:
        patches.enter_context(patch("io.open", watched_open))
        for name, function in {
            "fsync": watched_fsync,
            "link": watched_link,
            "unlink": watched_unlink,
            "mkdir": watched_mkdir,
        }.items():
            patches.enter_context(patch.object(os, name, function))
        yield
