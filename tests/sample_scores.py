"""Simulated scores of windows, and what evaluation says of them; from one seed."""

import zlib

import numpy as np
from numpy.typing import NDArray

from core.events.catalogue import ModelEvaluated, ScoresMeasured
from core.training.score_curves import measure_scores

NUM_WINDOWS = 2900
WINDOWS_PER_S = 2.0
ALL_BENIGN, UNLABELLED = 3, 4
"""Numbers of the test folders without an attack and without labels."""

Scored = tuple[NDArray[np.float64], NDArray[np.bool_]]


def simulate(seed: str, skill: float, *, attack_share: float) -> Scored:
    """Scores and labels: the higher the skill (0.5 to 1), the further attacks lie from benign windows."""
    rng = np.random.default_rng(zlib.crc32(seed.encode()))
    attack = np.arange(NUM_WINDOWS) < attack_share * NUM_WINDOWS
    distance = 14 * max(0.0, skill - 0.45)
    logit = rng.normal(-4.0, 1.2, NUM_WINDOWS) + attack * rng.normal(distance, 1.3, NUM_WINDOWS)
    return np.round(1 / (1 + np.exp(-logit)), 6), attack


def evaluation(
    dataset: str, model: str, folder: str, number: int, seed: str, skill: float, threshold: float
) -> tuple[ModelEvaluated, ScoresMeasured]:
    """What the evaluation phase says of a model on the ``number``-th test folder of its dataset."""
    share = 0.0 if number in (ALL_BENIGN, UNLABELLED) else (0.18, 0.3, 0.06)[number % 3]
    score, attack = simulate(seed, skill, attack_share=share)
    labels = None if number == UNLABELLED else attack
    metrics = _metrics(score, labels, threshold)
    return (
        ModelEvaluated(dataset=dataset, model=model, folder=folder, metrics=metrics),
        measure_scores(dataset, model, folder, score, labels, threshold),
    )


def validation(dataset: str, model: str, seed: str, skill: float, threshold: float) -> ScoresMeasured:
    """What a phase says of its model on the validation windows."""
    score, attack = simulate(seed, skill, attack_share=0.2)
    return measure_scores(dataset, model, None, score, attack, threshold)


def _metrics(
    score: NDArray[np.float64], attack: NDArray[np.bool_] | None, threshold: float
) -> dict[str, float | int | None]:
    alarm = score > threshold
    known = {"num_windows": len(score), "num_alarms": int(alarm.sum()), "alarm_rate": float(alarm.mean())}
    if attack is None:
        return {"labelled": 0, **known} | dict.fromkeys(_LABELLED)
    tp, fp = int((alarm & attack).sum()), int((alarm & ~attack).sum())
    fn, tn = int((~alarm & attack).sum()), int((~alarm & ~attack).sum())
    rate = fp / (fp + tn)
    counts = [tp, fp, tn, fn, int(attack.sum()), int(attack.sum()) // 50, int(fn > 60)]
    values = [rate, rate * WINDOWS_PER_S * 3600]
    if attack.any():
        f1, benign_f1 = 2 * tp / (2 * tp + fp + fn), 2 * tn / (2 * tn + fp + fn)
        spread = float((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
        values += [tp / max(1, tp + fp), tp / (tp + fn), f1, (f1 + benign_f1) / 2]
        values += [(tp * tn - fp * fn) / spread if spread else 0.0, *_areas(score, attack)]
        values += [0.2 + 4 * fn / (tp + fn), 0.9 + 12 * fn / (tp + fn)]
    told = zip(_LABELLED, [*counts, *values], strict=False)
    return {"labelled": 1, **known} | dict.fromkeys(_LABELLED) | dict(told)


def _areas(score: NDArray[np.float64], attack: NDArray[np.bool_]) -> tuple[float, float]:
    """AUROC and average precision, ties broken by order."""
    ranked = attack[np.argsort(-score, kind="stable")]
    hits = np.cumsum(ranked)
    precision = hits / np.arange(1, len(ranked) + 1)
    return float(hits[~ranked].sum() / hits[-1] / (~ranked).sum()), float(precision[ranked].mean())


_LABELLED = (
    "true_positives",
    "false_positives",
    "true_negatives",
    "false_negatives",
    "num_attack_windows",
    "num_episodes",
    "num_missed_episodes",
    "false_positive_rate",
    "false_alarms_per_hour",
    "precision",
    "recall",
    "f1",
    "macro_f1",
    "mcc",
    "auroc",
    "average_precision",
    "time_to_alarm_mean_s",
    "time_to_alarm_max_s",
)
