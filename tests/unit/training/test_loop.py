import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.errors import TrainingError, TrainingProcessError
from core.events.catalogue import CheckpointWritten, EpochFinished, TrainingResumed
from core.models.batch import GraphBatch
from core.models.gat import Gat
from core.training.batch_plan import plan_epoch
from core.training.loop import Plan, Validate, fit
from core.training.objectives import GatObjective
from core.training.packs import PackLimit
from core.training.pipeline import Pipeline
from core.training.seeds import seeded
from core.training.step import Stepper
from settings.models import ModelSettings
from settings.training import TrainingSettings
from tests.synthetic import make_store
from tests.training_helpers import CPU, Recorder, flat, graph_data, make_guard, make_run, make_tuner

SIZES = ModelSettings.model_validate({"preset": "small"}).student
STORE = make_store(40)
DATA = graph_data(STORE)
Y = torch.from_numpy(STORE.y.astype(np.int64))


def _gat(dropout: float = 0.2) -> GatObjective:
    return GatObjective(seeded(lambda: Gat(SIZES.gat, SIZES.ids, dropout), 3), Y, dropout)


def _plan(epoch: int) -> list[NDArray[np.int64]]:
    return plan_epoch(np.arange(40), seed=0, epoch=epoch, batch_size=10, min_steps=4)


def _losses(values: Iterator[float]) -> Validate:
    return lambda: (next(values), None)


def _stepper(objective: Any, micro_batch_size: int = 4096, lr: float = 1e-3) -> Stepper:
    optimizer = torch.optim.AdamW(objective.module.parameters(), lr=lr, fused=True)
    pipeline = Pipeline(DATA, PackLimit(micro_batch_size))
    return Stepper(objective, pipeline, optimizer, CPU, make_tuner(pipeline), make_guard(pipeline.limit))


def _fit(
    folder: Path, objective: Any, validate: Validate, epochs: int = 4, patience: int = 9, **kw: Any
) -> Recorder:
    recorder = Recorder()
    plan: Plan = kw.get("plan", _plan)
    run = make_run(folder, recorder, interval_s=kw.get("interval_s", 1e9))
    stepper = _stepper(objective, kw.get("micro", 4096))
    fit(run, stepper, plan, validate, TrainingSettings(patience=patience), epochs)
    return recorder


def _weights(objective: GatObjective) -> NDArray[np.float64]:
    return flat(objective.module.state_dict())


def test_the_best_weights_are_kept_not_the_last(tmp_path: Path) -> None:
    after_two, after_five = _gat(), _gat()
    _fit(tmp_path / "a", after_two, _losses(iter([3.0, 2.0])), epochs=2)
    _fit(tmp_path / "b", after_five, _losses(iter([3.0, 2.0, 5.0, 6.0, 7.0])), epochs=5)
    assert np.array_equal(_weights(after_two), _weights(after_five))


def test_training_stops_when_validation_has_not_improved_for_patience_epochs(tmp_path: Path) -> None:
    recorder = _fit(tmp_path, _gat(), _losses(iter([2.0, 1.0, 1.5, 1.5, 0.1])), epochs=9, patience=2)
    assert [fact.epoch for fact in recorder.of(EpochFinished)] == [0, 1, 2, 3]


def test_two_trainings_with_the_same_seed_are_bitwise_equal(tmp_path: Path) -> None:
    first, second = _gat(), _gat()
    for folder, objective in (("a", first), ("b", second)):
        _fit(tmp_path / folder, objective, _losses(itertools.count(9.0, -1.0)))
    assert np.array_equal(_weights(first), _weights(second))


@pytest.mark.parametrize("micro_batch_size", [1, 3])
def test_the_micro_batch_changes_nothing_but_rounding(tmp_path: Path, micro_batch_size: int) -> None:
    whole, parts = _gat(), _gat()
    _fit(tmp_path / "a", whole, _losses(itertools.count(9.0, -1.0)), epochs=2)
    _fit(tmp_path / "b", parts, _losses(itertools.count(9.0, -1.0)), epochs=2, micro=micro_batch_size)
    np.testing.assert_allclose(_weights(whole), _weights(parts), rtol=1e-3, atol=2e-4)


def test_a_checkpoint_is_written_at_the_end_of_a_training_however_short_it_was(tmp_path: Path) -> None:
    written = _fit(tmp_path, _gat(), _losses(itertools.count(9.0, -1.0)), epochs=2).of(CheckpointWritten)
    assert [(fact.epoch, fact.num_steps) for fact in written] == [(1, None)]


def test_a_finished_training_is_not_repeated_and_gives_its_best_weights_again(tmp_path: Path) -> None:
    first, again = _gat(), _gat()
    _fit(tmp_path, first, _losses(iter([3.0, 2.0, 5.0, 6.0])), epochs=9, patience=2)
    recorder = _fit(tmp_path, again, _losses(iter([])), epochs=9, patience=2)
    assert [type(fact) for fact in recorder.facts] == [TrainingResumed]
    assert np.array_equal(_weights(first), _weights(again))


@pytest.mark.parametrize("interval_s", [0.0, 1e9])
def test_a_loss_that_is_not_finite_is_refused_with_epoch_and_step_and_never_kept(
    tmp_path: Path, interval_s: float
) -> None:
    objective = _gat()
    with torch.no_grad():
        next(objective.module.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"loss of m is nan in epoch 0, step 0; lower training\.lr"):
        _fit(tmp_path, objective, _losses(itertools.count(9.0, -1.0)), interval_s=interval_s)
    assert not list(tmp_path.glob("*.pt"))


def test_a_last_batch_of_one_graph_trains(tmp_path: Path) -> None:
    recorder = _fit(
        tmp_path,
        _gat(),
        _losses(itertools.count(9.0, -1.0)),
        epochs=1,
        plan=lambda epoch: [np.arange(3), np.array([7 + epoch])],
    )
    assert recorder.of(EpochFinished)[0].num_steps == 2


class _OutOfMemory:
    """Refuses batches above a size, as a full GPU does."""

    num_node_normal = 0

    def __init__(self, inner: GatObjective, most: int) -> None:
        self.inner, self.most = inner, most
        self.module: nn.Module = inner.module
        self.num_edge_uniform = inner.num_edge_uniform

    def losses(self, batch: GraphBatch, graphs: NDArray[np.int64]) -> Tensor:
        if len(graphs) > self.most:
            raise torch.OutOfMemoryError("no room")
        return self.inner.losses(batch, graphs)


def test_a_step_that_runs_out_of_memory_is_repeated_with_smaller_micro_batches() -> None:
    def step(objective: Any) -> tuple[Stepper, Tensor]:
        stepper = _stepper(objective)
        stepper.begin(0, [np.arange(20)])
        return stepper, stepper.step(0, seed=1)

    plain, limited = _gat(), _gat()
    _, expected = step(plain)
    stepper, loss = step(_OutOfMemory(limited, most=6))
    assert stepper.pipeline.limit.graphs == 5
    torch.testing.assert_close(loss, expected)
    np.testing.assert_allclose(_weights(plain), _weights(limited), rtol=1e-3, atol=2e-4)
    with pytest.raises(TrainingProcessError, match=r"single graph of \d+ nodes and \d+ edges.*no room"):
        step(_OutOfMemory(_gat(), most=0))


def test_dropout_of_zero_needs_no_random_numbers() -> None:
    assert _gat(0.0).num_edge_uniform == 0
    assert _gat(0.1).num_edge_uniform == SIZES.gat.num_layers * SIZES.gat.heads
