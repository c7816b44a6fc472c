"""Writing a graph store: arrays that grow block by block, and a manifest that is complete or not there."""

import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from core.can.features import GraphBlock
from core.can.graph_store import LAYOUT, MANIFEST, Manifest, array_path
from core.events.files import fsync_folder


class ArrayWriter:
    """One ``.npy`` file that grows by appended rows; the header gets its length on closing.

    ``edge_index`` is ``[2, E]`` in column order, so that appending an edge appends to the file.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.num_rows = 0
        self._dtype, self._item = LAYOUT[name]
        self._columns = name == "edge_index"
        self._file: IO[bytes] = array_path(folder, name).open("wb")
        self._write_header()
        self._data_start = self._file.tell()

    def __enter__(self) -> Self:
        """Write inside a ``with`` block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the final header and force the file to disk; after an error only close it."""
        with self._file:
            if error is None:
                self._file.seek(0)
                self._write_header()
                _sync(self._file)

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows ``[n, *item]``; they are cast to the array's type."""
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).data)
        self.num_rows += len(rows)

    def truncate(self, num_rows: int) -> None:
        """Drop all rows but the first ``num_rows``."""
        row_bytes = np.dtype(self._dtype).itemsize * int(np.prod(self._item))
        self._file.seek(self._data_start + num_rows * row_bytes)
        self._file.truncate()
        self.num_rows = num_rows

    def _write_header(self) -> None:
        # numpy leaves room in a header for the growing axis: the last in column order, else the first.
        shape = (*self._item, self.num_rows) if self._columns else (self.num_rows, *self._item)
        header = {"descr": np.dtype(self._dtype).str, "fortran_order": self._columns, "shape": shape}
        npy.write_array_header_1_0(self._file, header)


class StoreWriter:
    """All arrays of a store but ``split``, which is known only when all graphs are there.

    Attributes:
        num_graphs: Graphs so far.
        num_nodes: Nodes so far.
        num_edges: Edges so far.
    """

    def __init__(self, folder: Path) -> None:
        self.num_graphs = self.num_nodes = self.num_edges = 0
        self._stack = ExitStack()
        self._arrays = {
            name: self._stack.enter_context(ArrayWriter(folder, name)) for name in LAYOUT if name != "split"
        }
        for name in ("node_ptr", "edge_ptr"):
            self._arrays[name].append(np.zeros(1))

    def __enter__(self) -> Self:
        """Write inside a ``with`` block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all arrays, complete and on disk unless there was an error."""
        self._stack.__exit__(kind, error, trace)

    def append(self, block: GraphBlock, capture: int) -> None:
        """Append the graphs of some windows of a capture."""
        arrays = self._arrays
        for name in ("x", "edge_attr", "node_id", "y", "t_start", "t_end", "t_attack"):
            arrays[name].append(getattr(block, name))
        arrays["edge_index"].append(block.edge_index.T)
        arrays["node_ptr"].append(self.num_nodes + np.cumsum(block.num_nodes))
        arrays["edge_ptr"].append(self.num_edges + np.cumsum(block.num_edges))
        arrays["capture"].append(np.full(len(block.y), capture))
        self._count()

    def truncate(self, num_graphs: int, num_nodes: int, num_edges: int) -> None:
        """Drop everything after the first graphs."""
        rows = {"x": num_nodes, "node_id": num_nodes, "edge_attr": num_edges, "edge_index": num_edges}
        rows |= {"node_ptr": num_graphs + 1, "edge_ptr": num_graphs + 1}
        for name, array in self._arrays.items():
            array.truncate(rows.get(name, num_graphs))
        self._count()

    def _count(self) -> None:
        self.num_graphs = self._arrays["y"].num_rows
        self.num_nodes = self._arrays["x"].num_rows
        self.num_edges = self._arrays["edge_attr"].num_rows


def write_array(folder: Path, name: str, rows: NDArray[Any]) -> None:
    """Write one whole array."""
    with ArrayWriter(folder, name) as array:
        array.append(rows)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` in one step: complete or not there."""
    temporary = folder / f"{MANIFEST}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(manifest.model_dump_json(indent=1))
        _sync(file)
    temporary.rename(folder / MANIFEST)
    fsync_folder(folder)


def _sync(file: IO[Any]) -> None:
    """Force a file to disk."""
    file.flush()
    os.fsync(file.fileno())
