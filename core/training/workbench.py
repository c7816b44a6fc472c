"""What every phase works with: its job, the graphs, the device, and how models are fitted and saved."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.can.graph_store import open_graph_store, read_manifest
from core.can.scaling import Scaler
from core.can.splits import TRAIN, VAL
from core.errors import TrainingError
from core.events.catalogue import Emit, ModelSaved
from core.events.resource_facts import StorePlaced
from core.resources.memory import limit_memory
from core.resources.usage import Usage
from core.training import artifacts, detector
from core.training.batch_plan import plan_curriculum_epoch, plan_epoch
from core.training.budget import guard_packs, limit_key
from core.training.calibration import Threshold, calibrate
from core.training.checkpoint import CheckpointFolder
from core.training.graph_data import GraphData
from core.training.input_tuner import InputTuner
from core.training.job import PhaseJob
from core.training.loop import Plan, Validate, fit
from core.training.memory import PackGuard
from core.training.pipeline import Pipeline
from core.training.precision import choose_precision, prepare_process
from core.training.run import Run
from core.training.score_curves import measure_scores
from core.training.scoring import Reader
from core.training.step import Objective, Stepper

Indices = NDArray[np.int64]


class Workbench:
    """What every phase works with.

    Args:
        job: The phase's job.
        emit: Told what happens.
    """

    def __init__(self, job: PhaseJob, emit: Emit) -> None:
        self.job, self.emit, self.training = job, emit, job.settings.training
        prepare_process(self.training)
        limit_memory(job.settings.resources)
        self.precision = choose_precision(self.training)
        self.store = open_graph_store(job.store)
        self.manifest = read_manifest(job.store)
        self.scaler = Scaler.from_dict(self.manifest.scaler)
        self.train = np.flatnonzero(self.store.split == TRAIN)
        self.val = np.flatnonzero(self.store.split == VAL)
        self.y = np.asarray(self.store.y)

    def benign(self, graphs: Indices) -> Indices:
        """Those of the windows that are no attacks."""
        chosen: Indices = graphs[self.y[graphs] == 0]
        return chosen

    def require_both_classes(self) -> None:
        """GATs and agents learn from labels; a VGAE that nothing can be fused with is no detector."""
        job = self.job
        num_attacks, num = int(self.y[self.train].sum()), len(self.train)
        if num_attacks in (0, num):
            lacking, role = ("attack", "with attacks") if num_attacks == 0 else ("benign", "attack-free")
            raise TrainingError(
                f"{job.dataset}: none of the {num} training windows is {lacking}: add captures {role} to its "
                "training folders, check the label rule (attack_frames), or lower graph.window or "
                "graph.val_fraction so that more windows are left"
            )
        if len(self.benign(self.val)) == 0:
            raise TrainingError(
                f"{job.dataset}: no benign validation window: add captures, or lower graph.window or "
                "graph.block_windows"
            )

    def reader(self, size: str) -> Reader:
        """Place the store; once per phase. `size` is that of the models which read."""
        wanted = self.job.settings.dataset.placement
        data = GraphData(self.store, self.scaler, self.precision.device, wanted)
        placed = data.placement
        self.emit(
            StorePlaced(
                dataset=self.job.dataset,
                phase=self.job.phase,
                placement=placed.rung,
                num_bytes=placed.num_bytes,
                room_bytes=placed.room_bytes,
                reason=placed.reason,
            )
        )
        most = self.job.micro_batch_size or self.training.batch_size
        names = {"dataset": self.job.dataset, "phase": self.job.phase, "size": size}
        dataset = self.job.settings.dataset
        num_workers = 0 if placed.rung == "resident" else dataset.num_workers
        return Reader(data, self.precision, most, names, self.emit, num_workers, dataset.prefetch_factor)

    def run(self, model: str) -> Run:
        """What a model is trained as: its names, checkpoints and known pack limit."""
        job = self.job
        checkpoints = CheckpointFolder(
            job.checkpoints_dir / job.dataset / job.phase / model,
            f"{job.plan_id}/{job.data_digest}/{job.settings_digest}/{job.parent_sha256}",
            self.training.keep_checkpoints,
            self.training.checkpoint_interval_s,
            vouched_for=job.known_checkpoints,
        )
        known = job.known_limits.own.get(model)
        return Run(job.dataset, job.phase, model, checkpoints, self.emit, known)

    def fit(self, model: str, objective: Objective, reader: Reader, plan: Plan, validate: Validate) -> None:
        """Train a model's weights in place; errors as in `core.training.loop.fit`."""
        t = self.training
        weights = objective.module.to(self.precision.device).parameters()
        optimizer = torch.optim.AdamW(weights, lr=t.lr, weight_decay=t.weight_decay, fused=True)
        dataset, run = self.job.settings.dataset, self.run(model)
        guard = self.guard(run, objective, reader, plan(0))
        with closing(
            Pipeline(reader.data, guard.limit, reader.num_workers, reader.prefetch_factor)
        ) as pipeline:
            tuner = InputTuner(pipeline, t, dataset, run, Usage())
            stepper = Stepper(objective, pipeline, optimizer, self.precision, tuner, guard)
            fit(run, stepper, plan, validate, t, t.epochs)

    def guard(self, run: Run, objective: Objective, reader: Reader, steps: list[Indices]) -> PackGuard:
        """Decide how much a model's packs may hold."""
        job = self.job
        key = limit_key(job.device_name, run.model, objective.module, self.manifest.digest, self.precision)
        return guard_packs(
            run,
            objective,
            reader.data,
            self.precision,
            steps,
            key,
            reader.micro_batch_size,
            self.training.target_memory_usage,
            job.known_limits.history.get(key),
        )

    def plan(self, graphs: Indices) -> Plan:
        """Epochs over windows in random order."""
        t = self.training
        return lambda epoch: plan_epoch(
            graphs, seed=t.seed, epoch=epoch, batch_size=t.batch_size, min_steps=t.min_steps_per_epoch
        )

    def curriculum(self, difficulty: NDArray[np.float64]) -> Plan:
        """Epochs over the training windows, of ``difficulty`` ``[K]``, hard ones first."""
        t, graphs = self.training, self.train
        return lambda epoch: plan_curriculum_epoch(
            graphs,
            self.y[graphs] == 1,
            difficulty,
            t.curriculum,
            seed=t.seed,
            epoch=epoch,
            batch_size=t.batch_size,
            min_steps=t.min_steps_per_epoch,
        )

    def save(
        self, path: Path, payload: dict[str, Any], limits: dict[str, Threshold], sizes: dict[str, int]
    ) -> None:
        """Save the models of a phase and say so."""
        job = self.job
        job.models_dir.mkdir(parents=True, exist_ok=True)
        sha256 = artifacts.save(
            path,
            payload
            | {
                "version": detector.MODEL_FILE_VERSION,
                "dataset": job.dataset,
                "data_digest": job.data_digest,
                "settings_digest": job.settings_digest,
                "parent_sha256": job.parent_sha256,
                "graph": job.settings.graph.model_dump(mode="json"),
                "thresholds": {name: [t.value, t.val_mcc] for name, t in limits.items()},
            },
        )
        self.emit(
            ModelSaved(
                dataset=job.dataset,
                phase=job.phase,
                path=str(path),
                sha256=sha256,
                data_digest=job.data_digest,
                settings_digest=job.settings_digest,
                parent_sha256=job.parent_sha256,
                num_parameters=sizes,
            )
        )

    def thresholds(self, scores: dict[str, NDArray[np.float64]]) -> dict[str, Threshold]:
        """Choose thresholds for scores of the validation windows, and tell how these lie."""
        y, dataset = self.y[self.val], self.job.dataset
        limits = {name: calibrate(score, y) for name, score in scores.items()}
        for name, limit in limits.items():
            self.emit(measure_scores(dataset, name, None, scores[name], y == 1, limit.value))
        return limits
