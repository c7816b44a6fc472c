"""The vectorised graphs are the obvious ones, whatever the traffic."""

from hypothesis import given, settings
from hypothesis import strategies as st

from core.can.features import iter_graphs
from tests.graph_helpers import assert_same_graphs, graphs_of, random_frames
from tests.reference.graphs import reference_graphs


@settings(max_examples=60, deadline=None)
@given(
    window=st.one_of(st.integers(2, 12), st.integers(13, 300)),
    stride=st.integers(1, 350),
    num_frames=st.integers(0, 700),
    num_ids=st.sampled_from([1, 2, 5, 30, 400]),
    fd_share=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_graphs_equal_those_of_the_frame_by_frame_reference(
    *, window: int, stride: int, num_frames: int, num_ids: int, fd_share: float, seed: int
) -> None:
    # The reference is quadratic in the overlap: keep the number of windows small.
    num_frames = min(num_frames, window + 25 * stride)
    frames = random_frames(num_frames, seed, num_ids, fd_share)
    expected = reference_graphs(frames, window, stride)
    if not expected:
        assert list(iter_graphs(frames, window, stride)) == []
        return
    assert_same_graphs(graphs_of(frames, window, stride), expected)
