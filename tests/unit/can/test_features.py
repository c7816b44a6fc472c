"""Graphs of windows worked out by hand, and on real captures against the reference."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.can.features import iter_graphs, payload_entropy, whole_windows
from core.can.frames import Frames
from core.can.readers import open_capture
from tests.graph_helpers import assert_same_graphs, frames_of, graphs_of, join, random_frames
from tests.reference.graphs import reference_graphs

REAL_CAPTURES = [
    "hcrl_ch/DoS_dataset-9999.csv",
    "hcrl_ch/Fuzzy_dataset-9999.csv",
    "hcrl_ch/gear_dataset-9999.csv",
    "set_01/train_02_with_attacks/DoS-1.csv",
    "injection_2018/speed.log",
]


@pytest.mark.parametrize("name", REAL_CAPTURES)
@pytest.mark.parametrize(("window", "stride"), [(100, 100), (64, 37)])
def test_graphs_of_real_captures_equal_the_reference(
    shared_data: Path, name: str, window: int, stride: int
) -> None:
    reader = open_capture(shared_data / name, attack_rule=None, max_quarantined_fraction=0.05)
    frames = next(iter(reader))[:5000]
    assert_same_graphs(graphs_of(frames, window, stride), reference_graphs(frames, window, stride))


def test_a_window_worked_out_by_hand() -> None:
    graphs = graphs_of(frames_of([5, 5, 7, 5], attack=[0, 0, 1, 0]), window=4)
    assert graphs["node_id"].tolist() == [5, 7]
    assert graphs["edge_index"].T.tolist() == [[0, 0], [1, 0], [0, 1]]
    assert graphs["edge_attr"][:, 10].tolist() == [1, 1, 1]
    assert graphs["edge_attr"][:, 9].tolist() == [1, 1, 1]
    assert graphs["edge_attr"][:, 1].tolist() == [1, 1, 1]
    five = graphs["x"][0]
    assert five[0] == pytest.approx(4 / 3)  # byte 0 is 0, 1, 3
    assert five[8] == pytest.approx(np.std([0, 1, 3], ddof=1))
    assert five[16] == 3
    assert five[24] == 3
    assert five[29] == pytest.approx(2 / 3)
    assert five[30] == pytest.approx(1 / 8)
    assert five[31] == pytest.approx(0.0015)
    assert five[32] == pytest.approx(np.std([0.001, 0.002], ddof=1))
    assert five[33:35].tolist() == [2, 2]
    assert graphs["t_attack"].tolist() == [0.002]


def test_edges_never_reach_into_the_next_window() -> None:
    graphs = graphs_of(frames_of([1, 2, 3, 4]), window=2)
    assert graphs["num_edges"].tolist() == [1, 1]
    assert graphs["num_nodes"].tolist() == [2, 2]
    assert graphs["edge_index"].T.tolist() == [[0, 1], [0, 1]]


def test_nodes_that_are_only_targets_have_rows_of_their_own() -> None:
    graphs = graphs_of(frames_of([1, 1, 1, 9]), window=4)
    target = graphs["x"][1]
    assert target[24] == 1
    assert target[0] == 3
    assert target[33:35].tolist() == [1, 0]


def test_a_29_bit_id_is_another_node_than_the_equal_11_bit_id() -> None:
    frames = replace(frames_of([5, 5, 5, 5]), extended=np.array([False, True, False, True]))
    assert graphs_of(frames, window=4)["node_id"].tolist() == [5, 5 + 2**31]


def test_can_fd_payloads_are_folded_not_dropped() -> None:
    payload = np.zeros((2, 64), np.uint8)
    payload[0, [0, 8, 16]] = 10, 20, 60
    payload[1, 0] = 7
    frames = replace(frames_of([1, 1]), payload=payload, length=np.array([17, 1], np.uint8))
    graphs = graphs_of(frames, window=2)
    assert graphs["x"][0, 0] == pytest.approx((30 + 7) / 2)
    assert graphs["edge_attr"][0, 1] == pytest.approx(23)


@pytest.mark.parametrize(
    ("carried", "bits"),
    [([], 0.0), ([7], 0.0), ([0, 0, 0], 0.0), ([0, 1], 1.0), ([0, 0, 1, 2], 1.5), (list(range(64)), 6.0)],
)
def test_entropy_is_that_of_the_carried_bytes(carried: list[int], bits: float) -> None:
    payload = np.zeros((1, 64), np.uint8)
    payload[0, : len(carried)] = carried
    frames = replace(frames_of([1]), payload=payload, length=np.array([len(carried)], np.uint8))
    assert payload_entropy(frames)[0] == pytest.approx(bits, abs=1e-12)


@pytest.mark.parametrize("num_frames", [0, 1, 9])
def test_less_than_a_window_gives_no_graph(num_frames: int) -> None:
    assert list(whole_windows([random_frames(num_frames)], 10, 10)) == []


@settings(deadline=None)
@given(
    window=st.integers(2, 40),
    stride=st.integers(1, 60),
    cuts=st.lists(st.integers(0, 400), max_size=6),
    fd_share=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 1000),
)
def test_graphs_do_not_depend_on_how_the_reader_cuts_blocks(
    *, window: int, stride: int, cuts: list[int], fd_share: float, seed: int
) -> None:
    frames = random_frames(400, seed, fd_share=fd_share)
    edges = [0, *sorted(cuts), 400]
    blocks = [_narrowed(frames[a:b]) for a, b in pairwise(edges)]
    found = [
        graph for part in whole_windows(blocks, window, stride) for graph in iter_graphs(part, window, stride)
    ]
    expected = graphs_of(frames, window, stride)
    for name, array in join(found).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def _narrowed(block: Frames) -> Frames:
    """A block as readers yield it: 8 payload columns unless a frame carries more."""
    return replace(block, payload=block.payload[:, :8]) if block.length.max(initial=0) <= 8 else block
