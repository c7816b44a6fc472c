"""A generated set for benchmarks: about 30 nodes and 44 edges a graph, classes that overlap."""

import numpy as np

from core.can.graph_store import NUM_EDGE_FEATURES, NUM_NODE_FEATURES, GraphStore
from core.can.splits import TRAIN, VAL


def generate(num_train: int, num_val: int = 512, seed: int = 0) -> GraphStore:
    """Windows of a make-believe vehicle; a third are attacks that shift one node's and its edges' features.

    The shift has a random size, so that a share of the attacks cannot be told from noise.
    """
    rng = np.random.default_rng(seed)
    num = num_train + num_val
    counts = rng.integers(24, 37, num)
    node_ptr = np.concatenate([[0], np.cumsum(counts)])
    total = int(node_ptr[-1])
    graph = np.repeat(np.arange(num), counts)
    place = np.arange(total) - node_ptr[graph]
    y = (rng.random(num) < 1 / 3).astype(np.uint8)

    typical = rng.normal(size=(64, NUM_NODE_FEATURES))
    x = typical[place] + rng.normal(size=(total, NUM_NODE_FEATURES))
    victim = rng.integers(0, 24, num)
    hit = (place == victim[graph]) & (y[graph] == 1)
    strength = rng.exponential(2.0, num)
    x[hit] += (strength[graph[hit]] * rng.choice([-1, 1], hit.sum()))[:, None] * typical[63]

    # Every node follows the one before it, and half as many further transitions are drawn.
    extra = rng.integers(0, total, total // 2)
    other = node_ptr[graph[extra]] + (rng.random(len(extra)) * counts[graph[extra]]).astype(np.int64)
    source = np.concatenate([np.arange(total), extra])
    target = np.concatenate(
        [np.where(place == 0, np.arange(total) + counts[graph] - 1, np.arange(total) - 1), other]
    )
    _, first = np.unique(target * total + source, return_index=True)
    source, target = source[first], target[first]
    edge_graph = graph[source]
    edge_attr = rng.normal(size=(len(source), NUM_EDGE_FEATURES))
    edge_attr[hit[source]] += 0.5 * strength[edge_graph[hit[source]], None]
    split = np.where(np.arange(num) < num_train, TRAIN, VAL).astype(np.int8)
    start = 0.1 * np.arange(num, dtype=np.float64)
    return GraphStore(
        x=x.astype(np.float32),
        edge_index=(np.stack([source, target]) - node_ptr[edge_graph]).astype(np.int32),
        edge_attr=edge_attr.astype(np.float32),
        node_id=(0x80 + 17 * place).astype(np.uint32),
        node_ptr=node_ptr.astype(np.int64),
        edge_ptr=np.searchsorted(edge_graph, np.arange(num + 1)).astype(np.int64),
        y=y,
        capture=np.zeros(num, np.int32),
        t_start=start,
        t_end=start + 0.09,
        t_attack=np.where(y == 1, start, np.nan),
        split=split,
    )
