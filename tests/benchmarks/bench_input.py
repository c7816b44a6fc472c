"""The input pipeline: every rung of the placement ladder against PyG's DataLoader, and its cost to training.

    python -m tests.benchmarks.bench_input [--graphs 16384] [--rounds 9]

Three measurements; in each round all sides take turns. Speeds are those of the best round, as rounds are
disturbed by other work and never sped up by it; the median ratio within a round is given beside them.

- ``reading``: epochs of batches and nothing else, over the same graphs in the same order. Ours lie in a store
  on disk (in the page cache) and are scaled and given self-loops on the way; PyG collates Data objects that
  are in memory and scaled already.
- ``training``: epochs of the student GAT of the `small` preset on a resident store, with `Stepper` (pipeline,
  tuner, memory guard) against the same updates around ``GraphData.batch``.
- ``slow_disk``: a gather that takes 20 ms longer, beside 5 ms of other work per batch: gathered by the
  training thread, and by workers that the adaptive optimizer chose, from 1 on.

Writes ``tests/benchmarks/results/input.json``.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_geometric
from torch import nn
from torch_geometric.loader import DataLoader

from core.can.graph_store import GraphStore, open_graph_store
from core.can.scaling import Scaler
from core.models.gat import Gat
from core.training.batch_plan import plan_epoch
from core.training.graph_data import GraphData
from core.training.input_tuner import InputTuner
from core.training.objectives import GatObjective
from core.training.packs import PackLimit
from core.training.pipeline import Pipeline
from core.training.placement import Rung
from core.training.seeds import seeded, step_seed
from core.training.step import Stepper
from settings.dataset import DatasetSettings
from settings.models import ModelSettings
from settings.training import TrainingSettings
from tests.benchmarks.generated_graphs import generate
from tests.benchmarks.pyg_peer import peer_dataset
from tests.input_helpers import HookedData, Indices
from tests.simulated_input import SimulatedMachine
from tests.synthetic import write_store
from tests.training_helpers import CPU, Recorder, make_guard, make_run, make_tuner

RESULTS = Path(__file__).parent / "results" / "input.json"
LADDER: tuple[tuple[Rung, int], ...] = (
    ("resident", 0),
    ("pinned", 0),
    ("pinned", 1),
    ("pinned", 2),
    ("mapped", 0),
    ("mapped", 1),
    ("mapped", 2),
)
Epoch = Callable[[], object]


def take_turns(sides: dict[str, Epoch], num: int, rounds: int, base: str) -> dict[str, dict[str, float]]:
    """Graphs/s of each side, and its speed as a multiple of one of them."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(rounds + 1):
        for name, epoch in sides.items():
            began = time.perf_counter()
            epoch()
            if i:  # the first one warms up
                times[name].append(time.perf_counter() - began)
    return {
        name: {
            "graphs_per_s": round(num / min(taken)),
            "ratio": round(min(times[base]) / min(taken), 2),
            "ratio_median": round(
                statistics.median(b / t for b, t in zip(times[base], taken, strict=True)), 2
            ),
        }
        for name, taken in times.items()
    }


def read(pipeline: Pipeline, steps: list[Indices]) -> None:
    """An epoch of batches."""
    pipeline.begin(steps)
    for step in range(len(steps)):
        for _ in pipeline.packs(step):
            pass


def reading(store: GraphStore, scaler: Scaler, batch: int, rounds: int) -> dict[str, Any]:
    """All rungs and PyG."""
    graphs = np.arange(store.num_graphs)
    steps = plan_epoch(graphs, seed=0, epoch=0, batch_size=batch, min_steps=1)
    dataset = peer_dataset(store, scaler, np.concatenate(steps))
    sides: dict[str, Epoch] = {}
    for num_workers in (0, 2):
        loader = DataLoader(dataset, batch, num_workers=num_workers, persistent_workers=bool(num_workers))
        sides[f"pyg/{num_workers}"] = lambda loader=loader: [None for _ in loader]  # type: ignore[misc]
    pipelines = []
    for rung, num_workers in LADDER:
        data = GraphData(store, scaler, CPU.device, rung)
        pipelines.append(Pipeline(data, PackLimit(batch), num_workers))
        sides[f"{rung}/{num_workers}"] = lambda p=pipelines[-1]: read(p, steps)  # type: ignore[misc]
    resident = pipelines[0].data
    sides["gather alone"] = lambda: [None for step in steps if resident.batch(step)]
    found = take_turns(sides, len(graphs), rounds, "pyg/0")
    for pipeline in pipelines:
        pipeline.close()
    return found


def training(store: GraphStore, scaler: Scaler, batch: int, rounds: int) -> dict[str, Any]:
    """With the machinery of the pipeline and without."""
    graphs = np.arange(min(2048, store.num_graphs))
    steps = plan_epoch(graphs, seed=0, epoch=0, batch_size=batch, min_steps=1)
    sizes = ModelSettings.model_validate({"preset": "small"}).student
    y = torch.from_numpy(store.y.astype(np.int64))
    data = GraphData(store, scaler, CPU.device)

    def parts() -> tuple[GatObjective, torch.optim.Optimizer]:
        objective = GatObjective(seeded(lambda: Gat(sizes.gat, sizes.ids, 0.1), 0), y, 0.1)
        return objective, torch.optim.AdamW(objective.module.parameters(), lr=1e-3, fused=True)

    def bare(objective: GatObjective, optimizer: torch.optim.Optimizer) -> None:
        losses = []
        for i, step in enumerate(steps):
            optimizer.zero_grad(set_to_none=True)
            noise = data.draw_noise(
                step, objective.num_edge_uniform, objective.num_node_normal, step_seed(0, 0, i)
            )
            loss = objective.losses(noise.give(data.batch(step), 0, 0), step).sum() / len(step)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(objective.module.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.detach())
        float(torch.stack(losses).sum())

    def ours(stepper: Stepper) -> None:
        stepper.begin(0, steps)
        losses = [stepper.step(i, step_seed(0, 0, i)) for i in range(len(steps))]
        float(torch.stack(losses).sum())

    objective, optimizer = parts()
    limit = PackLimit(4096)
    pipeline = Pipeline(data, limit)
    own_objective, own_optimizer = parts()
    machinery = Stepper(own_objective, pipeline, own_optimizer, CPU, make_tuner(pipeline), make_guard(limit))
    sides: dict[str, Epoch] = {"bare": lambda: bare(objective, optimizer), "stepper": lambda: ours(machinery)}
    return take_turns(sides, len(graphs), rounds, "bare")


def slow_disk(store: GraphStore, rounds: int) -> dict[str, Any]:
    """Batches of 128 that take long to arrive."""
    num = min(8192, store.num_graphs)
    steps = plan_epoch(np.arange(num), seed=0, epoch=0, batch_size=128, min_steps=1)
    data = HookedData(store, lambda graphs: time.sleep(0.02))

    class Roomy:
        """RAM to spare, no GPU."""

        def gpu_percent(self) -> float | None:
            return None

        def ram_percent(self) -> float | None:
            return SimulatedMachine().base_percent

    def epoch(pipeline: Pipeline, tuner: InputTuner) -> None:
        pipeline.begin(steps)
        tuner.begin_epoch(0)
        for step in range(len(steps)):
            for _ in pipeline.packs(step):
                time.sleep(0.005)
            tuner.after_step(step)

    recorder = Recorder()
    run = make_run(Path(), recorder)
    sides: dict[str, Epoch] = {}
    tuned = Pipeline(data, PackLimit(128), 1)
    with closing(Pipeline(data, PackLimit(128))) as alone, closing(tuned):
        for name, pipeline, adaptive in (("training thread", alone, False), ("adaptive", tuned, True)):
            settings = TrainingSettings(adaptive_optimization=adaptive, adaptive_adjustment_interval=10)
            tuner = InputTuner(pipeline, settings, DatasetSettings(), run, Roomy())
            sides[name] = lambda p=pipeline, t=tuner: epoch(p, t)  # type: ignore[misc]
        found: dict[str, Any] = take_turns(sides, num, rounds, "training thread")
    found["adaptive"]["num_workers_at_the_end"] = tuned.num_workers
    found["adaptive"]["num_adjustments"] = len(recorder.facts)
    return found


def main() -> None:
    """Run and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", type=int, default=16_384)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_flush_denormal(True)
    result: dict[str, Any] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cpus": os.cpu_count(),
            "load_average": os.getloadavg()[0],
        },
        "versions": {"torch": torch.__version__, "torch_geometric": torch_geometric.__version__},
        "num_graphs": args.graphs,
    }
    with tempfile.TemporaryDirectory() as folder:
        store = open_graph_store(write_store(Path(folder) / "store", generate(args.graphs, num_val=0)))
        scaler = Scaler.fit(store, 10.0)
        # Several threads of torch wait for the slowest of them: on a machine that is busy otherwise the
        # numbers with one are those to go by.
        for num_threads in (2, 1):
            torch.set_num_threads(num_threads)
            for batch in (128, 1024):
                for measure in (reading, training):
                    name = f"{measure.__name__}_batch_{batch}_threads_{num_threads}"
                    result[name] = measure(store, scaler, batch, args.rounds)
                    print(name, json.dumps(result[name], indent=1), flush=True)
        result["slow_disk"] = slow_disk(store, args.rounds)
        print("slow_disk", json.dumps(result["slow_disk"], indent=1), flush=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
