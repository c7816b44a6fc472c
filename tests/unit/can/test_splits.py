"""Splits by contiguous blocks: no shared frames, both classes on both sides, the same every time."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.can.splits import EMBARGO, TEST, TRAIN, VAL, assign_splits, count_splits, split_digest
from settings.graph import GraphSettings


def split_of(
    labels: list[NDArray[np.uint8]],
    graph: GraphSettings | None = None,
    *,
    is_test: list[bool] | None = None,
    holdout: float = 0.0,
) -> NDArray[np.int8]:
    capture = np.repeat(np.arange(len(labels), dtype=np.int32), [len(y) for y in labels])
    return assign_splits(
        capture,
        np.concatenate(labels),
        is_test or [False] * len(labels),
        [holdout] * len(labels),
        graph or GraphSettings(),
    )


def benign(num_windows: int) -> NDArray[np.uint8]:
    return np.zeros(num_windows, np.uint8)


def with_attacks(num_windows: int, attacks: slice) -> NDArray[np.uint8]:
    y = benign(num_windows)
    y[attacks] = 1
    return y


@given(
    window=st.integers(2, 30),
    stride=st.integers(1, 40),
    extra_embargo=st.integers(0, 3),
    block_windows=st.integers(1, 60),
    val_fraction=st.sampled_from([0.05, 0.2, 0.5, 0.8]),
    holdout=st.sampled_from([0.0, 0.25]),
    lengths=st.lists(st.integers(1, 150), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
)
def test_no_two_windows_of_different_splits_share_a_frame(
    *,
    window: int,
    stride: int,
    extra_embargo: int,
    block_windows: int,
    val_fraction: float,
    holdout: float,
    lengths: list[int],
    seed: int,
) -> None:
    embargo = -(-max(window - stride, 0) // stride) + extra_embargo
    graph = GraphSettings(
        window=window,
        stride=stride,
        embargo_windows=embargo,
        block_windows=block_windows,
        val_fraction=val_fraction,
    )
    rng = np.random.default_rng(seed)
    labels = [(rng.random(n) < 0.2).astype(np.uint8) for n in lengths]
    split = split_of(labels, graph, holdout=holdout)
    for part in np.split(split, np.cumsum(lengths)[:-1]):
        frames = {
            side: {int(w) * stride + k for w in np.flatnonzero(part == side) for k in range(window)}
            for side in (TRAIN, VAL, TEST)
        }
        assert not frames[TRAIN] & frames[VAL]
        assert not frames[TRAIN] & frames[TEST]
        assert not frames[VAL] & frames[TEST]
        # The embargo counts windows, also where windows do not overlap.
        for a, b in product((TRAIN, VAL, TEST), repeat=2):
            if a < b:
                distance = np.abs(np.flatnonzero(part == a)[:, None] - np.flatnonzero(part == b))
                assert distance.min(initial=len(part) + embargo) > embargo


def test_validation_is_made_of_whole_blocks_spread_over_the_capture() -> None:
    val = np.flatnonzero(split_of([benign(5000)]) == VAL)
    starts = val[np.diff(val, prepend=-2) > 1]
    assert len(val) == 1000
    assert starts.tolist() == [100 + 250 * i for i in range(20)]


def test_windows_beside_a_border_are_left_out_of_training() -> None:
    split = split_of([benign(5000)], GraphSettings(embargo_windows=3))
    assert split[97:153].tolist() == [EMBARGO] * 3 + [VAL] * 50 + [EMBARGO] * 3


@pytest.mark.parametrize("num_windows", [20, 99, 400, 5000])
@pytest.mark.parametrize("attacks", [slice(0, 8), slice(6, 14), slice(-8, None), slice(0, None, 3)])
def test_both_classes_are_in_training_and_in_validation(num_windows: int, attacks: slice) -> None:
    y = with_attacks(num_windows, attacks)
    split = split_of([y])
    for side in (TRAIN, VAL):
        assert set(y[split == side]) == {0, 1}


def test_one_short_attack_in_one_of_many_captures_is_on_both_sides() -> None:
    labels = [benign(3000), with_attacks(3000, slice(1200, 1230)), benign(700)]
    y, split = np.concatenate(labels), split_of(labels)
    assert (y[split == TRAIN] == 1).any()
    assert (y[split == VAL] == 1).any()


def test_validation_share_is_near_the_wanted_one() -> None:
    rng = np.random.default_rng(1)
    labels = [(rng.random(n) < 0.1).astype(np.uint8) for n in (900, 4000, 12_000)]
    counts = count_splits(split_of(labels, GraphSettings(val_fraction=0.3)))
    assert counts["val"] / sum(counts.values()) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("num_windows", [1, 2, 3])
def test_captures_too_short_for_both_sides_train(num_windows: int) -> None:
    assert (split_of([benign(num_windows)]) == TRAIN).all()


def test_small_captures_still_validate() -> None:
    counts = count_splits(split_of([benign(99)]))
    assert counts == {"train": 77, "val": 18, "test": 0, "embargo": 4}


def test_test_captures_test_as_a_whole() -> None:
    split = split_of([benign(300), with_attacks(40, slice(3, 9))], is_test=[False, True])
    assert (split[300:] == TEST).all()
    assert TEST not in split[:300]


def test_the_end_of_a_training_capture_is_held_out_behind_an_embargo() -> None:
    split = split_of([benign(1000), benign(500)], holdout=0.2)
    for part in (split[:1000], split[1000:]):
        held_out = len(part) // 5
        assert (part[-held_out:] == TEST).all()
        assert part[-held_out - 1] == EMBARGO
        assert TEST not in part[:-held_out]


def test_digest_tells_one_split_from_another() -> None:
    capture = np.zeros(4, np.int32)
    split = np.array([TRAIN, EMBARGO, VAL, TEST], np.int8)
    assert split_digest(split, capture) == split_digest(split.copy(), capture)
    assert split_digest(split, capture) != split_digest(split[::-1], capture)
    assert split_digest(split, capture) != split_digest(split, capture + 1)
