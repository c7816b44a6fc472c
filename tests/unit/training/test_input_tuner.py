import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from core.events.catalogue import EpochFinished
from core.events.resource_facts import InputAdjusted
from core.models.gat import Gat
from core.resources.adaptive import Interval, Level
from core.training.batch_plan import plan_epoch
from core.training.graph_data import GraphData
from core.training.input_tuner import InputTuner
from core.training.loop import fit
from core.training.objectives import GatObjective
from core.training.packs import PackLimit
from core.training.pipeline import InputTimes, Pipeline
from core.training.seeds import seeded
from core.training.step import Stepper
from settings.dataset import DatasetSettings
from settings.models import ModelSettings
from settings.training import TrainingSettings
from tests.input_helpers import HookedData, Indices
from tests.simulated_input import SimulatedMachine
from tests.synthetic import make_store
from tests.training_helpers import CPU, Recorder, flat, graph_data, make_guard, make_run

STORE = make_store(40)
NUM_STEPS = 60
PACK_BYTES = 1000


class SimulatedTraining(Pipeline):
    """A pipeline and its machine, on a clock of their own; each step takes as long as it would there."""

    def __init__(self, machine: SimulatedMachine, data: GraphData, num_workers: int = 6) -> None:
        super().__init__(data, PackLimit(10), num_workers, 2)
        self.machine, self.now = machine, 0.0

    def take_times(self) -> InputTimes:
        interval = self._interval
        share = 1 / interval.num_steps
        return InputTimes(share * interval.wait_s, share * interval.load_s, 1, PACK_BYTES)

    def gpu_percent(self) -> float | None:
        return self._interval.gpu_percent

    def ram_percent(self) -> float | None:
        return self._interval.ram_percent

    @property
    def level(self) -> Level:
        return Level(self.num_workers, self.prefetch_factor)

    @property
    def _interval(self) -> Interval:
        return self.machine.interval(self.level)

    def train(self, tuner: InputTuner, num_epochs: int) -> list[Level]:
        """Levels at the end of each epoch."""
        levels = []
        for epoch in range(num_epochs):
            self.now += 100.0  # validation
            tuner.begin_epoch(epoch)
            for step in range(NUM_STEPS):
                self.now += self.machine.step_s(self.level)
                tuner.after_step(step)
            levels.append(self.level)
        return levels


def simulate(
    machine: SimulatedMachine,
    num_workers: int = 6,
    data: GraphData | None = None,
    free_ram: Callable[[], int] = lambda: 10**9,
    **training: Any,
) -> tuple[SimulatedTraining, InputTuner, Recorder]:
    pipeline = SimulatedTraining(machine, data or HookedData(STORE, lambda graphs: None), num_workers)
    recorder = Recorder()
    run = make_run(Path(), recorder)
    settings = TrainingSettings(**training)
    tuner = InputTuner(pipeline, settings, DatasetSettings(), run, pipeline, lambda: pipeline.now, free_ram)
    return pipeline, tuner, recorder


SLOW_DISK = SimulatedMachine(compute_s=0.01, latency_s=0.095, base_percent=40.0)


def test_modest_settings_converge_within_one_run() -> None:
    pipeline, tuner, recorder = simulate(SLOW_DISK)
    levels = pipeline.train(tuner, num_epochs=10)
    assert levels[2:] == [Level(10, 4)] * 8
    first = recorder.of(InputAdjusted)[0]
    step_s = SLOW_DISK.step_s(Level(6, 2))
    assert asdict(first) == {
        "dataset": "d",
        "phase": "teacher",
        "model": "m",
        "epoch": 0,
        "step": 50,
        "reason": "starved",
        "num_workers": 10,
        "prefetch_factor": 3,
        "num_workers_before": 6,
        "prefetch_factor_before": 2,
        "gpu_percent": None,
        "ram_percent": pytest.approx(40.12),
        "data_wait_s": pytest.approx(50 * (step_s - 0.01)),
        "data_load_s": pytest.approx(50 * 0.095),
        "compute_s": pytest.approx(50 * 0.01),
    }


def test_intervals_reach_across_epochs_and_leave_out_what_is_between_them() -> None:
    pipeline, tuner, recorder = simulate(SLOW_DISK, adaptive_adjustment_interval=70)
    pipeline.train(tuner, num_epochs=2)
    fact = recorder.of(InputAdjusted)[0]
    assert (fact.epoch, fact.step) == (1, 10)
    assert fact.compute_s == pytest.approx(70 * 0.01)


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (SimulatedMachine(compute_s=0.05, latency_s=0.1), Level(6, 2)),  # bound by computing
        (SimulatedMachine(compute_s=1e-4, latency_s=0.5), Level(24, 4)),  # a GPU too fast for any disk
        (SimulatedMachine(base_percent=79.0, percent_per_pack=0.2), Level(5, 1)),  # RAM is short
        (SimulatedMachine(compute_s=0.001, most_packs_per_s=50.0), Level(6, 2)),  # threads read no more
    ],
)
def test_it_ends_where_it_should_on_every_kind_of_machine(machine: SimulatedMachine, expected: Level) -> None:
    pipeline, tuner, recorder = simulate(machine)
    assert pipeline.train(tuner, num_epochs=30)[-1] == expected
    assert len(recorder.facts) <= 12


def test_no_more_packs_are_held_ready_than_leave_most_of_the_free_ram_free() -> None:
    pipeline, tuner, _ = simulate(SLOW_DISK, free_ram=lambda: 20 * PACK_BYTES)
    pipeline.train(tuner, num_epochs=1)
    assert pipeline.level == Level(10, 2)


def test_ram_that_cannot_be_measured_ends_no_training() -> None:
    def fail() -> int:
        raise OSError("no such file")

    pipeline, tuner, _ = simulate(SLOW_DISK, free_ram=fail)
    pipeline.train(tuner, num_epochs=1)
    assert pipeline.level == Level(10, 3)


def test_each_epoch_is_summed_up_by_itself() -> None:
    pipeline, tuner, _ = simulate(SLOW_DISK)
    pipeline.train(tuner, 1)
    first = tuner.take_summary()
    pipeline.train(tuner, 1)
    second = tuner.take_summary()
    assert (first.num_packs, first.num_adjustments) == (NUM_STEPS, 1)
    assert (first.num_workers, first.prefetch_factor) == (10, 3)
    assert first.data_load_s == pytest.approx(NUM_STEPS * 0.095)
    wait_s = SLOW_DISK.step_s(Level(6, 2)) - 0.01
    assert first.data_wait_s == pytest.approx(50 * wait_s)
    assert first.gpu_percent is None
    assert first.ram_percent == pytest.approx(40.2, abs=0.2)
    assert second.data_wait_s == pytest.approx(0.0)
    assert second.num_packs == NUM_STEPS


def test_means_of_gpu_and_ram_are_over_what_was_measured_in_the_epoch() -> None:
    pipeline, tuner, _ = simulate(
        SimulatedMachine(busy_percent=80.0, base_percent=50.0, percent_per_pack=0.0)
    )
    pipeline.train(tuner, 1)
    summary = tuner.take_summary()
    assert summary.gpu_percent == pytest.approx(80.0)
    assert summary.ram_percent == pytest.approx(50.0)


@pytest.mark.parametrize("resident", [False, True])
def test_nothing_is_adjusted_where_that_is_not_wanted_or_nothing_is_gathered_ahead(*, resident: bool) -> None:
    data = graph_data(STORE) if resident else None
    pipeline, tuner, recorder = simulate(SLOW_DISK, 6, data, adaptive_optimization=resident)
    pipeline.train(tuner, num_epochs=5)
    assert pipeline.level == Level(6, 2)
    assert not recorder.facts
    assert tuner.take_summary().num_packs == 5 * NUM_STEPS


def test_changes_of_the_pack_limit_count_as_adjustments() -> None:
    _, tuner, _ = simulate(SLOW_DISK)
    tuner.count_adjustment()
    assert tuner.take_summary().num_adjustments == 1


def test_an_epoch_that_was_cut_in_two_is_summed_up_whole() -> None:
    pipeline, tuner, _ = simulate(SLOW_DISK, adaptive_optimization=False)
    pipeline.train(tuner, 1)
    state = tuner.state_dict()
    later, other, _ = simulate(SLOW_DISK, adaptive_optimization=False)
    other.load_state_dict(state)
    later.train(other, 1)
    pipeline.train(tuner, 1)
    assert other.take_summary() == tuner.take_summary()


def _train(
    data: GraphData, num_workers: int, folder: Path, training: TrainingSettings
) -> tuple[Any, Recorder]:
    sizes = ModelSettings.model_validate({"preset": "small"}).student
    y = torch.from_numpy(STORE.y.astype(np.int64))
    objective = GatObjective(seeded(lambda: Gat(sizes.gat, sizes.ids, 0.2), 3), y, 0.2)
    optimizer = torch.optim.AdamW(objective.module.parameters(), lr=0.01, fused=True)
    recorder = Recorder()
    run = make_run(folder, recorder, 1e9)

    def plan(epoch: int) -> list[NDArray[np.int64]]:
        return plan_epoch(np.arange(40), seed=0, epoch=epoch, batch_size=8, min_steps=5)

    @torch.no_grad()
    def validate() -> tuple[float, float | None]:
        return float(objective.losses(data.batch(np.arange(40)), np.arange(40)).sum()), None

    with closing(Pipeline(data, PackLimit(3), num_workers, 1)) as pipeline:
        tuner = InputTuner(pipeline, training, DatasetSettings(), run, _Restless())
        fit(
            run,
            Stepper(objective, pipeline, optimizer, CPU, tuner, make_guard(PackLimit(3))),
            plan,
            validate,
            training,
            4,
        )
    return flat(objective.module.state_dict()), recorder


class _Restless:
    """RAM that is short half of the time."""

    def __init__(self) -> None:
        self.num_asked = 0

    def gpu_percent(self) -> float | None:
        return None

    def ram_percent(self) -> float | None:
        self.num_asked += 1
        return 90.0 if self.num_asked % 4 < 2 else 10.0


def test_weights_do_not_depend_on_workers_prefetch_or_adjustments(tmp_path: Path) -> None:
    def slow(graphs: Indices) -> None:
        time.sleep(0.002 * (1 + int(graphs[0]) % 3))

    fixed = TrainingSettings(adaptive_optimization=False, patience=9)
    restless = TrainingSettings(adaptive_adjustment_interval=1, patience=9)
    expected, alone = _train(graph_data(STORE), 0, tmp_path / "alone", fixed)
    adjusted = 0
    for name, num_workers, training in (("w", 3, fixed), ("a", 8, restless), ("b", 0, restless)):
        found, recorder = _train(HookedData(STORE, slow), num_workers, tmp_path / name, training)
        assert np.array_equal(found, expected)
        epochs = recorder.of(EpochFinished)
        assert [e.train_loss for e in epochs] == [e.train_loss for e in alone.of(EpochFinished)]
        assert sum(e.num_adjustments or 0 for e in epochs) == len(recorder.of(InputAdjusted))
        adjusted += len(recorder.of(InputAdjusted))
    assert adjusted >= 4  # the eight workers are too much for the RAM, however slow they or training are
    assert alone.of(EpochFinished)[0].num_packs == 15
    assert alone.of(EpochFinished)[0].num_workers == 0


def test_a_disk_that_is_slow_in_truth_gets_more_workers_while_training_goes_on() -> None:
    recorder = Recorder()
    data = HookedData(STORE, lambda graphs: time.sleep(0.02))
    training = TrainingSettings(adaptive_adjustment_interval=10)
    steps = [np.array([i % 40]) for i in range(50)]
    seen, num_epochs = [], 0
    with closing(Pipeline(data, PackLimit(8), 1, 1)) as pipeline:
        usage = SimulatedTraining(SLOW_DISK, data)  # with RAM to spare
        tuner = InputTuner(pipeline, training, DatasetSettings(), make_run(Path(), recorder), usage)
        while pipeline.num_workers < 3:  # a pause of the machine in some steps hides what they waited for
            pipeline.begin(steps)
            tuner.begin_epoch(num_epochs)
            num_epochs += 1
            for step in range(len(steps)):
                seen += [steps[step][pack.start : pack.stop].tolist() for pack in pipeline.packs(step)]
                tuner.after_step(step)
    assert seen == num_epochs * [graphs.tolist() for graphs in steps]
    starved = [fact for fact in recorder.of(InputAdjusted) if fact.reason == "starved"]
    assert {fact.num_workers_before for fact in starved} >= {1}
    assert any(fact.data_wait_s > fact.compute_s for fact in starved)
