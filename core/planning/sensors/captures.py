"""Whether the captures of datasets are others than their newest models were trained on, without training.

What was seen is remembered in ``{output_dir}/watched/captures.json``: the hashes of captures that no plan
has read yet, and the digests that were told. Without the file captures are hashed and told once more,
nothing worse.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from core.can.digest import Row, digest_captures
from core.can.registry import DEMO, Capture, find_captures, known_datasets
from core.errors import UNREADABLE, CaptureError
from core.events.files import replace_file
from core.events.leases import last_sign
from core.events.open import attempt, open_log, open_store
from core.planning.live.progress import LOG
from core.planning.phases import TEACHER
from core.planning.registry_view import RegistryView, registry_view
from settings.app import Settings
from settings.errors import SettingsError
from settings.layout import Layout

Status = Literal["unchanged", "changed", "told", "unsettled", "at work", "unreadable"]
Hashes = Mapping[tuple[str, int, int], str]
_MEMORY = "captures.json"
TELL_AGAIN_S = 86_400.0
"""What was told may have reached nobody: a server that was busy, a run that could not begin."""


class Watched(NamedTuple):
    """What became of one dataset's captures.

    Attributes:
        dataset: Its name.
        status: ``changed`` is news; ``told`` was news before; ``unsettled`` captures are still being written;
            ``at work`` is a dataset that a plan trains now; ``unreadable`` captures are missing or damaged.
        reason: Why, for people.
        data_digest: Digest of its captures; empty where they were not hashed.
        num_captures: How many there are.
    """

    dataset: str
    status: Status
    reason: str
    data_digest: str = ""
    num_captures: int = 0


@dataclass
class CaptureMemory:
    """What was seen before.

    Attributes:
        layout: Whose memory it is.
        rows: Captures by dataset, as of ``digest_captures``.
        told: The digest of each dataset that was told last, and when (seconds since 1970).
    """

    layout: Layout
    rows: dict[str, list[Row]] = field(default_factory=dict)
    told: dict[str, tuple[str, float]] = field(default_factory=dict)

    @classmethod
    def read(cls, layout: Layout) -> "CaptureMemory":
        """What is remembered; nothing where the file is gone or damaged."""
        path = layout.watched / _MEMORY
        try:
            content = json.loads(path.read_bytes())
            told = {name: (str(digest), float(at)) for name, (digest, at) in content["told"].items()}
            memory = cls(layout, dict(content["rows"]), told)
            for dataset in memory.rows:
                memory.hashes(dataset)
        except FileNotFoundError:
            return cls(layout)
        except UNREADABLE as error:
            LOG.warning("what was seen of captures is forgotten: %s: %s", path, error)
            return cls(layout)
        return memory

    def hashes(self, dataset: str) -> Hashes:
        """sha256 of captures by path, size and time."""
        rows = self.rows.get(dataset, ())
        return {(row["path"], row["num_bytes"], row["mtime_ns"]): row["sha256"] for row in rows}

    def told_lately(self, dataset: str) -> str:
        """The digest that was told within a day; a change that nobody acted on by then is told once more."""
        digest, at = self.told.get(dataset, ("", 0.0))
        return digest if time.time() - at < TELL_AGAIN_S else ""

    def remember_told(self, found: Watched) -> None:
        """Remember that a change was told, so that it is not told again soon."""
        self.told[found.dataset] = found.data_digest, time.time()
        self.write()

    def write(self) -> None:
        """Write it down.

        Raises:
            OSError: The output directory cannot be written.
        """
        content = json.dumps({"rows": self.rows, "told": self.told}, indent=1).encode()
        replace_file(self.layout.watched / _MEMORY, content)


def look_at_captures(
    settings: Settings,
    memory: CaptureMemory,
    datasets: Sequence[str],
    wait: Callable[[], object],
    is_at_work: Callable[[str], bool],
) -> list[Watched]:
    """Look at the captures of datasets.

    Files that neither the log nor the memory knows are looked at twice, with a wait between: whoever writes a
    capture takes a while, and only what has stayed as it is counts.

    Args:
        settings: Where datasets are; folders of captures absolute, as plans have them.
        memory: What was seen before; hashes are added to it.
        datasets: Only these; empty for your own ones, those that are there, and those that were trained,
            without the demo, which is simulated.
        wait: Lets the time pass after which a file that has not changed is complete.
        is_at_work: Whether some process trains a dataset now.

    Returns:
        What became of each dataset; one that cannot be read does not keep others from being looked at.

    Raises:
        SettingsError: An unknown dataset.
        EventLogError: The event log, or the memory, cannot be used.
    """
    view = registry_view(open_log(memory.layout))
    first = {name: _look(name, settings) for name in _watched(settings, view, datasets)}
    known = {name: {**memory.hashes(name), **view.known_hashes(name)} for name in first}
    fresh = [n for n, seen in first.items() if isinstance(seen, dict) and not seen.keys() <= known[n].keys()]
    if fresh:
        wait()
    second = {name: _look(name, settings) if name in fresh else seen for name, seen in first.items()}
    return [_judge(name, first[name], second[name], known[name], view, memory, is_at_work) for name in first]


_Seen = dict[tuple[str, int, int], Capture]
"""Captures by path, size and time of their last change."""


def _watched(settings: Settings, view: RegistryView, datasets: Sequence[str]) -> Iterator[str]:
    known = known_datasets(settings.data)
    trained = {dataset for dataset, _ in view.models}
    for name in datasets:
        if name not in known:
            raise SettingsError(f"unknown dataset {name!r}: known are {', '.join(known)}")
    if datasets:
        yield from dict.fromkeys(datasets)
        return
    for name in known:
        if name == DEMO and name not in settings.data.datasets:
            continue  # simulated as settings say: it differs between settings, and never changes by itself
        if name in settings.data.datasets or name in trained:
            yield name
        else:
            with contextlib.suppress(CaptureError):  # a published dataset that nobody put there
                find_captures(name, settings.data)
                yield name


def _look(dataset: str, settings: Settings) -> _Seen | str:
    """The captures as they lie there now, or why they cannot be told."""
    try:
        seen = {}
        for capture in find_captures(dataset, settings.data):
            status = capture.path.stat()
            seen[capture.path.as_posix(), status.st_size, status.st_mtime_ns] = capture
    except (CaptureError, OSError) as error:
        return str(error)
    return seen


def _judge(
    dataset: str,
    first: _Seen | str,
    second: _Seen | str,
    known: Hashes,
    view: RegistryView,
    memory: CaptureMemory,
    is_at_work: Callable[[str], bool],
) -> Watched:
    if isinstance(first, str) or isinstance(second, str):
        return Watched(dataset, "unreadable", first if isinstance(first, str) else str(second))
    if first.keys() != second.keys():
        return Watched(dataset, "unsettled", _difference(first, second))
    if is_at_work(dataset):
        return Watched(dataset, "at work", "a plan trains it; its captures are looked at again after that")
    try:
        digest, rows = digest_captures(second.values(), known)
    except CaptureError as error:
        return Watched(dataset, "unreadable", str(error))
    hashed = {(row["path"], row["num_bytes"], row["mtime_ns"]) for row in rows}
    if hashed != second.keys():
        return Watched(dataset, "unsettled", "captures changed while they were read")
    memory.rows[dataset] = rows
    status, reason = judge_digest(dataset, digest, view, memory.told_lately(dataset))
    return Watched(dataset, status, reason, digest, len(rows))


def is_at_work(layout: Layout, dataset: str) -> bool:
    """Whether some process holds a dataset, as far as that can be seen from here.

    A process on another machine that was lost counts until somebody takes its work over.

    Raises:
        EventLogError: The storage cannot be read.
    """
    store = open_store(layout, "leases")
    last = attempt(store, lambda: last_sign(store, dataset))
    return last is not None and not last[1].is_free


def judge_digest(dataset: str, digest: str, view: RegistryView, told: str) -> tuple[Status, str]:
    """Whether captures are news.

    Args:
        dataset: The dataset.
        digest: Of its captures now.
        view: What its newest models were trained on.
        told: The digest that was told lately; empty if none was.

    Returns:
        What they are, and why.
    """
    teacher = view.models.get((dataset, TEACHER))  # the first to be trained on new captures
    if teacher and teacher.data_digest == digest:
        return "unchanged", f"its models were trained on them ({digest[:8]})"
    if told == digest:
        return "told", f"nothing new since this was told ({digest[:8]})"
    return (
        "changed",
        f"trained on {teacher.data_digest[:8]}, now {digest[:8]}" if teacher else "never trained",
    )


def _difference(first: _Seen, second: _Seen) -> str:
    names = sorted({path.rpartition("/")[2] for path, _, _ in first.keys() ^ second.keys()})
    return f"still being written: {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
