"""The graphs of a capture, one frame at a time: slow, obvious, and nothing shared with the product."""

import itertools
import math
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass

import networkx as nx

from core.can.frames import Frames


@dataclass
class ReferenceGraph:
    node_ids: list[int]
    x: list[list[float]]
    edges: list[tuple[int, int]]
    edge_attr: list[list[float]]
    y: int
    t_start: float
    t_end: float
    t_attack: float


@dataclass
class Frame:
    t: float
    key: int
    lanes: list[float]
    entropy: float
    attack: bool


def reference_graphs(frames: Frames, window: int, stride: int) -> list[ReferenceGraph]:
    rows = [_frame(frames, i) for i in range(len(frames))]
    return [_graph(rows[start : start + window]) for start in range(0, len(rows) - window + 1, stride)]


def _frame(frames: Frames, i: int) -> Frame:
    carried = [int(byte) for byte in frames.payload[i][: int(frames.length[i])]]
    lanes = []
    for lane in range(8):
        folded = carried[lane::8]
        lanes.append(sum(folded) / len(folded) if folded else 0.0)
    shares = [count / len(carried) for count in Counter(carried).values()]
    return Frame(
        t=float(frames.timestamp[i]),
        key=int(frames.arbitration_id[i]) + (2**31 if frames.extended[i] else 0),
        lanes=lanes,
        entropy=-sum(share * math.log2(share) for share in shares),
        attack=int(frames.attack[i]) == 1,
    )


def _graph(window: list[Frame]) -> ReferenceGraph:
    by_id: dict[int, list[int]] = defaultdict(list)
    for position, frame in enumerate(window):
        by_id[frame.key].append(position)
    transitions: dict[tuple[int, int], list[int]] = defaultdict(list)
    for position in range(len(window) - 1):
        transitions[window[position].key, window[position + 1].key].append(position)

    graph = nx.Graph()
    graph.add_nodes_from(by_id)
    graph.add_edges_from((a, b) for a, b in transitions if a != b)
    clustering = nx.clustering(graph)

    node_ids = sorted(by_id)
    number = {key: i for i, key in enumerate(node_ids)}
    edges = sorted(transitions, key=lambda edge: (edge[1], edge[0]))
    attacks = [frame.t for frame in window if frame.attack]
    return ReferenceGraph(
        node_ids=node_ids,
        x=[_node(window, by_id[key], clustering[key], key, list(transitions)) for key in node_ids],
        edges=[(number[a], number[b]) for a, b in edges],
        edge_attr=[_edge(window, transitions[edge], edge[::-1] in transitions) for edge in edges],
        y=int(bool(attacks)),
        t_start=window[0].t,
        t_end=window[-1].t,
        t_attack=attacks[0] if attacks else math.nan,
    )


def _node(
    window: list[Frame], positions: list[int], clustering: float, key: int, edges: list[tuple[int, int]]
) -> list[float]:
    frames = [window[p] for p in positions]
    n = len(frames)
    columns = [[frame.lanes[lane] for frame in frames] for lane in range(8)]
    pairs = list(itertools.pairwise(frames))
    gaps = [b.t - a.t for a, b in pairs]
    changes = (
        [sum(a.lanes[k] != b.lanes[k] for a, b in pairs) / len(pairs) for k in range(8)] if pairs else []
    )
    return [
        *(statistics.fmean(column) for column in columns),
        *(statistics.stdev(column) if n > 1 else 0.0 for column in columns),
        *(max(column) - min(column) for column in columns),
        n,
        statistics.fmean(frame.entropy for frame in frames),
        statistics.fmean(_standardised_moment(column, 3) for column in columns),
        statistics.fmean(_standardised_moment(column, 4) for column in columns),
        clustering,
        sum(p < len(window) // 2 for p in positions) / n,
        statistics.fmean(changes) if changes else 0.0,
        statistics.fmean(gaps) if gaps else 0.0,
        statistics.stdev(gaps) if len(gaps) > 1 else 0.0,
        sum(b == key for _, b in edges),
        sum(a == key for a, _ in edges),
    ]


def _standardised_moment(values: list[float], power: int) -> float:
    if max(values) == min(values):
        return 0.0
    mean = math.fsum(values) / len(values)
    m2 = math.fsum((v - mean) ** 2 for v in values) / len(values)
    moment = math.fsum((v - mean) ** power for v in values) / len(values) / math.pow(m2, power / 2)
    return min(max(moment - (3.0 if power == 4 else 0.0), -10.0), 10.0)


def _edge(window: list[Frame], positions: list[int], reverse: bool) -> list[float]:
    pairs = [(window[p], window[p + 1]) for p in positions]
    return [
        statistics.fmean(b.t - a.t for a, b in pairs),
        *(statistics.fmean(abs(b.lanes[k] - a.lanes[k]) for a, b in pairs) for k in range(8)),
        float(reverse),
        float(len(pairs)),
    ]
