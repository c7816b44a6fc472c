"""The order of an epoch: a pure function of seed and epoch, so that it can be resumed and repeated."""

import math

import numpy as np
from numpy.typing import NDArray

from settings.training import CurriculumSettings

Indices = NDArray[np.int64]


def num_steps(num_graphs: int, batch_size: int, min_steps: int) -> int:
    """Steps of an epoch: batches no larger than asked, and at least `min_steps` of them.

    A batch that fills the GPU's memory would leave a small dataset with one or two steps per epoch, that is
    full-batch descent, which does not converge in the epochs one has. The floor gives way only where batches
    would have fewer than two graphs.
    """
    return max(1, math.ceil(num_graphs / batch_size), min(min_steps, num_graphs // 2))


def deal(order: Indices, steps: int) -> list[Indices]:
    """Deal graphs round-robin into batches: sizes differ by at most one, and so do shares of every part."""
    return [order[step::steps] for step in range(steps)]


def plan_epoch(graphs: Indices, *, seed: int, epoch: int, batch_size: int, min_steps: int) -> list[Indices]:
    """Batches of an epoch that sees every graph exactly once.

    Args:
        graphs: int64 ``[G]`` graphs to train on.
        seed: Seed of the training.
        epoch: The epoch, from 0.
        batch_size: Most graphs in a batch.
        min_steps: Fewest batches, see `num_steps`.

    Returns:
        Graphs per batch, in order.
    """
    order = np.random.default_rng([seed, epoch]).permutation(graphs)
    return deal(order, num_steps(len(order), batch_size, min_steps))


def plan_curriculum_epoch(
    graphs: Indices,
    attack: NDArray[np.bool_],
    difficulty: NDArray[np.float64],
    curriculum: CurriculumSettings,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    min_steps: int,
) -> list[Indices]:
    """Batches of ``(1-p) balanced + p natural + hard`` graphs, ``p = 1 - exp(-epoch / tau)``.

    Early epochs show as many attacks as benign windows, later ones their natural mix; every epoch repeats
    some of the windows that the autoencoder finds hardest (KD-GAT, arXiv 2507.19686).

    Args:
        graphs: int64 ``[G]`` graphs to train on, of both classes.
        attack: bool ``[G]`` which of them are attacks.
        difficulty: float64 ``[G]`` reconstruction error of each.
        curriculum: tau and the share of hard graphs.
        seed: Seed of the training.
        epoch: The epoch, from 0.
        batch_size: Most graphs in a batch.
        min_steps: Fewest batches, see `num_steps`.

    Returns:
        Graphs per batch, in order; ``(1 + hard_fraction) * G`` graphs in all.
    """
    rng = np.random.default_rng([seed, epoch])
    num = len(graphs)
    natural = round((1 - math.exp(-epoch / curriculum.tau_epochs)) * num)
    hard = round(curriculum.hard_fraction * num)
    num_attacks = (num - natural) // 2
    order = np.concatenate(
        [
            np.resize(rng.permutation(graphs[attack]), num_attacks),
            np.resize(rng.permutation(graphs[~attack]), num - natural - num_attacks),
            rng.permutation(graphs)[:natural],
            rng.permutation(graphs[np.argsort(-difficulty, kind="stable")[:hard]]),
        ]
    )
    return deal(order, num_steps(len(order), batch_size, min_steps))
