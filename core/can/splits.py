"""Which windows train, which validate and which test.

Windows of one capture resemble their neighbours, and overlapping ones share frames: a random split puts the
training data into the validation set. So every training capture is cut into contiguous blocks, whole blocks
validate, and windows beside a border are left out (embargo).
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from settings.graph import GraphSettings

TRAIN, VAL, TEST, EMBARGO = 0, 1, 2, 3
SPLIT_NAMES = ("train", "val", "test", "embargo")


def assign_splits(
    capture: NDArray[np.int32],
    y: NDArray[np.uint8],
    is_test: Sequence[bool],
    holdout_fractions: Sequence[float],
    graph: GraphSettings,
) -> NDArray[np.int8]:
    """Give every window its split, as a pure function of the windows' order and labels.

    A training capture of ``n`` windows is cut into blocks of ``n // (2 * ceil(1 / val_fraction))`` windows,
    at most ``block_windows`` and at least four embargoes long; a rest joins the last block. Blocks fall into
    three strata (benign windows only, attack windows only, both); of the ``k`` blocks of a stratum, in
    capture order, ``m = round(val_fraction * k)`` evenly spaced ones validate (at least one and at most
    ``k - 1``; none if ``k < 2``). Where training or validation then lacks a class, blocks are halved until
    both have it; if they never do, the largest blocks that bring the most classes to both are taken.

    Args:
        capture: int32 ``[G]`` capture of each window; the windows of a capture are contiguous.
        y: uint8 ``[G]`` labels.
        is_test: For each capture, whether all of it tests.
        holdout_fractions: For each capture, the share of its last windows that test.
        graph: ``val_fraction``, ``block_windows`` and ``embargo_windows``.

    Returns:
        int8 ``[G]``: TRAIN, VAL, TEST or EMBARGO.
    """
    counts = np.bincount(capture, minlength=len(is_test))
    first = np.cumsum(counts) - counts
    position = np.arange(len(capture)) - first[capture]
    held_out = np.where(is_test, counts, np.floor(counts * np.asarray(holdout_fractions, np.float64)))
    test = position >= (counts - held_out)[capture]
    num_windows = np.bincount(capture[~test], minlength=len(is_test))
    num_blocks = 2 * math.ceil(1 / min(graph.val_fraction, 1 - graph.val_fraction))
    reachable = sum(min(2, int((y[~test] == label).sum())) for label in (0, 1))

    split = np.where(test, TEST, TRAIN).astype(np.int8)
    most, block_windows = -1, 2 * graph.block_windows
    while most < reachable and block_windows > 1:
        block_windows //= 2
        smallest = min(max(4 * graph.embargo_windows, 1), block_windows)
        sizes = np.clip(num_windows // num_blocks, smallest, block_windows)
        val = np.zeros(len(capture), dtype=bool)
        val[~test] = _choose(_blocks(capture, position, sizes, num_windows)[~test], y[~test], graph)
        candidate = _with_embargo(val, test, capture, graph.embargo_windows)
        covered = sum(((candidate == part) & (y == label)).any() for part in (TRAIN, VAL) for label in (0, 1))
        if covered > most:
            split, most = candidate, covered
    return split


def split_digest(split: NDArray[np.int8], capture: NDArray[np.int32]) -> str:
    """sha256 of which window of which capture is in which split."""
    digest = hashlib.sha256(capture.astype("<i4").tobytes())
    digest.update(split.tobytes())
    return digest.hexdigest()


def count_splits(split: NDArray[np.int8]) -> dict[str, int]:
    """Windows per split: train, val, test, embargo."""
    counts = np.bincount(split, minlength=len(SPLIT_NAMES))
    return {name: int(count) for name, count in zip(SPLIT_NAMES, counts, strict=True)}


def _blocks(
    capture: NDArray[np.int32],
    position: NDArray[np.int64],
    sizes: NDArray[np.int64],
    num_windows: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Block of every window, numbered over all captures; the rest of a capture joins its last block."""
    num_blocks = np.maximum(num_windows // sizes, 1)
    first = np.cumsum(num_blocks) - num_blocks
    block: NDArray[np.int64] = first[capture] + np.minimum(
        position // sizes[capture], num_blocks[capture] - 1
    )
    return block


def _choose(block: NDArray[np.int64], y: NDArray[np.uint8], graph: GraphSettings) -> NDArray[np.bool_]:
    """Which windows are in a validation block."""
    length = int(block.max(initial=-1)) + 1
    has_attack = np.bincount(block[y == 1], minlength=length) > 0
    has_benign = np.bincount(block[y == 0], minlength=length) > 0
    chosen = np.zeros(length, dtype=bool)
    for stratum in (has_benign & ~has_attack, has_attack & ~has_benign, has_benign & has_attack):
        members = np.flatnonzero(stratum)
        k = len(members)
        if k < 2:
            continue
        m = min(max(round(graph.val_fraction * k), 1), k - 1)
        chosen[members[(2 * np.arange(m) + 1) * k // (2 * m)]] = True
    windows: NDArray[np.bool_] = chosen[block]
    return windows


def _with_embargo(
    val: NDArray[np.bool_], test: NDArray[np.bool_], capture: NDArray[np.int32], embargo: int
) -> NDArray[np.int8]:
    """Splits with training windows near validation, and any windows near a hold-out, left out."""
    split = np.where(test, TEST, np.where(val, VAL, TRAIN)).astype(np.int8)
    split[_near(test, capture, embargo) & ~test] = EMBARGO
    split[_near(val & (split == VAL), capture, embargo) & (split == TRAIN)] = EMBARGO
    return split


def _near(mask: NDArray[np.bool_], capture: NDArray[np.int32], distance: int) -> NDArray[np.bool_]:
    """Windows at most ``distance`` windows from a marked one of the same capture."""
    near = mask.copy()
    marked = np.flatnonzero(mask)
    # Only the ends of runs of marked windows reach out of their run.
    ends = marked[(np.diff(marked, prepend=-2) > 1) | (np.diff(marked, append=len(mask) + 1) > 1)]
    reach = (ends[:, None] + np.arange(-distance, distance + 1)).ravel()
    origin = np.repeat(ends, 2 * distance + 1)
    inside = (reach >= 0) & (reach < len(mask))
    reach, origin = reach[inside], origin[inside]
    near[reach[capture[reach] == capture[origin]]] = True
    return near
