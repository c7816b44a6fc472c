"""Building a dataset's store: once, complete or not at all, from the captures that can be used."""

import fcntl
import os
import random
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from core.can.frames import Frames
from core.can.graph_store import MANIFEST, open_graph_store, read_manifest
from core.can.graphs import build_graph_store, delete_unused_store
from core.can.readers import open_capture
from core.can.registry import find_captures
from core.can.scaling import Scaler
from core.can.splits import TEST, TRAIN, VAL
from core.errors import CaptureError, GraphStoreError
from core.events.catalogue import CaptureRefused, Fact, GraphsBuilt, RowsQuarantined
from settings.app import Settings, load_settings
from tests.graph_helpers import as_graphs, assert_same_graphs, random_frames, write_csv
from tests.reference.graphs import reference_graphs

F = TypeVar("F", bound=Fact)


class Dataset:
    """A user's dataset ``mine`` in a temporary folder, and what building it told."""

    def __init__(self, root: Path) -> None:
        self.root = root / "mine"
        self.cache_dir = root / "cache"
        self.layout: dict[str, object] = {"folder": str(self.root)}
        self.facts: list[Fact] = []
        self.add(
            "train_01_attack_free/quiet.csv", replace(random_frames(900, 1), attack=np.zeros(900, np.int8))
        )
        self.add("train_02_with_attacks/dos.csv", random_frames(1100, 2))
        self.add("test_01_known/dos.csv", random_frames(730, 3))

    def add(self, name: str, frames: Frames) -> Path:
        return write_csv(self.root / name, frames)

    def settings(self, **graph: object) -> Settings:
        return load_settings(
            data={"datasets": {"mine": self.layout}}, graph={"window": 20, "block_windows": 5, **graph}
        )

    def build(self, data_digest: str = "d", **graph: object) -> Path:
        settings = self.settings(**graph)
        captures = find_captures("mine", settings.data)
        random.Random(len(self.facts)).shuffle(captures)
        return build_graph_store("mine", captures, data_digest, settings, self.cache_dir, self.facts.append)

    def told(self, kind: type[F]) -> list[F]:
        return [fact for fact in self.facts if isinstance(fact, kind)]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_store_holds_the_reference_graphs_of_every_capture(dataset: Dataset) -> None:
    folder = dataset.build()
    store, manifest = open_graph_store(folder), read_manifest(folder)
    expected = []
    for index, entry in enumerate(manifest.captures):
        (frames,) = open_capture(Path(entry.path), attack_rule=None, max_quarantined_fraction=0.0)
        graphs = reference_graphs(frames, 20, 20)
        assert entry.num_graphs == len(graphs) == (store.capture == index).sum()
        expected += graphs
    assert_same_graphs(as_graphs(store), expected)
    assert [Path(entry.path).parent.name for entry in manifest.captures] == [
        "train_01_attack_free",
        "train_02_with_attacks",
        "test_01_known",
    ]


def test_real_capture_to_store(shared_data: Path, tmp_path: Path) -> None:
    settings = load_settings(
        data={
            "datasets": {
                "real": {
                    "folder": str(shared_data / "set_01"),
                    "attack_free": (),
                    "tests": (),
                    "holdout_fraction": 0.25,
                }
            }
        }
    )
    facts: list[Fact] = []
    captures = find_captures("real", settings.data)
    folder = build_graph_store("real", captures, "d", settings, tmp_path, facts.append)
    store, manifest = open_graph_store(folder), read_manifest(folder)
    assert store.num_graphs == 901
    assert list(manifest.test_folders(store)) == ["DoS-1"]
    assert manifest.splits["test"] == 225
    for side in (TRAIN, VAL):
        assert set(store.y[store.split == side]) == {0, 1}


def test_second_call_finds_the_store_and_builds_nothing(dataset: Dataset) -> None:
    folder = dataset.build()
    files = [path for path in folder.iterdir() if path.name != "manifest.json"]  # its time says: still in use
    before = [path.stat().st_mtime_ns for path in files]
    assert dataset.build() == folder
    assert [path.stat().st_mtime_ns for path in files] == before
    first, second = dataset.told(GraphsBuilt)
    assert (first.cached, second.cached) == (False, True)
    assert replace(second, cached=False, duration_s=first.duration_s) == first


def test_a_store_is_deleted_only_if_nobody_has_found_it_since(dataset: Dataset) -> None:
    folder = dataset.build()
    store = open_graph_store(folder)
    os.utime(folder / "manifest.json", (0, 0))
    long_ago = datetime.fromtimestamp(1.0, UTC)
    dataset.build()
    assert not delete_unused_store(folder, long_ago)
    assert open_graph_store(folder).num_graphs
    os.utime(folder / "manifest.json", (0, 0))
    assert delete_unused_store(folder, long_ago)
    assert [path.name for path in folder.parent.iterdir()] == [f"{folder.name}.lock"]
    assert store.x.sum()  # whoever had it open reads on
    assert dataset.build() == folder
    assert dataset.told(GraphsBuilt)[-1].cached is False


def test_a_store_that_is_being_built_is_not_deleted(dataset: Dataset) -> None:
    folder = dataset.build()
    os.utime(folder / "manifest.json", (0, 0))
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not delete_unused_store(folder, datetime.now(UTC))
    assert open_graph_store(folder).num_graphs


def test_store_does_not_depend_on_the_order_of_captures(dataset: Dataset, tmp_path: Path) -> None:
    first = contents(dataset.build())
    dataset.cache_dir = tmp_path / "other_cache"
    assert contents(dataset.build()) == first


def test_other_data_or_settings_are_another_store(dataset: Dataset) -> None:
    folders = [dataset.build(), dataset.build("e"), dataset.build(window=30), dataset.build(val_fraction=0.3)]
    dataset.layout["holdout_fraction"] = 0.2
    folders.append(dataset.build())
    assert len(set(folders)) == len(folders)
    assert not any(fact.cached for fact in dataset.told(GraphsBuilt))


def test_told_counts_are_those_of_the_store(dataset: Dataset) -> None:
    store = open_graph_store(dataset.build())
    (built,) = dataset.told(GraphsBuilt)
    assert (built.num_graphs, built.num_nodes, built.num_edges) == (
        store.num_graphs,
        len(store.x),
        len(store.edge_attr),
    )
    assert built.num_frames == 900 + 1100 + 730
    assert built.num_attack_graphs == store.y.sum()
    assert sum(built.splits.values()) == store.num_graphs


def test_manifest_carries_the_scaler_of_the_store(dataset: Dataset) -> None:
    folder = dataset.build()
    fitted = Scaler.fit(open_graph_store(folder), clip=10.0).to_dict()
    assert read_manifest(folder).scaler == fitted


def test_test_folders_name_their_graphs(dataset: Dataset) -> None:
    dataset.layout["holdout_fraction"] = 0.2
    dataset.add("test_01_known/more.csv", random_frames(400, 9))
    folder = dataset.build()
    store, manifest = open_graph_store(folder), read_manifest(folder)
    folders = manifest.test_folders(store)
    assert {name: len(graphs) for name, graphs in folders.items()} == {
        "quiet": 9,
        "dos": 11,
        "test_01_known": 36 + 20,
    }
    assert sorted(np.concatenate(list(folders.values()))) == np.flatnonzero(store.split == TEST).tolist()


def test_held_out_captures_of_one_name_keep_apart(dataset: Dataset) -> None:
    dataset.layout["holdout_fraction"] = 0.2
    dataset.add("train_01_attack_free/dos.csv", random_frames(500, 5))
    folder = dataset.build()
    assert list(read_manifest(folder).test_folders(open_graph_store(folder))) == [
        "train_01_attack_free/dos",
        "quiet",
        "train_02_with_attacks/dos",
        "test_01_known",
    ]


def test_a_capture_refused_at_its_end_leaves_nothing_behind(dataset: Dataset, tmp_path: Path) -> None:
    alone = contents(dataset.build())
    bad = dataset.add("train_02_with_attacks/bad.csv", random_frames(600, 7))
    bad.write_text(bad.read_text() + "garbage\n" * 300)
    dataset.cache_dir = tmp_path / "other_cache"
    with_bad = contents(dataset.build())
    (refused,) = dataset.told(CaptureRefused)
    assert refused.path == str(bad)
    assert "max_quarantined_fraction" in refused.reason
    assert with_bad == alone


def test_quarantined_rows_are_told(dataset: Dataset) -> None:
    path = dataset.root / "train_02_with_attacks/dos.csv"
    lines = path.read_text().splitlines()
    lines[5] = lines[5].replace(",", ",XYZ", 1)
    path.write_text("\n".join(lines) + "\n")
    dataset.build()
    (told,) = dataset.told(RowsQuarantined)
    assert (told.path, told.num_rows, told.num_frames) == (str(path), 1, 1099)
    assert told.examples[0]["line"] == 6


def test_a_capture_shorter_than_a_window_is_told_not_used(dataset: Dataset) -> None:
    short = dataset.add("train_01_attack_free/short.csv", random_frames(19, 4))
    manifest = read_manifest(dataset.build())
    (refused,) = dataset.told(CaptureRefused)
    assert refused.path == str(short)
    assert "19 frames do not fill one window" in refused.reason
    assert str(short) not in [entry.path for entry in manifest.captures]


def test_training_traffic_with_attacks_but_without_labels_is_refused(dataset: Dataset) -> None:
    log = dataset.root / "train_02_with_attacks/unlabelled.log"
    log.write_text("".join(f"({1500.0 + i / 1000:.6f}) can0 1F0#0011223344556677\n" for i in range(60)))
    dataset.build()
    (refused,) = dataset.told(CaptureRefused)
    assert refused.path == str(log)
    assert "attack_frames" in refused.reason


def test_attack_free_training_traffic_without_labels_counts_as_labelled_benign(dataset: Dataset) -> None:
    dataset.layout["holdout_fraction"] = 0.2
    lines = [f"({1500.0 + i / 1000:.6f}) can0 1F0#0011223344556677\n" for i in range(600)]
    for name in ("train_01_attack_free/log.log", "test_02_log/log2.log"):
        path = dataset.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(lines))
    folder = dataset.build()
    store, manifest = open_graph_store(folder), read_manifest(folder)
    labelled = {Path(entry.path).name: entry.labelled for entry in manifest.captures}
    assert (labelled["log.log"], labelled["log2.log"]) == (True, False)
    held_out = manifest.test_folders(store)["log"]
    assert len(held_out) == 6
    assert not store.y[held_out].any()


def test_no_usable_training_capture_fails_and_leaves_no_store(dataset: Dataset) -> None:
    for path in dataset.root.glob("train_*/*.csv"):
        path.write_text("nonsense\n")
    with pytest.raises(CaptureError, match="no training capture can be used") as caught:
        dataset.build()
    assert "dos.csv" in str(caught.value)
    assert [path.suffix for path in dataset.cache_dir.iterdir()] == [".lock"]


@pytest.mark.parametrize("name", ["x", "edge_index", "node_ptr", "split", "t_attack"])
def test_a_damaged_array_is_named_and_the_store_built_again(dataset: Dataset, name: str) -> None:
    folder = dataset.build()
    good = contents(folder)
    path = folder / f"{name}.npy"
    path.write_bytes(good[path.name][:-8])
    with pytest.raises(GraphStoreError, match=path.name):
        open_graph_store(folder)
    assert contents(dataset.build()) == good


def test_pointers_out_of_order_are_refused(dataset: Dataset) -> None:
    folder = dataset.build()
    pointers = np.load(folder / "edge_ptr.npy")
    pointers[3] = pointers[-1] + 1
    np.save(folder / "edge_ptr.npy", pointers)
    with pytest.raises(GraphStoreError, match="edge_ptr"):
        open_graph_store(folder)


@pytest.mark.parametrize("text", ["", "{}", '{"store_version": 1}', "not json"])
def test_a_foreign_manifest_is_refused(dataset: Dataset, text: str) -> None:
    folder = dataset.build()
    (folder / MANIFEST).write_text(text)
    with pytest.raises(GraphStoreError, match=MANIFEST):
        open_graph_store(folder)


def test_another_store_version_is_refused(dataset: Dataset) -> None:
    folder = dataset.build()
    manifest = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(manifest.replace('"store_version": 1', '"store_version": 2'))
    with pytest.raises(GraphStoreError, match="store version 2"):
        open_graph_store(folder)


def test_a_folder_without_manifest_is_no_store(dataset: Dataset) -> None:
    folder = dataset.build()
    (folder / MANIFEST).unlink()
    with pytest.raises(GraphStoreError, match=MANIFEST):
        open_graph_store(folder)


def test_a_cache_that_cannot_be_written_is_a_clear_error(dataset: Dataset, tmp_path: Path) -> None:
    dataset.cache_dir = tmp_path / "file"
    dataset.cache_dir.write_text("")
    with pytest.raises(GraphStoreError, match="cannot write the graph store"):
        dataset.build()
