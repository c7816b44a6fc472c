"""Opening what an output directory's truth is kept in: the directory itself, or storage that machines share.

A directory that is bound to shared storage holds a pointer, ``shared-storage.json``: the storage's place and
its identity, a random name that lies in it (``{url}/identity/id``). So everything that knows only the output
directory finds the log; and a share that is not mounted, or a bucket of that name on another server, is never
taken for an empty log.
"""

import json
import os
import uuid
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from core.errors import UNREADABLE, StorageError
from core.events.files import make_folder, put_if_absent, read_regular
from core.events.log import EventLog
from core.events.stores import SMALL_BYTES, LocalStore, SegmentStore
from settings.app import Settings
from settings.errors import SettingsError
from settings.layout import Layout
from settings.storage import StorageSettings

POINTER = "shared-storage.json"
"""In the output directory: where its storage is."""
_IDENTITY = ("identity", "id")

Part = Literal["events", "files", "leases", "telemetry"]
_T = TypeVar("_T")


class _Binding(NamedTuple):
    storage: StorageSettings
    identity: str


def bind_storage(settings: Settings) -> Layout:
    """Bind the output directory to ``storage.url``, if that is given and it is not bound yet.

    Args:
        settings: Settings as loaded.

    Returns:
        The output directory's layout.

    Raises:
        SettingsError: It is bound to another place, or has a log of its own, or the place is no folder.
        StorageError: The storage, or the output directory, cannot be read or written.
    """
    layout, storage = Layout(settings.output_dir), settings.storage
    if not storage.url:
        return layout
    bound = _read_pointer(layout)
    if bound is None:
        _require_no_log(layout, storage)
        pointer = {"url": storage.place, "identity": _identify(storage)}
        try:
            make_folder(layout.root)
            put_if_absent(layout.root / POINTER, json.dumps(pointer, indent=2).encode())
        except OSError as error:
            raise StorageError(
                f"cannot write to {layout.root} (setting output_dir, flag --output-dir): {error.strerror}"
            ) from error
        bound = _read_pointer(layout)
    if bound is None or bound.storage.place != storage.place:
        raise SettingsError(
            f"storage.url is {storage.place}, but {layout.root} is bound to "
            f"{bound.storage.place if bound else 'nothing'} ({layout.root / POINTER}): use another "
            "output_dir for other storage, or leave storage.url as it was"
        )
    return layout


def open_log(layout: Layout) -> EventLog:
    """The event log of an output directory, wherever it is kept.

    Raises:
        StorageError: The shared storage cannot be reached, or is not what the directory was bound to.
    """
    return EventLog(open_store(layout, "events"))


def open_store(layout: Layout, part: Part) -> SegmentStore:
    """One part of what an output directory's truth is kept in; errors as of ``open_log``."""
    bound = _read_pointer(layout)
    if bound is None:
        return LocalStore(layout.root / part)
    if bound.storage.is_bucket:
        _require_bucket(bound, layout, _aws_environment())
    else:
        _require_identity(bound, layout)
    return open_storage(bound.storage, part)


def is_shared(layout: Layout) -> bool:
    """Whether an output directory is bound to storage that machines share; errors as of ``open_log``."""
    return _read_pointer(layout) is not None


def _read_pointer(layout: Layout) -> _Binding | None:
    path = layout.root / POINTER
    try:
        content = json.loads(read_regular(path, SMALL_BYTES))
        return _Binding(StorageSettings(url=content["url"]), str(content["identity"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UNREADABLE as error:
        raise StorageError(
            f"{path} does not say where the storage of this output directory is ({error}): bring it back"
        ) from error


def _require_no_log(layout: Layout, storage: StorageSettings) -> None:
    plans = EventLog(layout.events).streams()
    if plans:
        raise SettingsError(
            f"storage.url is {storage.place}, but {layout.root} has an event log of its own ({len(plans)} "
            "plans): use another output_dir, or leave storage.url out"
        )


def open_storage(storage: StorageSettings, part: str) -> SegmentStore:
    """One part of shared storage, whether or not an output directory is bound to it."""
    if storage.is_bucket:
        return _bucket(f"{storage.place}/{part}" if part else storage.place, _aws_environment())
    return LocalStore(Path(storage.place) / part)


@lru_cache(maxsize=32)
def _bucket(url: str, environment: tuple[object, ...]) -> SegmentStore:
    """Opened once: a connection costs more than what is asked over it."""
    from core.events.object_store import ObjectStore

    del environment
    return ObjectStore(url)


def _aws_environment() -> tuple[object, ...]:
    """What a connection depends on; none outlives a fork."""
    named = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return os.getpid(), *sorted(named.items())


def _identify(storage: StorageSettings) -> str:
    """The storage's identity; given to it by whoever is first."""
    if not storage.is_bucket and not Path(storage.place).is_dir():
        raise SettingsError(
            f"storage.url: {storage.place} is no folder on this machine: mount it, or make it if this is its "
            "first use"
        )
    store = open_storage(storage, "")
    attempt(store, lambda: store.put_if_absent(*_IDENTITY, uuid.uuid4().hex.encode()))
    return attempt(store, lambda: store.read(*_IDENTITY, SMALL_BYTES)).decode(errors="replace")


@lru_cache(maxsize=32)
def _require_bucket(bound: _Binding, layout: Layout, environment: tuple[object, ...]) -> None:
    """A bucket stays the same; a folder may be unmounted."""
    del environment
    _require_identity(bound, layout)


def _require_identity(bound: _Binding, layout: Layout) -> None:
    found = read_blob(open_storage(bound.storage, ""), *_IDENTITY, SMALL_BYTES)
    if found != bound.identity.encode():
        raise StorageError(
            f"{bound.storage.place} is not the storage that {layout.root} is bound to ({POINTER}): "
            f"{'another one lies there' if found else 'nothing lies there'}; is it mounted, and is the "
            "endpoint the same?"
        )


def read_blob(store: SegmentStore, stream: str, name: str, max_bytes: int) -> bytes | None:
    """A blob of a store; None if there is no such one.

    Raises:
        StorageError: The store cannot be read, or the blob is larger than ``max_bytes``.
    """

    def read() -> bytes | None:
        try:
            return store.read(stream, name, max_bytes)
        except FileNotFoundError:
            return None

    return attempt(store, read)


def attempt(store: SegmentStore, use: Callable[[], _T]) -> _T:
    """Use a store directly.

    Raises:
        StorageError: It cannot be read or written.
    """
    try:
        return use()
    except OSError as error:
        raise StorageError(f"cannot use the storage {store.location}: {error}") from error
