"""Jobs, batches and recorded facts for the tests of models and training."""

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from core.can.graph_store import GraphStore
from core.can.scaling import Scaler
from core.events.catalogue import Fact, ModelSaved
from core.models.batch import GraphBatch
from core.training.graph_data import GraphData
from core.training.job import PhaseJob
from core.training.phases import PHASES
from core.training.precision import Precision
from settings.app import Settings, load_settings

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


def graph_data(store: GraphStore, device: str = "cpu") -> GraphData:
    return GraphData(store, Scaler.fit(store, 10.0), torch.device(device))


def first_batch(store: GraphStore, num_graphs: int) -> GraphBatch:
    return graph_data(store).batch(np.arange(num_graphs))


def quick_settings(**training: Any) -> Settings:
    return load_settings(training={**QUICK, **training})


def make_job(folder: Path, store: Path, phase: str, settings: Settings, **changes: Any) -> PhaseJob:
    values: dict[str, Any] = {
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
        "attempt": 1,
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
