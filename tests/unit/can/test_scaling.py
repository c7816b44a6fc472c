"""Scaling: what benign training traffic defines, and nothing else."""

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from core.can import scaling
from core.can.graph_store import GraphStore
from core.can.scaling import Scaler
from core.can.splits import EMBARGO, TEST, TRAIN, VAL
from core.errors import CaptureError


def store_of(num_graphs: int = 200, seed: int = 0) -> GraphStore:
    rng = np.random.default_rng(seed)
    nodes, edges = rng.integers(1, 9, num_graphs), rng.integers(1, 12, num_graphs)
    return GraphStore(
        x=rng.normal(1e3, 5.0, (nodes.sum(), 35)).astype(np.float32),
        edge_index=np.zeros((2, edges.sum()), np.int32),
        edge_attr=rng.normal(-2.0, 0.1, (edges.sum(), 11)).astype(np.float32),
        node_id=np.zeros(nodes.sum(), np.uint32),
        node_ptr=np.append(0, np.cumsum(nodes)),
        edge_ptr=np.append(0, np.cumsum(edges)),
        y=(rng.random(num_graphs) < 0.3).astype(np.uint8),
        capture=np.zeros(num_graphs, np.int32),
        t_start=np.zeros(num_graphs),
        t_end=np.zeros(num_graphs),
        t_attack=np.full(num_graphs, np.nan),
        split=rng.choice([TRAIN, VAL, TEST, EMBARGO], num_graphs).astype(np.int8),
    )


def benign_training(store: GraphStore) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    graphs = np.flatnonzero((store.split == TRAIN) & (store.y == 0))
    return (
        np.concatenate([store.x[store.node_ptr[g] : store.node_ptr[g + 1]] for g in graphs]),
        np.concatenate([store.edge_attr[store.edge_ptr[g] : store.edge_ptr[g + 1]] for g in graphs]),
    )


@pytest.mark.parametrize("chunk", [1, 7, 256])
def test_fit_is_mean_and_deviation_of_benign_training_windows(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "_CHUNK_GRAPHS", chunk)
    store = store_of()
    nodes, edges = benign_training(store)
    scaler = Scaler.fit(store, clip=10.0)
    np.testing.assert_allclose(scaler.node_mean, nodes.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(scaler.node_std, nodes.std(axis=0, dtype=np.float64), rtol=1e-9)
    np.testing.assert_allclose(scaler.edge_mean, edges.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(scaler.edge_std, edges.std(axis=0, dtype=np.float64), rtol=1e-9)


def test_attack_validation_and_test_windows_have_no_say() -> None:
    store = store_of()
    other = store.x.copy()
    used = np.repeat((store.split == TRAIN) & (store.y == 0), np.diff(store.node_ptr))
    other[~used] = 1e9
    assert Scaler.fit(store, 10.0).to_dict() == Scaler.fit(replace(store, x=other), 10.0).to_dict()


def test_a_constant_feature_keeps_its_own_unit() -> None:
    store = store_of()
    x = store.x.copy()
    x[:, 3], x[:, 4] = 0.1, 0.0
    scaler = Scaler.fit(replace(store, x=x), clip=10.0)
    assert scaler.node_std[3] == scaler.node_std[4] == 1.0
    x[:, 3] += 2.0
    assert scaler.scale_nodes(x)[:, 3] == pytest.approx(2.0, abs=1e-5)


def test_scaled_values_are_clipped() -> None:
    store = store_of()
    scaler = Scaler.fit(store, clip=4.0)
    scaled = scaler.scale_edges(store.edge_attr * 1e6)
    assert scaled.dtype == np.float32
    assert scaled.min() == -4.0
    assert np.abs(scaler.scale_nodes(store.x)).max() <= 4.0


def test_scaler_survives_json() -> None:
    scaler = Scaler.fit(store_of(), clip=10.0)
    again = Scaler.from_dict(json.loads(json.dumps(scaler.to_dict())))
    for name, value in vars(scaler).items():
        np.testing.assert_array_equal(getattr(again, name), value)


def test_no_benign_training_window_is_an_error() -> None:
    store = store_of()
    with pytest.raises(CaptureError, match="benign training window"):
        Scaler.fit(replace(store, y=np.ones_like(store.y)), clip=10.0)
