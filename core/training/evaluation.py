"""How well windows of one test folder are told apart; what is undefined there is None, never 0 or 1."""

import numpy as np
from numpy.typing import NDArray

from core.can.graph_store import GraphStore

Metrics = dict[str, float | int | None]
_SECONDS_PER_HOUR = 3600.0


def evaluate_folder(
    store: GraphStore,
    graphs: NDArray[np.int64],
    score: NDArray[np.float64],
    threshold: float,
    *,
    labelled: bool,
) -> Metrics:
    """All metrics of one model on one test folder.

    Args:
        store: Labels and times.
        graphs: int64 ``[K]`` the folder's windows, rising.
        score: float64 ``[K]`` probabilities.
        threshold: A score above it is an alarm.
        labelled: Whether labels mean anything here; suppression attacks have no frame to label.

    Returns:
        `labelled` (1 or 0), `num_windows`, `num_alarms`, `alarm_rate`; of a labelled folder also
        `num_attack_windows`, confusion counts, `precision`, `recall` and `f1` of the attack class,
        `macro_f1`, `mcc`, `auroc`, `average_precision`, `false_positive_rate`,
        `false_alarms_per_hour` (of benign capture time), and of its attack episodes (runs of attack windows)
        `num_episodes`, `num_missed_episodes`, `time_to_alarm_mean_s` and `time_to_alarm_max_s` (from an
        episode's first attack frame to the end of its first alarmed window).
    """
    alarm = score > threshold
    result: Metrics = {
        "labelled": int(labelled),
        "num_windows": len(graphs),
        "num_alarms": int(alarm.sum()),
        "alarm_rate": float(alarm.mean()) if len(graphs) else None,
    }
    if not labelled:
        return result | dict.fromkeys(_LABELLED_METRICS)
    attack = store.y[graphs] == 1
    result |= _classification(attack, score, alarm)
    result |= _false_alarms(store, graphs, attack, alarm)
    return result | _time_to_alarm(store, graphs, attack, alarm)


_LABELLED_METRICS = (
    "num_attack_windows",
    "true_positives",
    "false_positives",
    "true_negatives",
    "false_negatives",
    "precision",
    "recall",
    "f1",
    "macro_f1",
    "mcc",
    "auroc",
    "average_precision",
    "false_positive_rate",
    "false_alarms_per_hour",
    "num_episodes",
    "num_missed_episodes",
    "time_to_alarm_mean_s",
    "time_to_alarm_max_s",
)


def _classification(
    attack: NDArray[np.bool_], score: NDArray[np.float64], alarm: NDArray[np.bool_]
) -> Metrics:
    from sklearn import metrics as sk  # as slow to load as torch, and trainings do without

    true_positives, false_positives = int((alarm & attack).sum()), int((alarm & ~attack).sum())
    false_negatives, true_negatives = int((~alarm & attack).sum()), int((~alarm & ~attack).sum())
    both = bool(attack.any() and not attack.all())
    return {
        "num_attack_windows": int(attack.sum()),
        "true_positives": true_positives,
        "false_positives": false_positives,
        "true_negatives": true_negatives,
        "false_negatives": false_negatives,
        # No attack: recall and F1 are undefined. No alarm: precision is, while F1 is an honest 0.
        "precision": _ratio(true_positives, true_positives + false_positives) if attack.any() else None,
        "recall": _ratio(true_positives, true_positives + false_negatives),
        "f1": _ratio(2 * true_positives, 2 * true_positives + false_positives + false_negatives)
        if attack.any()
        else None,
        "macro_f1": float(sk.f1_score(attack, alarm, average="macro", zero_division=0)) if both else None,
        "mcc": float(sk.matthews_corrcoef(attack, alarm)) if both else None,
        "auroc": float(sk.roc_auc_score(attack, score)) if both else None,
        "average_precision": float(sk.average_precision_score(attack, score)) if both else None,
        "false_positive_rate": _ratio(false_positives, false_positives + true_negatives),
    }


def _false_alarms(
    store: GraphStore, graphs: NDArray[np.int64], attack: NDArray[np.bool_], alarm: NDArray[np.bool_]
) -> Metrics:
    start, end = store.t_start[graphs], store.t_end[graphs]
    # A window's own time ends where the next window of its capture starts, so overlaps count once, and at its
    # own last frame, so pauses in the recording do not count.
    follows = _follows(store, graphs)[1:]
    own_s = end - start
    own_s[:-1][follows] = np.minimum(own_s[:-1], np.diff(start))[follows]
    benign_s = float(own_s[~attack].sum())
    num_false = int((alarm & ~attack).sum())
    return {"false_alarms_per_hour": num_false / benign_s * _SECONDS_PER_HOUR if benign_s > 0 else None}


def _time_to_alarm(
    store: GraphStore, graphs: NDArray[np.int64], attack: NDArray[np.bool_], alarm: NDArray[np.bool_]
) -> Metrics:
    goes_on = _follows(store, graphs) & np.concatenate([[False], attack[:-1]])
    first = np.flatnonzero(attack & ~goes_on)
    windows = np.flatnonzero(attack)
    ends = np.where(alarm, store.t_end[graphs], np.inf)[windows]
    alarmed_at = np.minimum.reduceat(ends, np.searchsorted(windows, first)) if len(first) else np.empty(0)
    delay_s = alarmed_at - store.t_attack[graphs][first]
    caught = delay_s[np.isfinite(delay_s)]
    return {
        "num_episodes": len(first),
        "num_missed_episodes": len(first) - len(caught),
        "time_to_alarm_mean_s": float(caught.mean()) if len(caught) else None,
        "time_to_alarm_max_s": float(caught.max()) if len(caught) else None,
    }


def _follows(store: GraphStore, graphs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which windows directly follow the one before them in the same capture."""
    capture = store.capture[graphs]
    return np.concatenate([[False], (np.diff(graphs) == 1) & (np.diff(capture) == 0)])[: len(graphs)]


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
