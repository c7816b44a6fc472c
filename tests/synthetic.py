"""Small graph stores made by hand for the tests of models and training."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.can.graph_store import (
    LAYOUT,
    MANIFEST,
    NUM_EDGE_FEATURES,
    NUM_NODE_FEATURES,
    STORE_VERSION,
    CaptureEntry,
    GraphStore,
    Manifest,
    array_path,
)
from core.can.scaling import Scaler
from core.can.splits import TEST, TRAIN, VAL
from settings.graph import GraphSettings

WINDOW_S = 0.1


def make_store(
    num_graphs: int = 120,
    seed: int = 0,
    attack_share: float = 0.3,
    strength: float = 2.5,
    num_ids: int = 12,
    split: NDArray[np.int8] | None = None,
) -> GraphStore:
    """Windows of a make-believe vehicle; attacks come in runs, shift one id's features and add an unseen id.

    Three captures of equal length: the first two are split into training and validation, the last one tests.
    """
    rng = np.random.default_rng(seed)
    y = (np.arange(num_graphs) % 10 < round(10 * attack_share)).astype(np.uint8)
    nodes, edges = rng.integers(5, num_ids + 1, num_graphs), rng.integers(8, 25, num_graphs)
    centre = np.random.default_rng(99).normal(size=(num_ids + 1, NUM_NODE_FEATURES))
    xs, ids, pairs, attrs = [], [], [], []
    for graph in range(num_graphs):
        chosen = np.sort(rng.choice(num_ids, nodes[graph], replace=False))
        if y[graph] and graph % 2:
            chosen[-1] = num_ids
        x = centre[chosen] + 0.3 * rng.normal(size=(len(chosen), NUM_NODE_FEATURES))
        if y[graph]:
            x[-1] += strength
        wanted = rng.integers(0, len(chosen), (edges[graph], 2))
        pair = np.unique(wanted[:, ::-1], axis=0)[:, ::-1]
        xs.append(x)
        ids.append(chosen * 37 + 0x100)
        pairs.append(pair)
        attrs.append(rng.normal(size=(len(pair), NUM_EDGE_FEATURES)) + 0.2 * strength * y[graph])
    start = WINDOW_S * np.arange(num_graphs, dtype=np.float64)
    third = num_graphs // 3
    capture = np.minimum(np.arange(num_graphs) // max(third, 1), 2)
    if split is None:
        split = np.where(capture == 2, TEST, np.where(np.arange(num_graphs) % 5 == 0, VAL, TRAIN)).astype(
            np.int8
        )
    return GraphStore(
        x=np.concatenate(xs).astype(np.float32),
        edge_index=np.concatenate(pairs).T.astype(np.int32),
        edge_attr=np.concatenate(attrs).astype(np.float32),
        node_id=np.concatenate(ids).astype(np.uint32),
        node_ptr=_bounds([len(x) for x in xs]),
        edge_ptr=_bounds([len(p) for p in pairs]),
        y=y,
        capture=capture.astype(np.int32),
        t_start=start,
        t_end=start + np.float64(0.9 * WINDOW_S),
        t_attack=np.where(y == 1, start + 0.02, np.nan),
        split=split,
    )


def write_store(
    folder: Path, store: GraphStore, folders: tuple[str, str, str] = ("a", "b", "test_01")
) -> Path:
    """Write a store in the layout of the graph builder."""
    folder.mkdir(parents=True)
    for name in LAYOUT:
        np.save(array_path(folder, name), getattr(store, name))
    counts = np.bincount(store.capture, minlength=3)
    captures = [
        CaptureEntry(
            path=f"{name}.log",
            role="test" if i == 2 else "with_attacks",
            folder=name,
            test_folder=name,
            num_frames=int(100 * counts[i]),
            num_graphs=int(counts[i]),
            labelled=True,
        )
        for i, name in enumerate(folders)
    ]
    manifest = Manifest(
        store_version=STORE_VERSION,
        feature_version=1,
        dataset="synthetic",
        digest="d",
        data_digest="d",
        split_digest="d",
        graph=GraphSettings(),
        captures=captures,
        num_frames=100 * store.num_graphs,
        num_graphs=store.num_graphs,
        num_nodes=len(store.x),
        num_edges=len(store.edge_attr),
        num_attack_graphs=int(store.y.sum()),
        splits={},
        scaler=Scaler.fit(store, 10.0).to_dict(),
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")
    return folder


def _bounds(counts: list[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
