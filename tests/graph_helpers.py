"""Frames and graph comparisons for the tests of windows, graphs and stores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.can.features import GraphBlock, iter_graphs
from core.can.frames import Frames
from core.can.graph_store import GraphStore
from tests.reference.graphs import ReferenceGraph


def random_frames(num_frames: int, seed: int = 0, num_ids: int = 12, fd_share: float = 0.0) -> Frames:
    """Frames with mixed id widths, remote frames, payload lengths, repeated bytes and equal timestamps."""
    rng = np.random.default_rng(seed)
    width = 64 if fd_share else 8
    ids = rng.integers(0, num_ids, num_frames).astype(np.uint32)
    remote = rng.random(num_frames) < 0.05
    length = rng.integers(0, 9, num_ids, dtype=np.uint8)[ids]
    length = np.where(
        rng.random(num_frames) < fd_share, rng.integers(9, 65, num_frames, dtype=np.uint8), length
    )
    length = np.where(remote, np.uint8(0), length)
    payload = rng.integers(0, rng.choice([2, 256], (num_frames, 1)), (num_frames, width)).astype(np.uint8)
    payload[np.arange(width) >= length[:, None]] = 0
    return Frames(
        timestamp=1.5e9 + np.cumsum(rng.choice([0.0, 1e-4, 2.3e-4], num_frames)),
        arbitration_id=ids,
        extended=rng.random(num_frames) < 0.2,
        remote=remote,
        length=length,
        payload=payload,
        attack=(rng.random(num_frames) < 0.02).astype(np.int8),
    )


def frames_of(ids: Sequence[int], attack: Sequence[int] | None = None, step_s: float = 0.001) -> Frames:
    """Classic frames with these ids; byte 0 is the frame's number."""
    n = len(ids)
    payload = np.zeros((n, 8), np.uint8)
    payload[:, 0] = np.arange(n)
    return Frames(
        timestamp=step_s * np.arange(n, dtype=np.float64),
        arbitration_id=np.array(ids, np.uint32),
        extended=np.zeros(n, bool),
        remote=np.zeros(n, bool),
        length=np.full(n, 8, np.uint8),
        payload=payload,
        attack=np.array(attack if attack is not None else [0] * n, np.int8),
    )


def join(blocks: list[GraphBlock]) -> dict[str, NDArray[Any]]:
    """All arrays of several blocks, joined."""
    return {
        name: np.concatenate(
            [getattr(block, name) for block in blocks], axis=1 if name == "edge_index" else 0
        )
        for name in vars(blocks[0])
    }


def graphs_of(frames: Frames, window: int, stride: int | None = None) -> dict[str, NDArray[Any]]:
    return join(list(iter_graphs(frames, window, stride or window)))


def assert_same_graphs(found: dict[str, NDArray[Any]], expected: list[ReferenceGraph]) -> None:
    """Structure exactly, features to float32 accuracy."""
    assert found["num_nodes"].tolist() == [len(graph.node_ids) for graph in expected]
    assert found["num_edges"].tolist() == [len(graph.edges) for graph in expected]
    assert found["node_id"].tolist() == [key for graph in expected for key in graph.node_ids]
    assert found["edge_index"].T.tolist() == [list(edge) for graph in expected for edge in graph.edges]
    assert found["y"].tolist() == [graph.y for graph in expected]
    for name in ("t_start", "t_end", "t_attack"):
        np.testing.assert_array_equal(found[name], [getattr(graph, name) for graph in expected])
    for name in ("x", "edge_attr"):
        rows = np.array([row for graph in expected for row in getattr(graph, name)])
        for feature in range(rows.shape[1]):
            np.testing.assert_allclose(
                found[name][:, feature],
                rows[:, feature],
                rtol=1e-5,
                atol=1e-7,
                err_msg=f"{name} feature {feature}",
            )


def as_graphs(store: GraphStore) -> dict[str, NDArray[Any]]:
    """A store's arrays in the shape of joined blocks."""
    return {
        "x": store.x,
        "edge_index": store.edge_index,
        "edge_attr": store.edge_attr,
        "node_id": store.node_id,
        "num_nodes": np.diff(store.node_ptr),
        "num_edges": np.diff(store.edge_ptr),
        "y": store.y,
        "t_start": store.t_start,
        "t_end": store.t_end,
        "t_attack": store.t_attack,
    }


def write_csv(path: Path, frames: Frames) -> Path:
    """Write classic frames as a can-train-and-test capture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["timestamp,arbitration_id,data_field,attack"]
    lines += [
        f"{t:.6f},{i:0{8 if extended else 3}X},{payload[:length].tobytes().hex().upper()},{attack}"
        for t, i, extended, length, payload, attack in zip(
            frames.timestamp,
            frames.arbitration_id,
            frames.extended,
            frames.length,
            frames.payload,
            frames.attack,
            strict=True,
        )
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
