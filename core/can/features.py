"""Windows of frames -> graphs with 35 node and 11 edge features, many windows at a time.

Nodes are the distinct arbitration ids of a window, edges the distinct transitions from a frame's id to the
next frame's inside the window (KD-GAT, arXiv 2507.19686); ``docs/graphs.md`` has every feature's formula.

Everything is one vectorised pass over a chunk of windows in numpy: one stable sort by (window, id) numbers
the nodes and puts the frames of a node side by side, one by (target, source) does the same for edges, and
moments are bincounts of centred values, so that nothing cancels. All arithmetic is float64.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.can.frames import CLASSIC_PAYLOAD_BYTES, Frames, concat
from core.can.graph_store import NUM_EDGE_FEATURES, NUM_NODE_FEATURES

FEATURE_VERSION = 1
"""Part of a store's digest: raise it whenever a feature's value changes."""
EXTENDED_ID_BIT = np.uint32(1 << 31)

_LANES = CLASSIC_PAYLOAD_BYTES
_CHUNK_FRAMES = 12_800
_MOMENT_LIMIT = 10.0

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class GraphBlock:
    """Graphs of consecutive windows: the arrays of ``GraphStore``, with counts instead of pointers.

    Attributes:
        x: float64 ``[N, 35]``.
        edge_index: int64 ``[2, E]`` counted from the graph's first node, sorted by (target, source).
        edge_attr: float64 ``[E, 11]``.
        node_id: uint32 ``[N]``.
        num_nodes: int64 ``[G]``.
        num_edges: int64 ``[G]``.
        y: bool ``[G]``.
        t_start: float64 ``[G]``.
        t_end: float64 ``[G]``.
        t_attack: float64 ``[G]``, NaN where there is no attack frame.
    """

    x: Floats
    edge_index: Ints
    edge_attr: Floats
    node_id: NDArray[np.uint32]
    num_nodes: Ints
    num_edges: Ints
    y: NDArray[np.bool_]
    t_start: Floats
    t_end: Floats
    t_attack: Floats


def count_windows(num_frames: int, window: int, stride: int) -> int:
    """Full windows of ``window`` frames, one every ``stride`` frames."""
    return max((num_frames - window) // stride + 1, 0)


def whole_windows(blocks: Iterable[Frames], window: int, stride: int) -> Iterator[Frames]:
    """Regroup the frames of a capture so that every window lies inside one block, and blocks fit windows.

    Args:
        blocks: All frames of one capture in order, cut anywhere.
        window: Frames in a window.
        stride: Frames between window starts.

    Yields:
        Frames that begin with a window's first frame and end with a window's last; where windows overlap,
        consecutive blocks share frames. Frames after the last full window are dropped.
    """
    tail: Frames | None = None
    skip = 0
    for block in blocks:
        fresh = block[min(skip, len(block)) :]
        skip -= len(block) - len(fresh)
        frames = concat([tail, fresh]) if tail is not None else fresh
        num_windows = count_windows(len(frames), window, stride)
        if num_windows:
            yield frames[: (num_windows - 1) * stride + window]
        skip += max(num_windows * stride - len(frames), 0)
        tail = frames[num_windows * stride :]


def iter_graphs(frames: Frames, window: int, stride: int) -> Iterator[GraphBlock]:
    """Graphs of all full windows of consecutive frames, a chunk of windows at a time.

    Args:
        frames: Consecutive frames of one capture.
        window: Frames in a window.
        stride: Frames between window starts.
    """
    chunk = max(_CHUNK_FRAMES // window, 1)
    num_windows = count_windows(len(frames), window, stride)
    for first in range(0, num_windows, chunk):
        last = min(first + chunk, num_windows) - 1
        yield _graphs(frames[first * stride : last * stride + window], window, stride)


def _graphs(frames: Frames, window: int, stride: int) -> GraphBlock:
    """Graphs of the windows that fill ``frames``."""
    num_graphs = count_windows(len(frames), window, stride)
    key = frames.arbitration_id | np.where(frames.extended, EXTENDED_ID_BIT, np.uint32(0))
    lanes, entropy = _fold(frames), payload_entropy(frames)
    t, attack = frames.timestamp, frames.attack == 1
    if stride != window:
        rows = (stride * np.arange(num_graphs)[:, None] + np.arange(window)).ravel()
        key, lanes, entropy, t, attack = key[rows], lanes[:, rows], entropy[rows], t[rows], attack[rows]

    graph = np.repeat(np.arange(num_graphs), window)
    ids = _Groups.of((graph << 32) | key)
    num_nodes = np.bincount(ids.key >> 32, minlength=num_graphs)
    edges, pair_of_edge = _edges(ids.group.reshape(num_graphs, window))
    source, target = edges
    graph_of_edge = ids.key[source] >> 32
    first_node = np.cumsum(num_nodes) - num_nodes
    edge_index = edges - first_node[graph_of_edge]
    reverse, clustering = _structure(edges, edge_index, num_nodes)

    x = np.empty((len(ids.key), NUM_NODE_FEATURES))
    _payload_features(x, ids, lanes)
    x[:, 24] = ids.count
    x[:, 25] = ids.sum(entropy) / ids.count
    x[:, 28] = clustering
    x[:, 29] = ids.sum(np.tile(np.arange(window) < window // 2, num_graphs)) / ids.count
    x[:, 31], x[:, 32] = _inter_arrival(ids, t)
    x[:, 33] = np.bincount(target, minlength=len(x))
    x[:, 34] = np.bincount(source, minlength=len(x))

    shape = (num_graphs, window)
    edge_attr = np.empty((edges.shape[1], NUM_EDGE_FEATURES))
    edge_attr[:, 0] = pair_of_edge.sum(np.diff(t.reshape(shape)).ravel()) / pair_of_edge.count
    for lane in range(_LANES):
        delta = np.abs(np.diff(lanes[lane].astype(np.float64).reshape(shape))).ravel()
        edge_attr[:, 1 + lane] = pair_of_edge.sum(delta) / pair_of_edge.count
    edge_attr[:, 9] = reverse
    edge_attr[:, 10] = pair_of_edge.count

    t, attack = t.reshape(shape), attack.reshape(shape)
    y = attack.any(axis=1)
    return GraphBlock(
        x=x,
        edge_index=edge_index,
        edge_attr=edge_attr,
        node_id=(ids.key & 0xFFFFFFFF).astype(np.uint32),
        num_nodes=num_nodes,
        num_edges=np.bincount(graph_of_edge, minlength=num_graphs),
        y=y,
        t_start=t[:, 0],
        t_end=t[:, -1],
        t_attack=np.where(y, t[np.arange(num_graphs), attack.argmax(axis=1)], np.nan),
    )


@dataclass(frozen=True)
class _Groups:
    """Rows grouped by an integer key; groups in rising key, rows of a group in their own order.

    Attributes:
        key: int64 ``[K]`` key of each group.
        group: int64 ``[R]`` group of each row.
        order: int64 ``[R]`` rows sorted by group.
        start: int64 ``[K]`` where each group begins in ``order``.
        count: int64 ``[K]`` rows of each group.
    """

    key: Ints
    group: Ints
    order: Ints
    start: Ints
    count: Ints

    @classmethod
    def of(cls, key: Ints) -> "_Groups":
        order = np.argsort(key, kind="stable")
        in_order = key[order]
        begins = np.diff(in_order, prepend=-1) > 0
        start = np.flatnonzero(begins)
        group = np.empty_like(order)
        group[order] = np.cumsum(begins) - 1
        return cls(in_order[start], group, order, start, np.diff(start, append=len(key)))

    def sum(self, values: NDArray[np.float64] | NDArray[np.bool_]) -> Floats:
        """Sum of the values ``[R]`` of each group."""
        return np.bincount(self.group, values, len(self.key)).astype(np.float64, copy=False)


def _fold(frames: Frames) -> NDArray[np.uint8] | Floats:
    """Payload in 8 lanes ``[8, F]``: lane k is the mean of the carried bytes k, k + 8, k + 16, ..."""
    num_frames, width = frames.payload.shape
    if width == _LANES:
        return np.ascontiguousarray(frames.payload.T)
    total = frames.payload.reshape(num_frames, -1, _LANES).sum(axis=1, dtype=np.int64)
    carried = (frames.length[:, None].astype(np.int64) + (_LANES - 1 - np.arange(_LANES))) // _LANES
    return np.ascontiguousarray((total / np.maximum(carried, 1)).T)


def payload_entropy(frames: Frames) -> Floats:
    """Shannon entropy in bits of the byte values that each frame carries, ``[F]``; 0 for no payload.

    With ``c_j`` the number of carried bytes equal to byte ``j``: ``H = log2(L) - log2(prod_j c_j) / L``.
    """
    payload = np.ascontiguousarray(frames.payload.T)
    width = len(payload)
    carried = np.arange(width, dtype=np.uint8)[:, None] < frames.length
    equal = np.zeros_like(payload)
    for byte in payload:
        equal += payload == byte
    # Bytes that are not carried are 0 and were counted as equal to the carried zeros.
    equal -= (width - frames.length) * (payload == 0)
    product = np.multiply.reduce(np.maximum(equal * carried, 1), axis=0, dtype=np.float64)
    length = np.maximum(frames.length, 1)
    entropy: Floats = np.maximum(np.log2(length, dtype=np.float64) - np.log2(product) / length, 0.0)
    return entropy


def _payload_features(x: Floats, ids: _Groups, lanes: NDArray[np.uint8] | Floats) -> None:
    """Features 0-23 (mean, std, range of each byte), 26, 27 (skewness, kurtosis) and 30 (change rate)."""
    in_order = np.take(lanes, ids.order, axis=1)
    spread = np.maximum.reduceat(in_order, ids.start, axis=1) - np.minimum.reduceat(
        in_order, ids.start, axis=1
    )
    x[:, 16:24] = spread.T
    varies = spread > 0
    count = ids.count
    skewness, kurtosis = np.zeros(len(count)), np.zeros(len(count))
    for lane in range(_LANES):
        value = lanes[lane].astype(np.float64)
        x[:, lane] = mean = ids.sum(value) / count
        value -= mean[ids.group]
        square = value * value
        m2 = np.where(varies[lane], ids.sum(square) / count, 0.0)
        x[:, 8 + lane] = np.sqrt(m2 * count / np.maximum(count - 1, 1))
        divisor = np.where(varies[lane], m2, np.inf)
        skewness += _limited(ids.sum(square * value) / count / (divisor * np.sqrt(divisor)))
        kurtosis += _limited(ids.sum(square * square) / count / divisor**2 - 3.0 * varies[lane])
    x[:, 26], x[:, 27] = skewness / _LANES, kurtosis / _LANES

    changed = np.zeros(lanes.shape[1])
    changed[1:] = np.add.reduce(in_order[:, 1:] != in_order[:, :-1], axis=0, dtype=np.uint8)
    changed[ids.start] = 0.0
    x[:, 30] = np.add.reduceat(changed, ids.start) / (_LANES * np.maximum(count - 1, 1))


def _limited(moment: Floats) -> Floats:
    return np.clip(moment, -_MOMENT_LIMIT, _MOMENT_LIMIT)


def _inter_arrival(ids: _Groups, t: Floats) -> tuple[Floats, Floats]:
    """Features 31 and 32: mean and sample standard deviation of the times between frames of an id."""
    in_order = t[ids.order]
    gap = np.diff(in_order, prepend=0.0)
    last = ids.start + ids.count - 1
    mean = (in_order[last] - in_order[ids.start]) / np.maximum(ids.count - 1, 1)
    deviation = gap - np.repeat(mean, ids.count)
    deviation[ids.start] = 0.0
    squares = np.add.reduceat(deviation**2, ids.start)
    std = np.where(ids.count > 2, np.sqrt(squares / np.maximum(ids.count - 2, 1)), 0.0)
    return mean, std


def _edges(node: Ints) -> tuple[Ints, _Groups]:
    """Distinct transitions inside each window.

    Args:
        node: int64 ``[G, W]`` node of each frame.

    Returns:
        int64 ``[2, E]`` source and target node of each edge sorted by (target, source), and the grouping of
        the ``G * (W - 1)`` transitions into them.
    """
    num_nodes = int(node.max()) + 1
    pairs = _Groups.of((node[:, 1:] * num_nodes + node[:, :-1]).ravel())
    target, source = np.divmod(pairs.key, num_nodes)
    return np.stack([source, target]), pairs


def _structure(edges: Ints, local: Ints, num_nodes: Ints) -> tuple[NDArray[np.bool_], Floats]:
    """Whether each edge has a reverse edge, and each node's clustering coefficient.

    The neighbours of a node are a bit set over its graph's nodes. The coefficient is that of the undirected
    simple graph without self-loops: 2 T / (k (k - 1)), T edges among k neighbours (Watts & Strogatz, 1998).

    Args:
        edges: int64 ``[2, E]`` distinct edges, nodes numbered over all graphs.
        local: int64 ``[2, E]`` the same, counted from the graph's first node.
        num_nodes: int64 ``[G]``.
    """
    source, target = edges
    total = int(num_nodes.sum())
    words = -(-int(num_nodes.max()) // 64)
    word, bit = local >> 6, np.left_shift(np.uint64(1), (local & 63).astype(np.uint64))

    # Edges are distinct, so adding bits sets them.
    sources = np.zeros(total * words, dtype=np.uint64)
    np.add.at(sources, target * words + word[0], bit[0])
    reverse = (sources[source * words + word[1]] & bit[1]) != 0

    once = (source < target) | ((source > target) & ~reverse)
    a, b = edges[:, once]
    neighbours = np.zeros(total * words, dtype=np.uint64)
    np.add.at(neighbours, a * words + word[1][once], bit[1][once])
    np.add.at(neighbours, b * words + word[0][once], bit[0][once])
    rows = neighbours.reshape(total, words)
    common = np.bitwise_count(rows[a] & rows[b]).sum(axis=1, dtype=np.float64)
    twice_triangles = np.bincount(a, common, total) + np.bincount(b, common, total)
    degree = np.bincount(a, minlength=total) + np.bincount(b, minlength=total)
    return reverse, twice_triangles / np.maximum(degree * (degree - 1), 1)
