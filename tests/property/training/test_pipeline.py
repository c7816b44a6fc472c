"""Whatever is changed whenever, packs are those of the plan, in order, to the bit."""

import time
from contextlib import closing

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from core.training.packs import PackLimit, split_step
from core.training.pipeline import Pipeline
from tests.input_helpers import HookedData, Indices, gather_threads, same_batch, wait_until
from tests.synthetic import make_store

STORE = make_store(40)
RESIDENT = HookedData(STORE, lambda graphs: None)
LIMITS = st.builds(
    PackLimit,
    graphs=st.integers(1, 12),
    nodes=st.sampled_from([1, 20, 60, 2**62]),
    edges=st.sampled_from([1, 50, 150, 2**62]),
)
STEPS = st.lists(
    st.lists(st.integers(0, 39), max_size=14).map(lambda graphs: np.array(graphs, np.int64)), max_size=6
)


def _dawdle(graphs: Indices) -> None:
    """Threads overtake each other."""
    time.sleep(0.0005 * (int(graphs.sum()) % 4))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_changes_at_any_moment_change_no_pack_and_no_order(data: st.DataObject) -> None:
    def change() -> None:
        """Between two packs, perhaps."""
        match data.draw(st.sampled_from(["nothing", "nothing", "workers", "prefetch", "limit", "close"])):
            case "workers":
                pipeline.num_workers = data.draw(st.integers(0, 4))
            case "prefetch":
                pipeline.prefetch_factor = data.draw(st.integers(1, 4))
            case "limit":
                pipeline.limit = data.draw(LIMITS)
            case "close":
                pipeline.close()
            case _:
                pass

    threads_before = gather_threads()
    source = HookedData(STORE, _dawdle)
    with closing(Pipeline(source, data.draw(LIMITS), data.draw(st.integers(0, 4)))) as pipeline:
        for steps in data.draw(st.lists(STEPS, min_size=1, max_size=2)):  # epochs; one may be left early
            pipeline.begin(steps)
            first = data.draw(st.integers(0, len(steps)))  # a training taken up again begins in the middle
            for step in range(first, len(steps)):
                graphs = steps[step]
                for _ in range(data.draw(st.integers(0, 2))):  # begun in vain: out of memory
                    for _, _pack in zip(
                        range(data.draw(st.integers(0, 3))), pipeline.packs(step), strict=False
                    ):
                        change()
                    change()
                expected = split_step(source.num_nodes(graphs), source.num_edges(graphs), pipeline.limit)
                found = []
                for pack in pipeline.packs(step):
                    found.append((pack.start, pack.stop))
                    assert same_batch(pack.batch, RESIDENT.batch(graphs[pack.start : pack.stop]))
                    change()
                assert found == expected
    wait_until(lambda: gather_threads() == threads_before)


@given(LIMITS)
def test_a_limit_is_read_back_from_its_event_which_leaves_out_what_is_not_limited(limit: PackLimit) -> None:
    told = limit.to_event()
    assert PackLimit(**told) == limit
    assert max(told.values()) < 2**62
