"""Jobs, batches and recorded facts for the tests of models and training."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from core.can.graph_store import GraphStore
from core.can.scaling import Scaler
from core.events.catalogue import Emit, EpochFinished, Fact, ModelSaved
from core.models.batch import GraphBatch
from core.resources import usage as machine
from core.training.checkpoint import CheckpointFolder
from core.training.dqn import Windows
from core.training.graph_data import GraphData
from core.training.input_tuner import InputTuner, Usage
from core.training.job import PhaseJob
from core.training.memory import PackGuard
from core.training.packs import PackLimit
from core.training.phases import PHASES
from core.training.pipeline import Pipeline
from core.training.precision import Precision
from core.training.run import Run
from settings.app import Settings, load_settings
from settings.dataset import DatasetSettings
from settings.training import TrainingSettings

CPU = Precision(torch.device("cpu"), torch.float32)
F = TypeVar("F", bound=Fact)
QUICK: dict[str, Any] = {"epochs": 3, "min_steps_per_epoch": 4, "device": "cpu", "lr": 0.003}


class Recorder:
    """An `emit` that remembers."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def __call__(self, fact: Fact) -> None:
        self.facts.append(fact)

    def of(self, kind: type[F]) -> list[F]:
        return [fact for fact in self.facts if isinstance(fact, kind)]


class TrainingCutOffError(Exception):
    """A training was cut off on purpose."""


class Interruption(Recorder):
    """An `emit` that remembers, and ends the training with a fact of one's choice."""

    def __init__(self, num_facts: int) -> None:
        super().__init__()
        self.num_facts = num_facts

    def __call__(self, fact: Fact) -> None:
        super().__call__(fact)
        if len(self.facts) == self.num_facts:
            raise TrainingCutOffError


def make_run(
    folder: Path,
    emit: Emit,
    interval_s: float = 0.0,
    keep: int = 2,
    clock: Callable[[], float] = time.monotonic,
) -> Run:
    return Run("d", "teacher", "m", CheckpointFolder(folder, "key", keep, interval_s, clock), emit)


def make_tuner(pipeline: Pipeline, emit: Emit | None = None, usage: Usage | None = None) -> InputTuner:
    run = make_run(Path(), emit or Recorder())
    return InputTuner(pipeline, TrainingSettings(), DatasetSettings(), run, usage or machine.Usage())


def make_guard(limit: PackLimit, emit: Emit | None = None) -> PackGuard:
    return PackGuard(make_run(Path(), emit or Recorder()).names, emit or Recorder(), limit)


def losses(*recorders: Recorder) -> list[tuple[str, int, float, float, float | None, int]]:
    """What was said of every epoch, without how long it took; of a repeated one what was said last."""
    epochs = {(f.model, f.epoch): f for recorder in recorders for f in recorder.of(EpochFinished)}
    return [(f.model, f.epoch, f.train_loss, f.val_loss, f.val_metric, f.num_steps) for f in epochs.values()]


def graph_data(store: GraphStore, device: str = "cpu") -> GraphData:
    return GraphData(store, Scaler.fit(store, 10.0), torch.device(device))


def first_batch(store: GraphStore, num_graphs: int) -> GraphBatch:
    return graph_data(store).batch(np.arange(num_graphs))


def quick_settings(**training: Any) -> Settings:
    return load_settings(training={**QUICK, **training})


def make_job(folder: Path, store: Path, phase: str, settings: Settings, **changes: Any) -> PhaseJob:
    values: dict[str, Any] = {
        "plan_id": "plan",
        "dataset": "synthetic",
        "phase": phase,
        "store": store,
        "settings": settings,
        "models_dir": folder / "saved_models",
        "checkpoints_dir": folder / "checkpoints",
        "data_digest": "data",
        "settings_digest": "settings",
        "parent_sha256": "",
        "micro_batch_size": 0,
    }
    return PhaseJob(**(values | changes))


def run_chain(folder: Path, store: Path, settings: Settings, *phases: str, **changes: Any) -> Recorder:
    """Run phases one after another, each knowing its parent's sha256."""
    recorder = Recorder()
    for phase in phases:
        saved = recorder.of(ModelSaved)
        parent = saved[-1].sha256 if saved else ""
        PHASES[phase](make_job(folder, store, phase, settings, parent_sha256=parent, **changes), recorder)
    return recorder


def flat(weights: dict[str, torch.Tensor]) -> NDArray[np.float64]:
    """All weights in one vector."""
    return torch.cat([w.double().flatten() for w in weights.values()]).numpy()


def fusion_windows(num: int, seed: int) -> Windows:
    """The VGAE is right where the first state is high, the GAT where it is low."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, num).astype(np.float32)
    state = rng.random((num, 15)).astype(np.float32)
    good, bad = 0.9 * y + 0.05, 0.9 * (1 - y) + 0.05
    vgae_knows = state[:, 0] > 0.5
    columns = (state, np.where(vgae_knows, good, bad), np.where(vgae_knows, bad, good), y)
    return Windows(*(torch.from_numpy(np.asarray(c, np.float32)) for c in columns))
