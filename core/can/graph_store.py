"""The flat graph store: all graphs of a dataset in a few arrays, no object per graph.

On disk a store is one folder: an ``.npy`` file per array of ``GraphStore`` and ``manifest.json``, which is
written last, so that a folder with a manifest is a complete store. ``docs/graphs.md`` has the layout.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from core.can.splits import TEST
from core.errors import GraphStoreError
from settings.graph import GraphSettings
from settings.group import Group

NUM_NODE_FEATURES = 35
NUM_EDGE_FEATURES = 11
STORE_VERSION = 1
MANIFEST = "manifest.json"
_CURE = "delete the store's folder and it is built again"


@dataclass(frozen=True)
class GraphStore:
    """Graphs of one dataset: ``N`` nodes, ``E`` edges, ``G`` graphs (windows), in capture and time order.

    Attributes:
        x: float32 ``[N, 35]`` raw (unscaled) node features.
        edge_index: int32 ``[2, E]`` source and target, counted from the graph's first node; the edges of a
            graph are sorted by (target, source).
        edge_attr: float32 ``[E, 11]`` raw edge features.
        node_id: uint32 ``[N]`` arbitration ids (bit 31 set for 29-bit ids), rising inside a graph.
        node_ptr: int64 ``[G + 1]`` first node of each graph.
        edge_ptr: int64 ``[G + 1]`` first edge of each graph.
        y: uint8 ``[G]`` 1 if any frame of the window is an attack.
        capture: int32 ``[G]`` which capture the window comes from (index into the manifest's captures).
        t_start: float64 ``[G]`` timestamp of the window's first frame, seconds.
        t_end: float64 ``[G]`` timestamp of the window's last frame, seconds.
        t_attack: float64 ``[G]`` timestamp of the window's first attack frame, NaN if none.
        split: int8 ``[G]`` one of ``core.can.splits``: TRAIN 0, VAL 1, TEST 2, EMBARGO 3.
    """

    x: NDArray[np.float32]
    edge_index: NDArray[np.int32]
    edge_attr: NDArray[np.float32]
    node_id: NDArray[np.uint32]
    node_ptr: NDArray[np.int64]
    edge_ptr: NDArray[np.int64]
    y: NDArray[np.uint8]
    capture: NDArray[np.int32]
    t_start: NDArray[np.float64]
    t_end: NDArray[np.float64]
    t_attack: NDArray[np.float64]
    split: NDArray[np.int8]

    @property
    def num_graphs(self) -> int:
        """Number of graphs ``G``."""
        return len(self.y)


class CaptureEntry(Group):
    """What the manifest tells about one capture.

    Attributes:
        path: The file.
        role: ``attack_free``, ``with_attacks`` or ``test``.
        folder: Test or training folder it belongs to.
        test_folder: Name under which its TEST windows are evaluated: ``folder`` for a test capture, the
            file's stem for the held-out end of a training capture.
        num_frames: Frames read.
        num_graphs: Full windows.
        labelled: Whether its frames say if they are attacks; ``y`` is 0 throughout where they do not.
    """

    path: str
    role: Literal["attack_free", "with_attacks", "test"]
    folder: str
    test_folder: str
    num_frames: int
    num_graphs: int
    labelled: bool


class Manifest(Group):
    """What a store holds and what it was made from (``manifest.json``)."""

    store_version: int
    feature_version: int
    dataset: str
    digest: str
    data_digest: str
    split_digest: str
    graph: GraphSettings
    captures: list[CaptureEntry]
    num_frames: int
    num_graphs: int
    num_nodes: int
    num_edges: int
    num_attack_graphs: int
    splits: dict[str, int]
    scaler: dict[str, Any]

    def test_folders(self, store: GraphStore) -> dict[str, NDArray[np.int64]]:
        """TEST graphs by test folder.

        Args:
            store: The store of this manifest.

        Returns:
            Folder name -> int64 indices of its graphs, rising; folders in the manifest's order.
        """
        tests = np.flatnonzero(store.split == TEST)
        captures = store.capture[tests]
        members: dict[str, list[int]] = {}
        for index, entry in enumerate(self.captures):
            members.setdefault(entry.test_folder, []).append(index)
        folders = {name: tests[np.isin(captures, indices)] for name, indices in members.items()}
        return {name: graphs for name, graphs in folders.items() if len(graphs)}


LAYOUT: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
    "x": (np.float32, (NUM_NODE_FEATURES,)),
    "edge_index": (np.int32, (2,)),
    "edge_attr": (np.float32, (NUM_EDGE_FEATURES,)),
    "node_id": (np.uint32, ()),
    "node_ptr": (np.int64, ()),
    "edge_ptr": (np.int64, ()),
    "y": (np.uint8, ()),
    "capture": (np.int32, ()),
    "t_start": (np.float64, ()),
    "t_end": (np.float64, ()),
    "t_attack": (np.float64, ()),
    "split": (np.int8, ()),
}
"""Type and row shape of each array."""


def array_path(folder: Path, name: str) -> Path:
    """File of one array of a store."""
    return folder / f"{name}.npy"


def read_array(folder: Path, name: str) -> NDArray[Any]:
    """Memory-map one array of a store.

    Raises:
        GraphStoreError: The file is missing, cut short, or holds another type or shape than the array has.
    """
    path = array_path(folder, name)
    dtype, item = LAYOUT[name]
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise GraphStoreError(f"{path}: unreadable array of a graph store ({error}); {_CURE}") from error
    rows = array.T if name == "edge_index" else array
    if array.dtype != dtype or rows.shape[1:] != item:
        raise GraphStoreError(
            f"{path}: holds {array.dtype} {list(array.shape)}, not {np.dtype(dtype)} rows of {item}; {_CURE}"
        )
    return array


def map_arrays(folder: Path) -> GraphStore:
    """Memory-map all arrays of a store, read-only.

    Raises:
        GraphStoreError: As ``read_array``.
    """
    return GraphStore(**{name: read_array(folder, name) for name in LAYOUT})


def read_manifest(folder: Path) -> Manifest:
    """Read a store's manifest.

    Raises:
        GraphStoreError: It is missing (an unfinished store), damaged or of another version.
    """
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise GraphStoreError(f"{path}: no complete graph store here ({error}); {_CURE}") from error
    except ValidationError as error:
        raise GraphStoreError(f"{path}: damaged or foreign manifest ({error}); {_CURE}") from error
    if manifest.store_version != STORE_VERSION:
        raise GraphStoreError(
            f"{path}: store version {manifest.store_version}, this software reads {STORE_VERSION}; {_CURE}"
        )
    return manifest


def open_graph_store(path: Path) -> GraphStore:
    """Open a store; the arrays are memory-mapped and read-only.

    Args:
        path: Folder of the store.

    Raises:
        GraphStoreError: The store is incomplete, damaged or of another version; the message names the file.
    """
    manifest = read_manifest(path)
    store = map_arrays(path)
    num_nodes, num_edges, num_graphs = manifest.num_nodes, manifest.num_edges, manifest.num_graphs
    lengths = {"x": num_nodes, "node_id": num_nodes, "edge_attr": num_edges, "edge_index": num_edges}
    lengths |= {"node_ptr": num_graphs + 1, "edge_ptr": num_graphs + 1}
    for name in LAYOUT:
        array = getattr(store, name)
        expected = lengths.get(name, num_graphs)
        found = array.shape[-1 if name == "edge_index" else 0]
        if found != expected:
            raise GraphStoreError(
                f"{array_path(path, name)}: {found} rows, the manifest says {expected}; {_CURE}"
            )
    for name, total in (("node_ptr", num_nodes), ("edge_ptr", num_edges)):
        pointers = getattr(store, name)
        if pointers[0] != 0 or pointers[-1] != total or (np.diff(pointers) < 0).any():
            raise GraphStoreError(
                f"{array_path(path, name)}: pointers do not rise from 0 to {total}; {_CURE}"
            )
    return store
