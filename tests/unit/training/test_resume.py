"""Trainings cut off at every possible moment and taken up again, beside the same ones left alone."""

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from core.events.catalogue import CheckpointRefused, CheckpointWritten, Emit, EpochFinished, TrainingResumed
from core.models.batch import GraphBatch
from core.models.gat import Gat
from core.models.vgae import Vgae
from core.training import artifacts
from core.training.batch_plan import plan_epoch
from core.training.dqn import ReplayBuffer, train_agent
from core.training.loop import fit
from core.training.mlp_fusion import train_mlp
from core.training.objectives import GatObjective, VgaeObjective
from core.training.packs import PackLimit
from core.training.pipeline import Pipeline
from core.training.precision import Precision, one_thread
from core.training.run import Run
from core.training.seeds import random_states, restore_random_states, seeded
from core.training.step import Objective, Stepper
from settings.models import FusionSettings, ModelSettings
from settings.training import DqnSettings, TrainingSettings
from tests.synthetic import make_store
from tests.training_helpers import (
    CPU,
    Interruption,
    Recorder,
    TrainingCutOffError,
    flat,
    fusion_windows,
    graph_data,
    losses,
    make_guard,
    make_run,
    make_tuner,
)

SIZES = ModelSettings.model_validate({"preset": "small"}).student
FP16 = Precision(torch.device("cpu"), torch.float16)
STORE = make_store(24)
DATA = graph_data(STORE)
Y = torch.from_numpy(STORE.y.astype(np.int64))
WINDOWS = fusion_windows(60, 0), fusion_windows(20, 1)
TRAINING = TrainingSettings(
    lr=0.01,
    patience=2,
    min_steps_per_epoch=3,
    dqn=DqnSettings(episodes=3, batch_size=16, replay_capacity=100),
)
NUM_STEPS, NUM_EPOCHS = 3, 3
Train = Callable[[Run], dict[str, torch.Tensor]]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():  # quicker for so small batches, above all beside other tests
        yield


def gat_objective() -> GatObjective:
    return GatObjective(seeded(lambda: Gat(SIZES.gat, SIZES.ids, 0.2), 3), Y, 0.2)


def vgae_objective() -> VgaeObjective:
    return VgaeObjective(seeded(lambda: Vgae(SIZES.vgae, SIZES.ids, 0.2), 3), 0.2)


def stepper(objective: Objective, micro_batch_size: int = 5, precision: Precision = CPU) -> Stepper:
    optimizer = torch.optim.AdamW(objective.module.parameters(), lr=0.01, fused=True)
    pipeline = Pipeline(DATA, PackLimit(micro_batch_size))
    return Stepper(
        objective, pipeline, optimizer, precision, make_tuner(pipeline), make_guard(pipeline.limit)
    )


def train_graphs(run: Run, objective: Objective) -> dict[str, torch.Tensor]:
    def plan(epoch: int) -> list[NDArray[np.int64]]:
        return plan_epoch(np.arange(24), seed=0, epoch=epoch, batch_size=8, min_steps=NUM_STEPS)

    @torch.no_grad()
    def validate() -> tuple[float, float | None]:
        return float(objective.losses(DATA.batch(np.arange(24)), np.arange(24)).sum()), None

    fit(run, stepper(objective), plan, validate, TRAINING, NUM_EPOCHS)
    return objective.module.state_dict()


TRAININGS: dict[str, Train] = {
    "gat": lambda run: train_graphs(run, gat_objective()),
    "vgae": lambda run: train_graphs(run, vgae_objective()),
    "agent": lambda run: train_agent(run, *WINDOWS, FusionSettings(hidden=8), TRAINING).network.state_dict(),
    "mlp": lambda run: train_mlp(run, *WINDOWS, FusionSettings(hidden=8), TRAINING).state_dict(),
}


def every_third() -> Callable[[], float]:
    """A clock that makes a checkpoint of an interval of 3 s due at every third chance or so."""
    return itertools.count(0.0).__next__


@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.parametrize("interval_s", [0.0, 3.0])
def test_a_training_cut_off_anywhere_goes_on_to_the_same_weights_and_losses(
    tmp_path: Path, name: str, interval_s: float
) -> None:
    train, alone = TRAININGS[name], Recorder()
    expected = flat(train(make_run(tmp_path / "alone", alone, 1e9)))
    assert len(losses(alone)) >= 2
    probe = Recorder()
    train(make_run(tmp_path / "probe", probe, interval_s, clock=every_third()))
    for num_facts in range(1, len(probe.facts)):
        folder, cut_off, resumed = tmp_path / str(num_facts), Interruption(num_facts), Recorder()
        with pytest.raises(TrainingCutOffError):
            train(make_run(folder, cut_off, interval_s, clock=every_third()))
        assert np.array_equal(flat(train(make_run(folder, resumed, 1e9))), expected), num_facts
        assert losses(cut_off, resumed) == losses(alone), num_facts


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_cut_off_again_and_again_arrives_at_the_same_weights(tmp_path: Path, name: str) -> None:
    train, attempts = TRAININGS[name], []
    expected = flat(train(make_run(tmp_path / "alone", Recorder(), 1e9)))
    while True:
        attempts.append(Interruption(3))  # resumed, one step, another: cut off
        try:
            found = train(make_run(tmp_path / "cut", attempts[-1], 0.0))
            break
        except TrainingCutOffError:
            continue
    assert len(attempts) > NUM_EPOCHS
    assert np.array_equal(flat(found), expected)


def test_it_goes_on_at_the_very_step_and_says_so(tmp_path: Path) -> None:
    cut_off, resumed = Interruption(2 + NUM_STEPS + 1), Recorder()
    with pytest.raises(TrainingCutOffError):
        TRAININGS["gat"](make_run(tmp_path, cut_off))
    TRAININGS["gat"](make_run(tmp_path, resumed))
    last = cut_off.of(CheckpointWritten)[-1]
    assert (last.epoch, last.num_steps) == (1, 1)
    assert resumed.facts[0] == TrainingResumed(
        dataset="d", phase="teacher", model="m", epoch=1, num_steps=1, path=last.path
    )
    nexts = resumed.of(CheckpointWritten)
    assert [(fact.epoch, fact.num_steps) for fact in nexts[:3]] == [(1, 2), (1, 3), (1, None)]


@pytest.mark.parametrize("num_damaged", [1, 2])
def test_a_damaged_checkpoint_costs_time_and_no_exactness(tmp_path: Path, num_damaged: int) -> None:
    train, alone, cut_off, resumed = TRAININGS["gat"], Recorder(), Interruption(7), Recorder()
    expected = flat(train(make_run(tmp_path / "alone", alone, 1e9)))
    with pytest.raises(TrainingCutOffError):
        train(make_run(tmp_path / "cut", cut_off))
    written = [Path(fact.path) for fact in cut_off.of(CheckpointWritten)]
    for path in written[-num_damaged:]:
        path.write_bytes(path.read_bytes()[:-1])
    assert np.array_equal(flat(train(make_run(tmp_path / "cut", resumed, 1e9))), expected)
    refused = resumed.of(CheckpointRefused)
    assert [fact.path for fact in refused] == [str(path) for path in reversed(written[-num_damaged:])]
    assert all("sha256" in fact.reason for fact in refused)
    gone_on_from = [str(written[-2])] if num_damaged == 1 else []
    assert [fact.path for fact in resumed.of(TrainingResumed)] == gone_on_from
    assert losses(cut_off, resumed) == losses(alone)


def test_an_epoch_cut_in_two_took_as_long_as_both_parts(tmp_path: Path) -> None:
    with pytest.raises(TrainingCutOffError):
        TRAININGS["gat"](make_run(tmp_path, Interruption(2)))
    path = next(tmp_path.glob("*00002.pt"))
    payload = torch.load(path, weights_only=True)
    assert payload["progress"]["worked_s"] > 0
    payload["progress"]["worked_s"] = 1000.0
    payload["learner"]["input"]["wait_s"] = 500.0
    resumed = Recorder()
    run = make_run(tmp_path, resumed)
    run.checkpoints.write(0, 2, payload)
    TRAININGS["gat"](run)
    first, second, *_ = resumed.of(EpochFinished)
    assert 1000 < first.duration_s < 1500
    assert first.graphs_per_s == pytest.approx(24 / first.duration_s, rel=0.5)
    assert 500 < first.data_wait_s < 1000
    assert second.duration_s < 500
    assert second.data_wait_s < 500


def same(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return torch.equal(left, right) if isinstance(left, torch.Tensor) else bool(left == right)


def through_a_file(folder: Path, state: dict[str, Any]) -> dict[str, Any]:
    return artifacts.load(folder / "f.pt", artifacts.save(folder / "f.pt", state))


def test_every_part_of_a_steppers_state_comes_back(tmp_path: Path) -> None:
    trained, fresh = (stepper(gat_objective(), micro, FP16) for micro in (5, 4096))
    trained.begin(0, [np.arange(8), np.arange(8)])
    trained.step(0, seed=0)
    trained.loss_scaler.update(1024.0)
    trained.step(1, seed=1)
    state = trained.state_dict()
    assert state["loss_scaler"]["scale"] != fresh.state_dict()["loss_scaler"]["scale"]
    assert state["input"]["wait_s"] > 0
    for part in ("module", "optimizer", "loss_scaler", "packs", "input"):
        assert not same(state[part], fresh.state_dict()[part]), part
    fresh.load_state_dict(through_a_file(tmp_path, state))
    assert same(fresh.state_dict(), state)


@pytest.mark.parametrize(("before", "now", "kept"), [(5, 8, 5), (8, 5, 5)])
def test_the_smaller_micro_batch_stays_in_force(before: int, now: int, kept: int) -> None:
    fresh = stepper(gat_objective(), now)
    fresh.load_state_dict(stepper(gat_objective(), before).state_dict())
    assert fresh.guard.limit.graphs == kept


class _FullOnce(GatObjective):
    """Runs out of memory in its first forward pass and never again."""

    def losses(self, batch: GraphBatch, graphs: NDArray[np.int64]) -> torch.Tensor:
        self.losses = super().losses  # type: ignore[method-assign]
        raise torch.OutOfMemoryError("no room")


def test_a_micro_batch_halved_for_want_of_memory_stays_so_to_the_same_bits(tmp_path: Path) -> None:
    def full_once() -> GatObjective:
        model = seeded(lambda: Gat(SIZES.gat, SIZES.ids, 0.2), 3)
        return _FullOnce(model, Y, 0.2)

    never_full = flat(TRAININGS["gat"](make_run(tmp_path / "never", Recorder(), 1e9)))
    expected = flat(train_graphs(make_run(tmp_path / "alone", Recorder(), 1e9), full_once()))
    with pytest.raises(TrainingCutOffError):
        train_graphs(make_run(tmp_path / "cut", Interruption(2)), full_once())
    resumed = flat(TRAININGS["gat"](make_run(tmp_path / "cut", Recorder())))
    assert np.array_equal(resumed, expected)
    assert not np.array_equal(resumed, never_full)


def test_a_training_on_another_device_scales_its_losses_anew() -> None:
    fresh = stepper(gat_objective(), 5, FP16)
    fresh.load_state_dict(stepper(gat_objective(), 5, CPU).state_dict())
    assert fresh.loss_scaler.get_scale() == stepper(gat_objective(), 5, FP16).loss_scaler.get_scale()


@pytest.mark.parametrize("num_added", [4, 10, 13])
def test_a_replay_buffer_comes_back_with_what_it_held_and_forgets_in_the_same_order(
    tmp_path: Path, num_added: int
) -> None:
    replay, fresh = ReplayBuffer(10), ReplayBuffer(10)
    values = torch.arange(num_added)
    replay.add(torch.randn(num_added, 15), values, values.float())
    fresh.load_state_dict(through_a_file(tmp_path, replay.state_dict()))
    for buffer in (replay, fresh):
        buffer.add(torch.zeros(3, 15), torch.full((3,), 99), torch.full((3,), 99.0))
    drawn = [buffer.sample(500, torch.Generator().manual_seed(1)) for buffer in (replay, fresh)]
    assert same(*drawn)
    assert len(fresh) == min(num_added + 3, 10)


def draws() -> tuple[float, float, float, torch.Tensor]:
    return random.random(), float(np.random.rand()), float(np.random.randn()), torch.rand(3)


@pytest.fixture
def _keep_random_states() -> Iterator[None]:
    states = random_states()
    yield
    restore_random_states(states)


@pytest.mark.usefixtures("_keep_random_states")
def test_the_global_generators_go_on_where_they_were(tmp_path: Path) -> None:
    draws()
    states = through_a_file(tmp_path, random_states())
    expected = draws()
    draws()
    restore_random_states(states)
    assert same(draws(), expected)
    assert states["cuda"] == [] or torch.cuda.is_available()


@pytest.mark.usefixtures("_keep_random_states")
def test_a_resumed_training_restores_the_global_generators(tmp_path: Path) -> None:
    expected = []

    def emit_and_draw(fact: object) -> None:
        if isinstance(fact, CheckpointWritten):
            expected.append(draws())
            if len(expected) == 2:
                raise TrainingCutOffError

    emit: Emit = emit_and_draw
    with pytest.raises(TrainingCutOffError):
        TRAININGS["gat"](make_run(tmp_path, emit))
    draws()
    found = []
    TRAININGS["gat"](make_run(tmp_path, lambda fact: found.append(draws()), 1e9))
    assert same(found[0], expected[1])
