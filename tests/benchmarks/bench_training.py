"""Training speed against PyG's own layers: graphs/s of teacher, student and distillation epochs.

    python -m tests.benchmarks.bench_training [--widths public_code] [--rounds 5] [--graphs 2048]

Both sides have the same widths: those of the `published` preset (the papers' parameter counts), or those of
the authors' public code (5 layers with 8 heads; student 2 layers with 4 heads). They have the same windows,
samples per epoch, batch, learning rate, optimizer, dropout and threads, scaled inputs and flushed denormals;
a round times one epoch of each side in turn. Then both train for the same number of epochs and are compared
by MCC on windows unseen in training. Writes ``tests/benchmarks/results/training-WIDTHS.json``.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import matthews_corrcoef
from torch_geometric.loader import DataLoader

from core.can.graph_store import GraphStore
from core.can.scaling import Scaler
from core.can.splits import TRAIN, VAL
from core.models.gat import Gat
from core.training.batch_plan import plan_epoch
from core.training.graph_data import GraphData
from core.training.objectives import GatDistillationObjective, GatObjective
from core.training.packs import PackLimit
from core.training.pipeline import Pipeline
from core.training.precision import Precision
from core.training.scoring import Reader, score_gat
from core.training.seeds import seeded, step_seed
from core.training.step import Objective, Stepper
from settings.models import GatSettings, ModelSettings
from settings.training import DistillationSettings
from tests.benchmarks.generated_graphs import generate
from tests.benchmarks.pyg_peer import PeerGat, peer_dataset, peer_epochs, peer_predictions
from tests.training_helpers import make_guard, make_tuner

RESULTS = Path(__file__).parent / "results"
PUBLISHED = ModelSettings.model_validate({"preset": "published"})
WIDTHS = {
    "published": {size: getattr(PUBLISHED, size).gat for size in ("teacher", "student")},
    "public_code": {
        "teacher": GatSettings(hidden=32, heads=8, num_layers=5, head_layers=4),
        "student": GatSettings(hidden=32, heads=4, num_layers=2, head_layers=2),
    },
}
LR, DROPOUT = 1e-3, 0.1


def our_epochs(
    objective: Objective, data: GraphData, graphs: NDArray[np.int64], precision: Precision, batch: int
) -> Iterator[None]:
    """Endless epochs of our training, without validation, as the peer's."""
    module = objective.module.to(precision.device)
    optimizer = torch.optim.AdamW(module.parameters(), lr=LR, fused=True)
    pipeline = Pipeline(data, PackLimit(4096))
    guard = make_guard(pipeline.limit)
    stepper = Stepper(objective, pipeline, optimizer, precision, make_tuner(pipeline), guard)
    epoch = 0
    while True:
        module.train()
        batches = plan_epoch(graphs, seed=0, epoch=epoch, batch_size=batch, min_steps=1)
        stepper.begin(epoch, batches)
        losses = [stepper.step(i, step_seed(0, epoch, i)) for i in range(len(batches))]
        float(torch.stack(losses).sum())
        epoch += 1
        yield


class Contest:
    """Ours and the peer's models on the same windows."""

    def __init__(
        self,
        store: GraphStore,
        batch: int,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        widths: str = "published",
    ) -> None:
        self.widths, self.seed = WIDTHS[widths], 0
        self.store, self.batch, self.device = store, batch, device
        self.train, self.val = (np.flatnonzero(store.split == part) for part in (TRAIN, VAL))
        scaler = Scaler.fit(store, 10.0)
        self.precision = Precision(torch.device(device), dtype)
        self.data = GraphData(store, scaler, self.precision.device)
        self.y = torch.from_numpy(store.y.astype(np.int64)).to(device)
        self.loader, self.val_loader = (
            DataLoader(peer_dataset(store, scaler, graphs), batch, shuffle=shuffle)
            for graphs, shuffle in ((self.train, True), (self.val, False))
        )

    def ours(self, size: str) -> Gat:
        ids = getattr(PUBLISHED, size).ids
        return seeded(lambda: Gat(self.widths[size], ids, DROPOUT), self.seed).to(self.device)

    def peer(self, size: str) -> PeerGat:
        ids = getattr(PUBLISHED, size).ids
        return seeded(lambda: PeerGat(self.widths[size], ids, DROPOUT), self.seed).to(self.device)

    def reader(self) -> Reader:
        return Reader(self.data, self.precision, 1024)

    def our_mcc(self, model: Gat) -> float:
        probability = score_gat(model, self.reader(), self.val).attack_probability
        return float(matthews_corrcoef(self.store.y[self.val], probability > 0.5))

    def peer_mcc(self, model: PeerGat) -> float:
        found = peer_predictions(model, self.val_loader, self.device)
        return float(matthews_corrcoef(self.store.y[self.val], found))

    def race(self, kind: str) -> tuple[Iterator[None], Gat, Iterator[None], PeerGat, Callable[[], object]]:
        """Epochs of both sides, their models, and what ours does once before the first epoch."""
        size = "teacher" if kind == "teacher" else "student"
        ours, peer = self.ours(size), self.peer(size)
        if kind != "distillation":
            objective: Objective = GatObjective(ours, self.y, DROPOUT)
            return (
                our_epochs(objective, self.data, self.train, self.precision, self.batch),
                ours,
                peer_epochs(peer, self.loader, LR, self.device),
                peer,
                lambda: None,
            )
        teacher, peer_teacher = self.ours("teacher"), self.peer("teacher").eval()
        logits = torch.zeros(len(self.y), 2, device=self.device)

        def cache_teacher() -> None:
            scores = score_gat(teacher, self.reader(), self.train)
            logits[torch.from_numpy(self.train).to(self.device)] = torch.from_numpy(scores.logits).to(
                self.device
            )

        distil = GatDistillationObjective(ours, self.y, DROPOUT, logits, DistillationSettings())
        return (
            our_epochs(distil, self.data, self.train, self.precision, self.batch),
            ours,
            peer_epochs(peer, self.loader, LR, self.device, peer_teacher),
            peer,
            cache_teacher,
        )


def timed(work: Callable[[], object], device: str) -> float:
    """Seconds."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def measure(contest: Contest, kind: str, rounds: int) -> dict[str, Any]:
    """Graphs/s of both sides, epochs timed in turn."""
    ours, _, peer, _, prepare = contest.race(kind)
    prepare_s = timed(prepare, contest.device)
    next(ours), next(peer)
    num, times = len(contest.train), []
    for _ in range(rounds):
        times.append([timed(lambda e=e: next(e), contest.device) for e in (ours, peer)])  # type: ignore[misc]
    speeds = [[num / t for t in pair] for pair in times]
    ratios = [pair[0] / pair[1] for pair in speeds]
    return {
        "ours_graphs_per_s": round(statistics.median(s[0] for s in speeds), 1),
        "peer_graphs_per_s": round(statistics.median(s[1] for s in speeds), 1),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_min": round(min(ratios), 2),
        "ratio_max": round(max(ratios), 2),
        "once_before_training_s": round(prepare_s, 3),
    }


def quality(contest: Contest, kind: str, epochs: int, num_seeds: int) -> dict[str, list[float]]:
    """Best MCC on validation within the same number of epochs of both sides, as early stopping keeps it."""
    best: dict[str, list[float]] = {"ours_val_mcc": [], "peer_val_mcc": []}
    for contest.seed in range(num_seeds):
        ours, our_model, peer, peer_model, prepare = contest.race(kind)
        prepare()
        found = []
        for _ in range(epochs):
            next(ours), next(peer)
            found.append((contest.our_mcc(our_model), contest.peer_mcc(peer_model)))
        for side, values in zip(best.values(), zip(*found, strict=True), strict=True):
            side.append(round(max(values), 3))
    return best


def main() -> None:
    """Run and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--graphs", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--widths", choices=sorted(WIDTHS), default="published")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    contest = Contest(generate(args.graphs, num_val=1024), args.batch, widths=args.widths)
    result: dict[str, Any] = {
        "machine": {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count()},
        "widths": {size: gat.model_dump() for size, gat in contest.widths.items()},
        "threads": args.threads,
        "torch": torch.__version__,
        "num_graphs": len(contest.train),
        "batch": args.batch,
        "epochs_for_mcc": args.epochs,
    }
    for kind in ("teacher", "student", "distillation"):
        result[kind] = measure(contest, kind, args.rounds)
        if kind != "distillation" and args.epochs:
            result[kind] |= quality(contest, kind, args.epochs, args.seeds)
        print(kind, result[kind], flush=True)
    (RESULTS / f"training-{args.widths}.json").write_text(
        json.dumps(result, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
