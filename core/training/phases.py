"""The phases of a dataset's chain in the training process: teacher, student, fusion, evaluation."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.events.catalogue import Emit, ModelEvaluated, ThresholdCalibrated
from core.models.batch import GraphBatch
from core.models.gat import Gat
from core.models.vgae import Vgae
from core.training import detector
from core.training.calibration import Threshold, mcc_at_half
from core.training.detector import ModelPair, PairScores, score_pair
from core.training.dqn import StateScale, train_agent
from core.training.evaluation import evaluate_folder
from core.training.id_frequency import IdFrequency
from core.training.job import PhaseJob
from core.training.loop import Validate
from core.training.mlp_fusion import train_mlp
from core.training.objectives import (
    GatDistillationObjective,
    GatObjective,
    TeacherLatents,
    VgaeDistillationObjective,
    VgaeObjective,
)
from core.training.score_curves import measure_scores
from core.training.scoring import ErrorScale, Reader, latent_means, score_gat, score_vgae
from core.training.seeds import seeded
from core.training.step import Objective
from core.training.workbench import Indices, Workbench
from settings.models import ModelSizes


def train_teacher(job: PhaseJob, emit: Emit) -> None:
    """Train the full-size VGAE on benign windows, then the GAT on all, hard windows first.

    Raises:
        TrainingError: A class is missing, a loss is not finite, or there is no such device.
        GraphStoreError: The graph store is damaged.
    """
    bench = Workbench(job, emit)
    bench.require_both_classes()
    reader, sizes, dropout = bench.reader("teacher"), job.settings.models.teacher, bench.training.dropout
    y = torch.from_numpy(bench.y.astype(np.int64)).to(bench.precision.device)

    vgae = seeded(lambda: Vgae(sizes.vgae, sizes.ids, dropout), bench.training.seed)
    objective = VgaeObjective(vgae, dropout)
    benign = bench.benign(bench.train)
    validate = _validate_losses(objective, reader, bench.benign(bench.val))
    bench.fit("teacher_vgae", objective, reader, bench.plan(benign), validate)

    error_scale, difficulty = _errors(vgae, reader, bench)
    gat = seeded(lambda: Gat(sizes.gat, sizes.ids, dropout), bench.training.seed)
    classify = GatObjective(gat, y, dropout)
    bench.fit(
        "teacher_gat",
        classify,
        reader,
        bench.curriculum(difficulty),
        _validate_gat(classify, reader, bench.val, bench.y),
    )
    pair = ModelPair(vgae, gat, bench.scaler, error_scale)
    _save_pair(bench, pair, sizes, "teacher", detector.teacher_path(job.models_dir, job.dataset), reader)


def distill_student(job: PhaseJob, emit: Emit) -> None:
    """Train the compressed VGAE and GAT to follow their teachers; errors as in `train_teacher`."""
    bench = Workbench(job, emit)
    bench.require_both_classes()
    reader, sizes, dropout = bench.reader("student"), job.settings.models.student, bench.training.dropout
    device, distillation = bench.precision.device, bench.training.distillation
    y = torch.from_numpy(bench.y.astype(np.int64)).to(device)
    teachers, _ = detector.load_pair(
        detector.teacher_path(job.models_dir, job.dataset), job.parent_sha256, device
    )
    known = np.union1d(bench.train, bench.val)

    benign = bench.benign(known)
    latents = TeacherLatents(
        benign, reader.data.num_nodes(benign), latent_means(teachers.vgae, reader.of("teacher"), benign)
    )
    vgae = seeded(lambda: Vgae(sizes.vgae, sizes.ids, dropout), bench.training.seed)
    follow = seeded(lambda: VgaeDistillationObjective(vgae, dropout, latents), bench.training.seed)
    validate = _validate_losses(follow, reader, bench.benign(bench.val))
    bench.fit("student_vgae", follow, reader, bench.plan(bench.benign(bench.train)), validate)

    error_scale, difficulty = _errors(vgae, reader, bench)
    teacher_logits = torch.zeros(len(y), 2, device=device)
    teacher_logits[torch.from_numpy(known).to(device)] = torch.from_numpy(
        score_gat(teachers.gat, reader.of("teacher"), known).logits
    ).to(device)
    gat = seeded(lambda: Gat(sizes.gat, sizes.ids, dropout), bench.training.seed)
    distil = GatDistillationObjective(gat, y, dropout, teacher_logits, distillation)
    bench.fit(
        "student_gat",
        distil,
        reader,
        bench.curriculum(difficulty),
        _validate_gat(distil, reader, bench.val, bench.y),
    )
    pair = ModelPair(vgae, gat, bench.scaler, error_scale)
    _save_pair(bench, pair, sizes, "student", detector.student_path(job.models_dir, job.dataset), reader)


def train_fusion(job: PhaseJob, emit: Emit) -> None:
    """Train the fusion agent and the baselines on the students' scores; errors as in `train_teacher`."""
    bench = Workbench(job, emit)
    bench.require_both_classes()
    students, _ = detector.load_pair(
        detector.student_path(job.models_dir, job.dataset), job.parent_sha256, bench.precision.device
    )
    reader, sizes = bench.reader("student"), job.settings.models.student.fusion
    scored_train, scored_val = (score_pair(students, reader, graphs) for graphs in (bench.train, bench.val))
    scale = StateScale.fit(scored_train.state)
    train = detector.make_windows(scale, scored_train, bench.y[bench.train])
    val = detector.make_windows(scale, scored_val, bench.y[bench.val])
    fusion = detector.Fusion(
        agent=train_agent(bench.run("fusion"), train, val, sizes, bench.training),
        mlp=train_mlp(bench.run("mlp_fusion"), train, val, sizes, bench.training),
        state_scale=scale,
        id_frequency=IdFrequency.fit(bench.store, bench.benign(bench.train)),
    )
    limits = bench.thresholds(fusion.score(bench.store, bench.val, scored_val))
    counts = {
        "fusion": _num_parameters(fusion.agent.network),
        "mlp_fusion": _num_parameters(fusion.mlp),
        "id_frequency": 2 * len(fusion.id_frequency.ids),
    }
    bench.save(detector.fusion_path(job.models_dir, job.dataset), fusion.to_payload(sizes), limits, counts)


def evaluate(job: PhaseJob, emit: Emit) -> None:
    """Evaluate all models on every test folder; the only reader of test windows.

    Raises:
        ArtifactError: A model file is missing, damaged, or was not made from the parent that is there.
        GraphStoreError: The graph store is damaged.
    """
    bench = Workbench(job, emit)
    device, reader = bench.precision.device, bench.reader("student")
    fusion, fusion_file = detector.load_fusion(
        detector.fusion_path(job.models_dir, job.dataset), job.parent_sha256
    )
    students, student_file = detector.load_pair(
        detector.student_path(job.models_dir, job.dataset), fusion_file["parent_sha256"], device
    )
    teachers, teacher_file = detector.load_pair(
        detector.teacher_path(job.models_dir, job.dataset), student_file["parent_sha256"], device
    )
    limits: dict[str, Threshold] = {}
    for payload in (teacher_file, student_file, fusion_file):
        limits |= detector.thresholds(payload)
    for model, limit in limits.items():
        emit(
            ThresholdCalibrated(
                dataset=job.dataset, model=model, threshold=limit.value, val_mcc=limit.val_mcc
            )
        )
    for folder, graphs in bench.manifest.test_folders(bench.store).items():
        teacher, student = (
            score_pair(pair, replace(reader.of(size), data=reader.data.with_scaler(pair.scaler)), graphs)
            for size, pair in (("teacher", teachers), ("student", students))
        )
        scores = _pair_scores("teacher", teacher) | _pair_scores("student", student)
        scores |= fusion.score(bench.store, graphs, student)
        labelled = _is_labelled(bench, folder, graphs)
        attack = bench.y[graphs] == 1 if labelled else None
        for model, score in scores.items():
            threshold = limits[model].value
            metrics = evaluate_folder(bench.store, graphs, score, threshold, labelled=labelled)
            emit(ModelEvaluated(dataset=job.dataset, model=model, folder=folder, metrics=metrics))
            emit(measure_scores(job.dataset, model, folder, score, attack, threshold))


PHASES: dict[str, Callable[[PhaseJob, Emit], None]] = {
    "teacher": train_teacher,
    "student": distill_student,
    "fusion": train_fusion,
    "evaluation": evaluate,
}


def _is_labelled(bench: Workbench, folder: str, graphs: Indices) -> bool:
    """Captures may carry no labels at all; a suppression attack has no frame that could carry one."""
    captures = bench.manifest.captures
    carries_labels = all(captures[i].labelled for i in np.unique(bench.store.capture[graphs]))
    return carries_labels and not ("suppress" in folder.lower() and not bench.y[graphs].any())


def _pair_scores(size: str, scores: PairScores) -> dict[str, NDArray[np.float64]]:
    return {f"{size}_vgae": scores.anomaly, f"{size}_gat": scores.attack}


def _save_pair(
    bench: Workbench, pair: ModelPair, sizes: ModelSizes, size: str, path: Path, reader: Reader
) -> None:
    limits = bench.thresholds(_pair_scores(size, score_pair(pair, reader, bench.val)))
    counts = {f"{size}_vgae": _num_parameters(pair.vgae), f"{size}_gat": _num_parameters(pair.gat)}
    bench.save(path, pair.to_payload(sizes), limits, counts)


def _num_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _errors(vgae: Vgae, reader: Reader, bench: Workbench) -> tuple[ErrorScale, NDArray[np.float64]]:
    """What a benign error is, and the difficulty of each training window."""
    errors = score_vgae(vgae, reader, bench.train).errors
    scale = ErrorScale.fit(errors[bench.y[bench.train] == 0])
    return scale, scale.deviation(errors)


def _validate_losses(objective: Objective, reader: Reader, graphs: Indices) -> Validate:
    def total(chosen: Indices, batch: GraphBatch) -> Tensor:
        with reader.precision.autocast():
            return objective.losses(batch, chosen).double().sum()

    @torch.no_grad()
    def validate() -> tuple[float, float | None]:
        sums = reader.map(total, graphs, "vgae")
        return float(torch.stack(sums).sum()) / len(graphs), None

    return validate


def _validate_gat(objective: GatObjective, reader: Reader, graphs: Indices, y: NDArray[np.uint8]) -> Validate:
    """Loss and Matthews correlation at probability 1/2."""

    def validate() -> tuple[float, float | None]:
        scores = score_gat(objective.model, reader, graphs)
        logits: Tensor = torch.from_numpy(scores.logits).to(objective.y.device)
        loss = float(objective.losses_of_logits(logits, graphs).double().mean())
        return loss, mcc_at_half(scores.attack_probability, y[graphs])

    return validate
