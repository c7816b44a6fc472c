"""What is shared between machines besides the log, on whatever store it is: models, checkpoints, samples."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.errors import ArtifactError, DamagedLogError, LeaseLostError
from core.events.catalogue import CheckpointWritten, ModelSaved, PhaseFinished, to_event
from core.events.event import Event
from core.events.shared_telemetry import fetch_telemetry, share_telemetry
from core.events.stores import SegmentStore
from core.events.telemetry import FLUSHES_PER_MERGE, ResourceSample, TelemetryWriter, read_telemetry
from core.planning.plan import model_damage
from core.planning.shared.files import SharedFiles, checkpoint_path, model_path
from settings.layout import Layout

OpenStore = Callable[[], SegmentStore]
PLAN = "plan-1"
KEEP = 2
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Machine:
    """An output directory, and what it shares."""

    def __init__(self, folder: Path, store: SegmentStore) -> None:
        self.layout, self.store = Layout(folder), store
        self.files = SharedFiles(self.layout, store)

    def save_model(self, content: bytes, phase: str = "teacher") -> ModelSaved:
        saved = model_saved(content, phase)
        path = model_path(self.layout, saved)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        with self.files.sharing(PLAN, saved, KEEP):
            assert saved.sha256 in self.store.names("models"), "it is there before the log names it"
        return saved

    def write_checkpoint(self, epoch: int, content: bytes = b"", model: str = "vgae") -> CheckpointWritten:
        content = content or f"{model} {epoch}".encode()
        written = checkpoint_written(epoch, content, model)
        path = checkpoint_path(self.layout, written)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        sidecar = {"version": 3, "sha256": written.sha256, "key": "key"}
        path.with_suffix(".json").write_text(json.dumps(sidecar))
        with self.files.sharing(PLAN, written, KEEP):
            assert any(written.sha256 in name for name in self.store.names(f"checkpoints-{PLAN}"))
        return written

    def checkpoints(self) -> list[str]:
        """Names of those that are here."""
        return sorted(path.stem[:12] for path in self.layout.checkpoints.rglob("*.pt"))

    def shared_checkpoints(self) -> list[str]:
        names = self.store.names(f"checkpoints-{PLAN}")
        assert {n.removesuffix(".pt") for n in names if n.endswith(".pt")} == {
            n.removesuffix(".json") for n in names if n.endswith(".json")
        }
        return sorted(name.split(",")[3][:12] for name in names if name.endswith(".pt"))


def model_saved(content: bytes, phase: str = "teacher", path: str = "") -> ModelSaved:
    return ModelSaved(
        dataset="demo",
        phase=phase,
        path=path or f"/another/machine/saved_models/{phase}_demo.pth",
        sha256=hashlib.sha256(content).hexdigest(),
        data_digest="",
        settings_digest="",
        parent_sha256="",
        num_parameters={},
    )


def checkpoint_written(epoch: int, content: bytes, model: str = "vgae", path: str = "") -> CheckpointWritten:
    return CheckpointWritten(
        dataset="demo",
        phase="teacher",
        model=model,
        epoch=epoch,
        num_steps=None,
        path=path or f"/another/machine/epoch-{epoch:06d}-step-00000000.pt",
        sha256=hashlib.sha256(content).hexdigest(),
    )


def events_of(*facts: CheckpointWritten) -> list[Event]:
    return [to_event(PLAN, fact) for fact in facts]


@pytest.fixture
def one(tmp_path: Path, open_store: OpenStore) -> Machine:
    return Machine(tmp_path / "one", open_store())


@pytest.fixture
def other(tmp_path: Path, open_store: OpenStore) -> Machine:
    return Machine(tmp_path / "other", open_store())


# Models


def test_a_model_is_fetched_where_another_one_or_none_lies_under_its_name(
    one: Machine, other: Machine
) -> None:
    saved = one.save_model(b"weights")
    assert model_damage(other.layout, saved, None).startswith("its file is gone")
    assert model_damage(other.layout, saved, other.files) == ""
    assert model_path(other.layout, saved).read_bytes() == b"weights"
    model_path(other.layout, saved).write_bytes(b"of an older plan")
    assert model_damage(other.layout, saved, other.files) == ""
    assert model_path(other.layout, saved).read_bytes() == b"weights"


def test_a_model_that_was_changed_in_the_storage_is_refused_and_mended_by_who_has_it(
    one: Machine, other: Machine
) -> None:
    saved = one.save_model(b"weights")
    one.store.delete("models", saved.sha256)
    assert one.store.put_if_absent("models", saved.sha256, b"hostile")
    assert "is not the one that was saved" in model_damage(other.layout, saved, other.files)
    assert not model_path(other.layout, saved).exists()
    one.files.share_model(saved)
    assert model_damage(other.layout, saved, other.files) == ""


def test_a_model_that_is_nowhere_is_gone(one: Machine) -> None:
    assert model_damage(one.layout, model_saved(b"weights"), one.files).startswith("its file is gone")


def test_a_model_is_not_shared_under_the_hash_of_another(one: Machine) -> None:
    saved = one.save_model(b"weights", "student")
    model_path(one.layout, saved).write_bytes(b"torn")
    with pytest.raises(ArtifactError, match="not the model that was saved"):
        one.files.share_model(model_saved(b"other weights", "student"))
    assert one.store.names("models") == [saved.sha256]


class Counting:
    """A store that remembers what was put."""

    def __init__(self, store: SegmentStore) -> None:
        self._store, self.location, self.num_bytes = store, store.location, 0

    def put_if_absent(self, stream: str, name: str, content: bytes) -> bool:
        self.num_bytes += len(content)
        return self._store.put_if_absent(stream, name, content)

    def streams(self) -> list[str]:
        return self._store.streams()

    def names(self, stream: str) -> list[str]:
        return self._store.names(stream)

    def read(self, stream: str, name: str, max_bytes: int) -> bytes:
        return self._store.read(stream, name, max_bytes)

    def delete(self, stream: str, name: str) -> None:
        self._store.delete(stream, name)


def test_nothing_is_uploaded_twice(tmp_path: Path, open_store: OpenStore) -> None:
    store = Counting(open_store())
    machine = Machine(tmp_path, store)
    for _ in range(3):
        saved = machine.save_model(b"weights")
        machine.files.share_model(saved)
    assert store.num_bytes == len(b"weights")


@pytest.mark.parametrize("name", ["..", "../../etc/passwd/..", ".hidden", "a,b.pth", "a b"])
def test_no_name_in_a_log_leads_out_of_its_folder(one: Machine, name: str) -> None:
    assert "is no name of a file" in model_damage(one.layout, model_saved(b"weights", path=name), one.files)
    with pytest.raises(ArtifactError, match="is no name of a file"):
        checkpoint_path(one.layout, checkpoint_written(1, b"", path=name))
    with pytest.raises(ArtifactError, match="is no name of a file"):
        checkpoint_path(one.layout, checkpoint_written(1, b"", model=name))


# Checkpoints


def test_the_latest_checkpoint_of_each_model_is_fetched_once(one: Machine, other: Machine) -> None:
    written = [one.write_checkpoint(epoch) for epoch in (1, 2, 3)] + [one.write_checkpoint(1, model="gat")]
    assert other.files.fetch_checkpoints(events_of(*written), "demo", "teacher") == []
    assert other.checkpoints() == ["epoch-000001", "epoch-000003"]
    path = checkpoint_path(other.layout, written[2])
    assert path.read_bytes() == b"vgae 3"
    assert json.loads(path.with_suffix(".json").read_text())["key"] == "key"
    before = path.stat()
    other.files.fetch_checkpoints(events_of(*written), "demo", "teacher")
    assert path.stat().st_ino == before.st_ino
    assert other.files.fetch_checkpoints(events_of(*written), "demo", "student") == []


@pytest.mark.parametrize("ending", [".pt", ".json"])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_fetched(
    one: Machine, other: Machine, ending: str
) -> None:
    written = [one.write_checkpoint(epoch) for epoch in (1, 2)]
    stream = f"checkpoints-{PLAN}"
    (name,) = (n for n in one.store.names(stream) if "epoch-000002" in n and n.endswith(ending))
    one.store.delete(stream, name)
    one.store.put_if_absent(stream, name, b'{"sha256": []}')
    (refused,) = other.files.fetch_checkpoints(events_of(*written), "demo", "teacher")
    assert refused.path == written[1].path
    assert "is not what was written" in refused.reason
    assert other.checkpoints() == ["epoch-000001"]


def test_as_many_checkpoints_are_kept_as_in_the_output_directory_and_none_when_the_phase_ends(
    one: Machine,
) -> None:
    for epoch in range(1, 6):
        one.write_checkpoint(epoch)
        one.write_checkpoint(epoch, model="gat")
    assert one.shared_checkpoints() == ["epoch-000004"] * 2 + ["epoch-000005"] * 2
    one.write_checkpoint(4, b"training went back to the epoch before")
    assert one.shared_checkpoints().count("epoch-000005") == 1, "it is no part of what goes on"
    ended = PhaseFinished(dataset="demo", phase="teacher", attempt=1, duration_s=1.0, peak_memory_mib=1.0)
    with one.files.sharing(PLAN, ended, KEEP):
        pass
    assert one.shared_checkpoints() == []


def test_a_machine_that_lost_the_chain_deletes_nothing_of_the_next_one(one: Machine, other: Machine) -> None:
    for epoch in (1, 2, 3):
        other.write_checkpoint(epoch)
    written = checkpoint_written(1, b"late")
    path = checkpoint_path(one.layout, written)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"late")
    path.with_suffix(".json").write_text(json.dumps({"sha256": written.sha256}))
    with pytest.raises(LeaseLostError), one.files.sharing(PLAN, written, KEEP):
        raise LeaseLostError("the append was refused")
    assert {"epoch-000002", "epoch-000003"} <= set(other.shared_checkpoints())


def test_a_checkpoint_that_training_has_replaced_meanwhile_is_passed_over(one: Machine) -> None:
    with one.files.sharing(PLAN, checkpoint_written(7, b"gone by now"), KEEP):
        pass
    assert one.shared_checkpoints() == []


# Resource samples


def sample(second: int) -> ResourceSample:
    return ResourceSample(occurred_at=NOON + timedelta(seconds=second), cpu_percent=float(second))


def test_every_sample_counts_once_while_the_writer_merges(tmp_path: Path, open_store: OpenStore) -> None:
    writing, reading, cache = open_store(), open_store(), tmp_path / "cache"
    writer = TelemetryWriter(
        tmp_path / "own", PLAN, "demo", lambda folder, is_over: share_telemetry(writing, folder, is_over)
    )
    for second in range(FLUSHES_PER_MERGE + 2):
        writer.write([sample(second)])
        if second in (0, 1, FLUSHES_PER_MERGE - 2, FLUSHES_PER_MERGE - 1, FLUSHES_PER_MERGE + 1):
            fetch_telemetry(reading, cache, PLAN)
            assert read_telemetry(cache)["cpu_percent"].to_list() == list(range(second + 1))
    writer.merge()
    fetch_telemetry(reading, cache, None)
    assert len(read_telemetry(cache)) == FLUSHES_PER_MERGE + 2
    (stream,) = (name for name in reading.streams() if name.startswith("plan="))
    assert len(reading.names(stream)) == 1
    assert len(list(cache.rglob("*.parquet"))) == 1
    assert list((tmp_path / "own").rglob("*.parquet")) == []


def test_samples_that_could_not_be_shared_are_shared_the_next_time(
    tmp_path: Path, open_store: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    store, is_away = open_store(), [True]

    def share(folder: Path, is_over: bool) -> None:
        if is_away[0]:
            raise OSError("away")
        share_telemetry(store, folder, is_over)

    writer = TelemetryWriter(tmp_path / "own", PLAN, "demo", share)
    writer.write([sample(0)])
    writer.write([sample(1)])
    assert caplog.messages == ["telemetry is not shared: away"]
    is_away[0] = False
    writer.write([sample(2)])
    fetch_telemetry(store, tmp_path / "cache", PLAN)
    assert len(read_telemetry(tmp_path / "cache")) == 3


def test_samples_that_were_changed_in_the_storage_are_refused(tmp_path: Path, open_store: OpenStore) -> None:
    store = open_store()
    writer = TelemetryWriter(tmp_path, PLAN, "demo", lambda *told: share_telemetry(store, *told))
    writer.write([sample(0)])
    (stream,) = (name for name in store.streams() if name.startswith("plan="))
    (name,) = store.names(stream)
    content = bytearray(store.read(stream, name, 2**20))
    content[len(content) // 2] ^= 1
    store.delete(stream, name)
    store.put_if_absent(stream, name, bytes(content))
    with pytest.raises(DamagedLogError, match=f"{name} is not as it was written"):
        fetch_telemetry(store, tmp_path / "cache", None)
    assert list((tmp_path / "cache").rglob("*.parquet")) == []


@pytest.mark.parametrize("stream", ["plan=..,dataset=..", "plan=a,dataset=../../x", "..", "plan=a"])
def test_no_name_in_the_storage_leads_out_of_the_folder(tmp_path: Path, stream: str) -> None:
    from core.events.stores import MemoryStore

    store, cache = MemoryStore(), tmp_path / "a" / "b" / "cache"
    writer = TelemetryWriter(tmp_path / "own", PLAN, "demo", lambda *told: share_telemetry(store, *told))
    writer.write([sample(0)])
    ((name, content),) = ((n, store.read(s, n, 2**20)) for s in store.streams() for n in store.names(s))
    for hostile in (name, f"../{name}", "..", f"/{name}"):
        store.put_if_absent(stream, hostile, content)
    fetch_telemetry(store, cache, None)
    outside = {path for path in tmp_path.rglob("*.parquet") if tmp_path / "own" not in path.parents}
    assert all(cache in path.parents for path in outside)
    assert all(".." not in path.parts for path in outside)
