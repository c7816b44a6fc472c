import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.training.batch_plan import num_steps, plan_curriculum_epoch, plan_epoch
from settings.training import CurriculumSettings

CURRICULUM = CurriculumSettings(tau_epochs=2.0, hard_fraction=0.2)


@given(st.integers(1, 700), st.integers(0, 9), st.integers(0, 5), st.integers(2, 300), st.integers(1, 80))
def test_an_epoch_sees_every_graph_once_in_batches_of_nearly_one_size(
    num: int, seed: int, epoch: int, batch_size: int, min_steps: int
) -> None:
    graphs = np.arange(1000, 1000 + num)
    batches = plan_epoch(graphs, seed=seed, epoch=epoch, batch_size=batch_size, min_steps=min_steps)
    sizes = [len(batch) for batch in batches]
    assert np.array_equal(np.sort(np.concatenate(batches)), graphs)
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    if num > 1:
        assert min(sizes) >= (2 if batch_size > 2 or num % 2 == 0 else 1)
        assert len(batches) >= min(min_steps, num // 2)


def test_a_batch_as_large_as_the_dataset_is_made_smaller_until_an_epoch_has_enough_steps() -> None:
    assert num_steps(3000, batch_size=4096, min_steps=50) == 50
    assert num_steps(1_000_000, batch_size=4096, min_steps=50) == 245


def test_one_more_graph_than_fits_makes_no_batch_of_one() -> None:
    batches = plan_epoch(np.arange(129), seed=0, epoch=0, batch_size=128, min_steps=1)
    assert sorted(map(len, batches)) == [64, 65]


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        batches = plan_epoch(np.arange(50), seed=seed, epoch=epoch, batch_size=7, min_steps=1)
        return [int(graph) for batch in batches for graph in batch]

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)


@pytest.mark.parametrize(("epoch", "attack_share"), [(0, 0.5), (30, 0.1)])
def test_the_curriculum_goes_from_balanced_to_natural(epoch: int, attack_share: float) -> None:
    graphs = np.arange(1000)
    attack = graphs % 10 == 0
    hard = np.where(graphs < 200, 5.0, 0.0)  # 20 of them attacks
    batches = plan_curriculum_epoch(
        graphs, attack, hard, CURRICULUM, seed=0, epoch=epoch, batch_size=100, min_steps=1
    )
    seen = np.concatenate(batches)
    assert len(seen) == 1200
    hard_seen = 0.2 * 1000 * 0.1
    assert attack[seen].sum() == pytest.approx(1000 * attack_share + hard_seen, abs=2)
    shares = [attack[batch].mean() for batch in batches]
    assert max(shares) - min(shares) < 0.15


def test_the_curriculum_repeats_the_hardest_windows() -> None:
    graphs = np.arange(100)
    batches = plan_curriculum_epoch(
        graphs,
        graphs % 2 == 0,
        graphs.astype(float),
        CURRICULUM,
        seed=0,
        epoch=50,
        batch_size=10,
        min_steps=1,
    )
    seen = np.bincount(np.concatenate(batches), minlength=100)
    assert (seen[80:] == 2).all()
    assert (seen[:80] == 1).all()
