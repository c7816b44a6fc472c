"""Model files and checkpoints that somebody swapped, or that would run something."""

import hashlib
import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import ArtifactError
from core.events.catalogue import ModelSaved, to_event
from core.events.log import EventLog
from core.planning.plan import model_damage
from core.planning.shared.files import model_path
from core.training import artifacts
from core.training.checkpoint import CheckpointFolder
from core.training.detector import load_fusion, load_pair
from settings.layout import Layout
from tests.commands import run
from tests.sample_log import sample_events


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "it-ran"


def hostile_file(path: Path, marker: Path) -> str:
    """A model file that runs something when it is loaded carelessly; returns its sha256."""
    buffer = io.BytesIO()
    torch.save({"version": 1, "vgae": Bomb(marker)}, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def test_the_hostile_file_does_run_something_where_nobody_cares(tmp_path: Path, marker: Path) -> None:
    hostile_file(tmp_path / "model.pth", marker)
    torch.load(tmp_path / "model.pth", weights_only=False)
    assert marker.exists()


def test_a_model_that_would_run_something_is_refused_even_if_its_hash_is_right(
    tmp_path: Path, marker: Path
) -> None:
    path = tmp_path / "model.pth"
    sha256 = hostile_file(path, marker)
    for load in (
        lambda: artifacts.load(path, sha256),
        lambda: load_pair(path, sha256, torch.device("cpu")),
        lambda: load_fusion(path, sha256),
    ):
        with pytest.raises(ArtifactError, match="no readable model file"):
            load()
    assert not marker.exists()


def rewritten(parts: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A model file with some of its parts replaced."""
    saved, written = io.BytesIO(), io.BytesIO()
    torch.save({"w": torch.zeros(2**16)}, saved)
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(written, "w", method) as target:
        for name in source.namelist():
            target.writestr(name, parts.get(name.rpartition("/")[2], source.read(name)))
    return written.getvalue()


def named_again(content: bytes) -> bytes:
    """Every part stands twice in the table of contents."""
    end = content.rfind(b"PK\5\6")
    num, size, at = struct.unpack_from("<HII", content, end + 10)
    table = content[at : at + size]
    return (
        content[:at] + table * 2 + b"PK\5\6" + struct.pack("<4H2IH", 0, 0, 2 * num, 2 * num, 2 * size, at, 0)
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (rewritten({}, zipfile.ZIP_DEFLATED), "compressed"),
        (named_again(rewritten({})), "larger than the file"),
        (rewritten({"data.pkl": b"."}), "no readable model file"),
        (rewritten({"data.pkl": b"\x80\x02}(X\x01\0\0\0aK\x01s."}), "no readable model file"),
        (rewritten({"data.pkl": b"\x80\x02K\x01."}), "holds a int"),
        (pickle.dumps(0x1950A86A20F9469CFC6C, 2) + b"\x80\x02.", "no readable model file"),
    ],
    ids=["compressed", "overlapping", "empty pickle", "broken pickle", "number", "old format"],
)
def test_a_model_file_that_was_made_up_is_refused_whatever_it_makes_torch_do(
    content: bytes, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=says):
        artifacts.load(path, hashlib.sha256(content).hexdigest())


def test_a_pipe_in_the_place_of_a_model_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.pth")
    with pytest.raises(ArtifactError, match="no regular file"):
        artifacts.load(tmp_path / "model.pth", "")


def test_a_model_that_was_swapped_is_refused_before_torch_sees_a_byte_of_it(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pth"
    sha256 = artifacts.save(path, {"w": torch.zeros(2)})
    assert artifacts.load(path, sha256)["w"].sum() == 0
    hostile_file(path, marker)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(ArtifactError, match="the file is damaged or was replaced"):
        artifacts.load(path, sha256)


def test_a_checkpoint_that_the_log_does_not_tell_of_is_not_gone_on_from(tmp_path: Path, marker: Path) -> None:
    ours = CheckpointFolder(tmp_path, "key", keep=5, interval_s=0)
    path, sha256 = ours.write(1, 0, {"w": torch.zeros(2)})
    swapped = tmp_path / "epoch-000002-step-00000000.pt"
    forged = hostile_file(swapped, marker)
    swapped.with_suffix(".json").write_text(json.dumps({"version": 3, "sha256": forged, "key": "key"}))
    refused: list[str] = []
    resumed = CheckpointFolder(tmp_path, "key", keep=5, interval_s=0, vouched_for={sha256})
    found = resumed.read_latest(lambda _, reason: refused.append(reason))
    assert found is not None
    assert found[0] == path
    assert not marker.exists()


def test_the_place_that_an_event_names_for_a_model_is_only_a_name(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "out")
    [saved, *_] = [event for event in sample_events() if event.type == ModelSaved.TYPE]
    for place in ("/etc/passwd", "../../../etc/passwd", "saved_models/../../etc/passwd"):
        model = ModelSaved(**{**saved.payload, "path": place})
        assert model_path(layout, model) == layout.saved_models / "passwd"
        assert "its file is gone" in model_damage(layout, model)


@pytest.mark.slow
def test_detect_uses_only_models_that_the_log_vouches_for(tmp_path: Path, marker: Path) -> None:
    layout, capture = Layout(tmp_path / "out"), tmp_path / "drive.csv"
    capture.write_text("timestamp,arbitration_id,data_field,attack\n0.1,1A0,00,0\n")
    for event in sample_events(failures=False):
        if event.type == ModelSaved.TYPE:
            EventLog(layout.events).append([to_event(event.stream, ModelSaved(**event.payload))])
            hostile_file(model_path(layout, ModelSaved(**event.payload)), marker)
    command = ("flows.detect", str(capture), "--output-dir", str(layout.root), "--dataset")
    swapped, unknown, outside = (run(*command, name) for name in ("set_01", "set_02", "../../set_01"))
    assert (swapped.returncode, unknown.returncode, outside.returncode) == (1, 1, 1)
    assert "the file is damaged or was replaced" in swapped.stderr
    assert "there is no finished model of 'set_02'" in unknown.stderr
    assert "there is no finished model of '../../set_01'" in outside.stderr
    assert not marker.exists()
