"""Storage that others write to as well: blobs without measure, no files at all, signs that nobody gave."""

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import EventLogError, StorageError
from core.events.catalogue import ModelSaved
from core.events.leases import Holder, Leases, Sign, last_sign
from core.events.open import POINTER, bind_storage, open_log
from core.events.stores import SMALL_BYTES, LocalStore, MemoryStore
from core.planning.shared.files import SharedFiles
from settings.app import load_settings
from settings.layout import Layout
from tests.sample_log import sample_events

HUGE = 2**33


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    """It takes no room, and would take 8 GiB of memory."""
    with path.open("wb") as file:
        file.truncate(HUGE)


def waiting(path: Path) -> None:
    os.mkfifo(path)


UNREADABLE = [endless, huge, waiting]


@pytest.mark.parametrize("make", UNREADABLE)
def test_what_never_ends_is_not_read(make: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "plan").mkdir()
    make(tmp_path / "plan" / "blob")
    with pytest.raises(OSError, match=r"no regular file|holds more than"):
        LocalStore(tmp_path).read("plan", "blob", SMALL_BYTES)


@pytest.mark.parametrize("make", UNREADABLE)
def test_it_is_named_wherever_it_lies(make: Callable[[Path], None], tmp_path: Path) -> None:
    shared, layout = tmp_path / "shared", Layout(tmp_path / "out")
    shared.mkdir()
    settings = load_settings(output_dir=layout.root, storage={"url": str(shared)})
    bind_storage(settings)
    (shared / "events" / "plan").mkdir(parents=True)
    make(shared / "events" / "plan" / "00000000.parquet")
    with pytest.raises(EventLogError, match=r"00000000\.parquet"):
        open_log(layout).read("plan")
    (shared / "leases" / "demo").mkdir(parents=True)
    make(shared / "leases" / "demo" / "000000000000.json")
    with pytest.raises(EventLogError, match=r"000000000000\.json"):
        Leases(LocalStore(shared / "leases")).take("demo", "plan", 1.0)
    model = next(event for event in sample_events() if event.type == "model_saved").payload
    (shared / "files" / "models").mkdir(parents=True)
    make(shared / "files" / "models" / model["sha256"])
    with pytest.raises(StorageError, match=model["sha256"]):
        SharedFiles(layout, LocalStore(shared / "files")).read_model(ModelSaved(**model))
    (shared / "identity" / "id").unlink()
    make(shared / "identity" / "id")
    with pytest.raises(StorageError, match="identity/id"):
        open_log(layout)
    (layout.root / POINTER).unlink()
    make(layout.root / POINTER)
    with pytest.raises(StorageError, match=POINTER):
        open_log(layout)


SIGN = json.loads(Sign(Holder.here(), "plan", 60.0).encode())


@pytest.mark.parametrize(
    "fields",
    [
        {**SIGN, "lease_s": 1e300},
        {**SIGN, "lease_s": "60; rm"},
        {**SIGN, "lease_s": -1},
        {**SIGN, "lease_s": float("nan")},
        {**SIGN, "holder": {**SIGN["holder"], "pid": "../../etc"}},
        {**SIGN, "holder": {**SIGN["holder"], "pid": -1}},
        {**SIGN, "holder": {**SIGN["holder"], "host": ["a"]}},
        {**SIGN, "is_last": {"a": 1}},
        {**SIGN, "purpose": "../../tmp/plan"},
        {**SIGN, "purpose": "plan\n"},
        {"holder": SIGN["holder"]},
        [],
        json.loads("[" * 900 + "]" * 900),
    ],
)
def test_a_sign_that_nobody_gives_is_refused(fields: object) -> None:
    store = MemoryStore()
    store.put_if_absent("demo", "000000000000.json", json.dumps(fields).encode())
    with pytest.raises(EventLogError, match=r"000000000000\.json is no sign of a lease"):
        Leases(store).take("demo", "plan", 1.0)


@pytest.mark.parametrize("content", [b"\xff", b"[" * 60_000, b'{"holder": ' * 5000])
def test_what_is_no_json_is_refused_as_well(content: bytes) -> None:
    store = MemoryStore()
    store.put_if_absent("demo", "000000000000.json", content)
    with pytest.raises(EventLogError, match=r"000000000000\.json is no sign of a lease"):
        Leases(store).take("demo", "plan", 1.0)


@pytest.mark.parametrize("name", ["5.json", "٤.json", "00000000000041.json", "9" * 5000 + ".json", "-1.json"])
def test_a_foreign_name_among_the_signs_is_passed_over(name: str) -> None:
    store, ticks = MemoryStore(), itertools.count()
    store.put_if_absent("demo", name, b"{}")
    assert last_sign(store, "demo") is None
    lease = Leases(store, clock=lambda: float(next(ticks))).take("demo", "plan", 1.0)
    assert lease.number == 0
