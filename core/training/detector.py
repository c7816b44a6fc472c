"""Trained models put back together from their files, and windows scored with them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from core.can.graph_store import GraphStore
from core.can.scaling import Scaler
from core.errors import ArtifactError
from core.models.fusion import FusionNetwork
from core.models.gat import Gat
from core.models.vgae import Vgae
from core.training import artifacts
from core.training.calibration import Threshold
from core.training.dqn import FusionAgent, StateScale, Windows, fuse
from core.training.graph_data import GraphData
from core.training.id_frequency import IdFrequency
from core.training.mlp_fusion import mlp_probability
from core.training.precision import choose_precision, prepare_process
from core.training.scoring import ErrorScale, Reader, fusion_state, score_gat, score_vgae
from settings.graph import GraphSettings
from settings.models import FusionSettings, ModelSizes
from settings.training import TrainingSettings

MODEL_FILE_VERSION = 1
_DEFAULT_BATCH = 256

Floats = NDArray[np.float64]


def teacher_path(models_dir: Path, dataset: str) -> Path:
    """File of a dataset's teachers."""
    return models_dir / f"best_teacher_model_{dataset}.pth"


def student_path(models_dir: Path, dataset: str) -> Path:
    """File of a dataset's students."""
    return models_dir / f"final_student_model_{dataset}.pth"


def fusion_path(models_dir: Path, dataset: str) -> Path:
    """File of a dataset's fusion agent and of the baselines."""
    return models_dir / f"fusion_agent_{dataset}.pth"


@dataclass(frozen=True)
class PairScores:
    """Of ``K`` windows: `anomaly` and `attack` probabilities ``[K]``, raw fusion `state` ``[K, 15]``."""

    anomaly: Floats
    attack: Floats
    state: Floats


@dataclass(frozen=True)
class ModelPair:
    """A VGAE and a GAT of one size, with what is needed to use them.

    Attributes:
        vgae: The autoencoder.
        gat: The classifier.
        scaler: Scaling that both were trained with.
        error_scale: What a benign reconstruction error is.
    """

    vgae: Vgae
    gat: Gat
    scaler: Scaler
    error_scale: ErrorScale

    def to_payload(self, sizes: ModelSizes) -> dict[str, Any]:
        """As tensors and primitives."""
        return {
            "sizes": sizes.model_dump(mode="json"),
            "vgae": self.vgae.state_dict(),
            "gat": self.gat.state_dict(),
            "scaler": self.scaler.to_dict(),
            "error_mean": self.error_scale.mean,
            "error_std": self.error_scale.std,
        }

    @classmethod
    def from_payload(cls, payload: dict[str, Any], device: torch.device) -> Self:
        """The inverse of `to_payload`.

        Raises:
            KeyError: Something is missing.
            RuntimeError: Weights do not fit the sizes.
        """
        sizes = ModelSizes.model_validate(payload["sizes"])
        vgae, gat = Vgae(sizes.vgae, sizes.ids, dropout=0.0), Gat(sizes.gat, sizes.ids, dropout=0.0)
        vgae.load_state_dict(payload["vgae"])
        gat.load_state_dict(payload["gat"])
        error_scale = ErrorScale(payload["error_mean"], payload["error_std"])
        scaler = Scaler.from_dict(payload["scaler"])
        return cls(vgae.to(device).eval(), gat.to(device).eval(), scaler, error_scale)


def score_pair(pair: ModelPair, reader: Reader, graphs: NDArray[np.int64]) -> PairScores:
    """Score windows with both models."""
    vgae, gat = score_vgae(pair.vgae, reader, graphs), score_gat(pair.gat, reader, graphs)
    anomaly = pair.error_scale.anomaly_probability(vgae.errors)
    return PairScores(anomaly, gat.attack_probability, fusion_state(vgae, anomaly, gat))


@dataclass(frozen=True)
class Fusion:
    """The fusion agent and the two baselines, as the fusion phase leaves them."""

    agent: FusionAgent
    mlp: FusionNetwork
    state_scale: StateScale
    id_frequency: IdFrequency

    def score(self, store: GraphStore, graphs: NDArray[np.int64], students: PairScores) -> dict[str, Floats]:
        """Scores of ``fusion``, ``mlp_fusion`` and ``id_frequency``, each ``[K]``."""
        windows = self.windows(students, np.zeros(len(graphs), np.uint8))
        fused = fuse(self.agent.weigh(windows.state), windows)
        return {
            "fusion": fused.double().numpy(),
            "mlp_fusion": mlp_probability(self.mlp, windows.state),
            "id_frequency": self.id_frequency.score(store, graphs),
        }

    def windows(self, students: PairScores, y: NDArray[np.uint8]) -> Windows:
        """What the agent sees of the students' scores."""
        return make_windows(self.state_scale, students, y)

    def to_payload(self, fusion: FusionSettings) -> dict[str, Any]:
        """As tensors and primitives."""
        return {
            "sizes": fusion.model_dump(mode="json"),
            "num_actions": len(self.agent.weights),
            "agent": self.agent.network.state_dict(),
            "mlp": self.mlp.state_dict(),
            "state_low": self.state_scale.low.tolist(),
            "state_high": self.state_scale.high.tolist(),
            "ids": self.id_frequency.ids.tolist(),
            "id_mean": self.id_frequency.mean.tolist(),
            "id_std": self.id_frequency.std.tolist(),
        }

    @classmethod
    def from_payload(cls, payload: dict[str, Any]) -> Self:
        """The inverse of `to_payload`; errors as in `ModelPair.from_payload`."""
        sizes = FusionSettings.model_validate(payload["sizes"])
        agent, mlp = FusionNetwork(sizes, payload["num_actions"]), FusionNetwork(sizes, 1)
        agent.load_state_dict(payload["agent"])
        mlp.load_state_dict(payload["mlp"])
        low, high, mean, std = (
            np.array(payload[name]) for name in ("state_low", "state_high", "id_mean", "id_std")
        )
        id_frequency = IdFrequency(np.array(payload["ids"], np.int64), mean, std)
        return cls(FusionAgent(agent.eval()), mlp.eval(), StateScale(low, high), id_frequency)


def make_windows(scale: StateScale, students: PairScores, y: NDArray[np.uint8]) -> Windows:
    """Scores and labels as the agent's tensors."""
    anomaly, attack, labels = (torch.from_numpy(a).float() for a in (students.anomaly, students.attack, y))
    return Windows(scale.apply(students.state), anomaly, attack, labels)


def load_pair(path: Path, sha256: str, device: torch.device) -> tuple[ModelPair, dict[str, Any]]:
    """Load teachers or students.

    Args:
        path: The file.
        sha256: What it must hash to.
        device: Where the models go.

    Returns:
        The models and everything else the file holds (thresholds, digests).

    Raises:
        ArtifactError: Missing, damaged, of another version, or not this kind of file.
    """
    payload = _load(path, sha256)
    try:
        return ModelPair.from_payload(payload, device), payload
    except (KeyError, RuntimeError, ValueError) as error:
        raise _misfit(path, error) from error


def load_fusion(path: Path, sha256: str) -> tuple[Fusion, dict[str, Any]]:
    """Load the fusion agent and the baselines; as `load_pair`."""
    payload = _load(path, sha256)
    try:
        return Fusion.from_payload(payload), payload
    except (KeyError, RuntimeError, ValueError) as error:
        raise _misfit(path, error) from error


def thresholds(payload: dict[str, Any]) -> dict[str, Threshold]:
    """Alarm thresholds of a file's models, by name."""
    return {name: Threshold(value, mcc) for name, (value, mcc) in payload["thresholds"].items()}


def _load(path: Path, sha256: str) -> dict[str, Any]:
    payload = artifacts.load(path, sha256)
    if payload.get("version") != MODEL_FILE_VERSION:
        raise ArtifactError(
            f"{path}: model file version {payload.get('version')}, this software reads {MODEL_FILE_VERSION}; "
            "train its phase again"
        )
    return payload


def _misfit(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(f"{path}: does not hold the models it should ({error}); train its phase again")


def graph_settings(models_dir: Path, dataset: str, sha256: str) -> GraphSettings:
    """The windows that a dataset's models were trained with.

    Args:
        models_dir: Where the models are.
        dataset: Whose models.
        sha256: What the fusion agent's file must hash to.

    Raises:
        ArtifactError: The fusion agent's file is missing, damaged or another one.
    """
    return GraphSettings.model_validate(_load(fusion_path(models_dir, dataset), sha256)["graph"])


@dataclass(frozen=True)
class WindowScores:
    """Scores of ``K`` windows.

    Attributes:
        scores: Model -> float64 ``[K]`` probabilities, for ``student_vgae``, ``student_gat``, ``fusion``,
            ``mlp_fusion`` and ``id_frequency``.
        thresholds: Model -> alarm threshold, chosen on validation.
        alarm: bool ``[K]`` the fusion score is above its threshold.
    """

    scores: dict[str, Floats]
    thresholds: dict[str, float]
    alarm: NDArray[np.bool_]


def score_windows(
    store: GraphStore,
    models_dir: Path,
    dataset: str,
    training: TrainingSettings | None,
    sha256: str,
) -> WindowScores:
    """Score all windows of a store with a dataset's trained students and fusion agent.

    Args:
        store: The windows, built with the graph settings the models were trained with.
        models_dir: Where the models are.
        dataset: Whose models.
        training: Device, precision and micro-batch; None means the defaults.
        sha256: What the fusion agent's file must hash to; its students are those that it was trained from.

    Raises:
        ArtifactError: A model file is missing, damaged, or was trained from other students than are there.
    """
    training = training or TrainingSettings()
    prepare_process(training)
    precision = choose_precision(training)
    fusion, fusion_payload = load_fusion(fusion_path(models_dir, dataset), sha256)
    students, student_payload = load_pair(
        student_path(models_dir, dataset), fusion_payload["parent_sha256"], precision.device
    )
    graphs = np.arange(store.num_graphs)
    data = GraphData(store, students.scaler, precision.device)
    names = {"dataset": dataset, "phase": "detection", "size": "student"}
    reader = Reader(data, precision, training.micro_batch_size or _DEFAULT_BATCH, names)
    pair = score_pair(students, reader, graphs)
    scores = {"student_vgae": pair.anomaly, "student_gat": pair.attack, **fusion.score(store, graphs, pair)}
    limits = {name: t.value for name, t in (thresholds(student_payload) | thresholds(fusion_payload)).items()}
    return WindowScores(scores, limits, scores["fusion"] > limits["fusion"])
