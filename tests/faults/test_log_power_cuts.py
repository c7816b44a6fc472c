"""The log after a power cut: whatever was not fsynced may be gone, torn or there.

What a process does to files is written down and carried out on a model of a disk, which knows what is sure to
survive. After every single operation all folders are tried that a power cut could leave behind.
"""

import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.events.event import Event
from core.events.log import EventLog
from core.events.stores import MemoryStore
from tests import log_users
from tests.file_operations import Operation, watching

pytestmark = pytest.mark.faults
Steps = list[list[str] | None]
"""Batches to append by their names; None compacts."""
Folder = frozenset[tuple[str, bytes]]
"""Names and contents in the stream's folder."""

SCRIPTS: dict[str, Steps] = {
    "first appends": [["a", "b"], ["c"]],
    "compactions": [["a"], ["b", "c"], None, ["d"], None, ["e"]],
}
event: Callable[[str], Event] = functools.cache(log_users.event)


class Killed(BaseException):
    """Ends a process of this test where SIGKILL would end it."""


class Disk:
    """A disk that keeps for sure only what was fsynced: contents of files, and names in folders.

    Args:
        base: A folder that is there for good.
    """

    def __init__(self, base: Path) -> None:
        self._base = str(base)
        self._files: dict[str, int] = {}
        self._contents: list[bytes] = []
        self._is_synced: list[bool] = []
        self._lasting: dict[str, int | None] = {}
        """What each name stands for: a file, or None for a folder."""
        self._unsure: dict[str, list[tuple[str, int | None, bool]]] = {}
        """By folder, in order: a name, what it stands for, and whether it came or went."""

    def apply(self, operation: Operation) -> None:
        kind, path, target, content = operation
        if kind == "create":
            self._contents.append(b"")
            self._is_synced.append(False)
            self._come(path, len(self._contents) - 1)
        elif kind == "write":
            self._contents[self._files[path]] += content
            self._is_synced[self._files[path]] = False
        elif kind == "link":
            self._come(target, self._files[path])
        elif kind == "unlink":
            self._note(path, self._files.pop(path), False)
        elif kind == "mkdir":
            self._note(path, None, True)
        elif path in self._files:
            self._is_synced[self._files[path]] = True
        else:
            for change in self._unsure.pop(path, []):
                _change(self._lasting, change)

    def _come(self, path: str, file: int) -> None:
        self._files[path] = file
        self._note(path, file, True)

    def _note(self, path: str, what: int | None, came: bool) -> None:
        self._unsure.setdefault(os.path.dirname(path), []).append((path, what, came))  # noqa: PTH120

    def after_a_power_cut(self, folder: Path) -> Iterator[Folder]:
        """All contents that a folder may then have."""
        changes = [c for unsure in self._unsure.values() for c in unsure if not c[0].endswith(".tmp")]
        for happened in itertools.product([False, True], repeat=len(changes)):
            names = dict(self._lasting)
            for change in itertools.compress(changes, happened):
                _change(names, change)
            above = [str(parent) for parent in [folder, *folder.parents] if self._base in str(parent)[:-1]]
            if not all(parent in names for parent in above if parent != self._base):
                yield frozenset()
                continue
            files = [(path, file) for path, file in names.items() if file is not None]
            for contents in itertools.product(*(self._possible(file) for _, file in files)):
                named = zip((Path(path).name for path, _ in files), contents, strict=True)
                yield frozenset((name, content) for name, content in named if not name.endswith(".tmp"))

    def _possible(self, file: int) -> list[bytes]:
        content = self._contents[file]
        if self._is_synced[file]:
            return [content]
        return [b"", content[: len(content) // 2], bytes(len(content)), content]


def _change(names: dict[str, int | None], change: tuple[str, int | None, bool]) -> None:
    path, what, came = change
    if came:
        names[path] = what
    else:
        names.pop(path, None)


class Story:
    """Processes that use one log one after the other, and what was promised to them.

    Args:
        base: An empty folder.
        steps: What each of them wants to have done.
    """

    checked: set[tuple[Folder, int]]

    def __init__(self, base: Path, steps: Steps, checked: set[tuple[Folder, int]]) -> None:
        self._root, self._steps, self.checked = base / "some/events", steps, checked
        self._disk = Disk(base)
        batches = [names for names in steps if names]
        self._prefixes = [list(itertools.chain(*batches[:n])) for n in range(len(batches) + 1)]
        self._num_promised = 0
        self.num_operations = 0

    def run(self, kill_at: int | None = None) -> None:
        """A process reads the log and takes all steps, unless it is killed before an operation."""
        left = kill_at

        def watch(operation: Operation, do: Callable[[], Any]) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left = None if left is None else left - 1
            result = do()
            self._disk.apply(operation)
            self.num_operations += 1
            self._check()
            return result

        log = EventLog(self._root)
        with watching(watch):
            self._promise(len(log.read("plan")))
            for i, names in enumerate(self._steps):
                if names is None:
                    log.compact("plan")
                else:
                    log.append([event(name) for name in names])
                    self._promise(sum(len(done) for done in self._steps[: i + 1] if done))

    def _promise(self, num_events: int) -> None:
        self._num_promised = max(self._num_promised, num_events)
        self._check()

    def _check(self) -> None:
        for folder in self._disk.after_a_power_cut(self._root / "plan"):
            if (folder, self._num_promised) in self.checked:
                continue
            self.checked.add((folder, self._num_promised))
            store = MemoryStore()
            for name, content in folder:
                store.put_if_absent("plan", name, content)
            there = [e.event_id for e in EventLog(store).read("plan")]
            assert there in self._prefixes
            assert len(there) >= self._num_promised
            EventLog(store).append([event(name) for name in self._prefixes[-1]])
            assert [e.event_id for e in EventLog(store).read("plan")] == self._prefixes[-1]


@pytest.mark.parametrize("steps", SCRIPTS.values(), ids=SCRIPTS)
def test_a_power_cut_at_any_moment_takes_nothing_that_was_acknowledged_or_read(
    tmp_path: Path, steps: Steps
) -> None:
    story = Story(tmp_path, steps, set())
    story.run()
    assert story.num_operations > 20
    assert len(story.checked) > 4


@pytest.mark.parametrize("steps", SCRIPTS.values(), ids=SCRIPTS)
def test_a_power_cut_takes_nothing_that_was_there_for_those_who_came_after_a_killed_writer(
    tmp_path: Path, steps: Steps
) -> None:
    checked: set[tuple[Folder, int]] = set()
    for kill_at in itertools.count():
        base = tmp_path / str(kill_at)
        base.mkdir()
        story = Story(base, steps, checked)
        with contextlib.suppress(Killed):
            story.run(kill_at)
            break
        story.run()
    assert kill_at > 20
    assert len(checked) > 4
