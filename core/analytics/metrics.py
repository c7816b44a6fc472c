"""What metrics and models are called, how numbers are written, and whether fusion earns its place."""

from collections.abc import Mapping
from dataclasses import dataclass

from core.analytics.results import DatasetResult, Metrics

MODELS = (
    "teacher_vgae",
    "teacher_gat",
    "student_vgae",
    "student_gat",
    "fusion",
    "mlp_fusion",
    "id_frequency",
)
BASELINES = frozenset({"mlp_fusion", "id_frequency"})

_LABELS = {
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
    "mcc": "MCC",
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "macro_f1": "Macro F1",
    "false_positive_rate": "False-positive rate",
    "false_alarms_per_hour": "False alarms per hour",
    "time_to_alarm_mean_s": "Mean time to alarm (s)",
    "time_to_alarm_max_s": "Longest time to alarm (s)",
    "num_missed_episodes": "Missed episodes",
    "num_episodes": "Attack episodes",
    "num_attack_windows": "Attack windows",
    "num_windows": "Windows",
    "alarm_rate": "Alarm rate",
}
_LEFT_OUT = frozenset(
    {"labelled", "num_alarms", "true_positives", "false_positives", "true_negatives", "false_negatives"}
)
"""In the results file, but too much for a table."""
HIGHER_IS_BETTER = frozenset({"precision", "recall", "f1", "macro_f1", "mcc", "auroc", "average_precision"})
LOWER_IS_BETTER = frozenset(
    {
        "false_positive_rate",
        "false_alarms_per_hour",
        "time_to_alarm_mean_s",
        "time_to_alarm_max_s",
        "num_missed_episodes",
    }
)


@dataclass(frozen=True)
class FusionVerdict:
    """Whether the fusion agent beats what is simpler than it, by MCC in each test folder.

    Attributes:
        num_folders: Folders in which fusion and a rival have a defined MCC.
        num_ahead: Folders in which fusion is strictly ahead of every rival.
        rival: The model that is most often the strongest rival; empty without folders.
    """

    num_folders: int
    num_ahead: int
    rival: str

    @property
    def earned(self) -> bool:
        """Fusion is ahead in most folders."""
        return self.num_ahead * 2 > self.num_folders

    def sentence(self) -> str:
        """The verdict in one sentence."""
        if self.num_folders == 0:
            return "No test folder has a defined MCC for fusion and a rival: no verdict."
        verdict = "fusion earns its place" if self.earned else "fusion has not earned its place"
        return (
            f"Fusion is ahead of every simpler model in {self.num_ahead} of {self.num_folders} test folders "
            f"by MCC (strongest rival: {self.rival}): {verdict}."
        )


def fusion_verdict(dataset: DatasetResult) -> FusionVerdict:
    """Compare fusion with the students and baselines; teachers are larger, so they are no rivals."""
    rivals = [name for name in model_order(dataset.metrics) if name != "fusion" and "teacher" not in name]
    ahead, strongest = 0, list[str]()
    for folder, metrics in dataset.metrics.get("fusion", {}).items():
        own = metrics.get("mcc")
        scores = {name: dataset.metrics[name].get(folder, {}).get("mcc") for name in rivals}
        defined = {name: score for name, score in scores.items() if score is not None}
        if own is None or not defined:
            continue
        best = max(defined, key=lambda name: defined[name])
        strongest.append(best)
        ahead += own > defined[best]
    return FusionVerdict(len(strongest), ahead, max(strongest, key=strongest.count, default=""))


def model_order(models: Mapping[str, object]) -> list[str]:
    """Known models in the order of the chain, then any others by name."""
    return [name for name in MODELS if name in models] + sorted(set(models) - set(MODELS))


def folder_order(dataset: DatasetResult) -> list[str]:
    """Test folders of a dataset, by name."""
    return sorted({folder for folders in dataset.metrics.values() for folder in folders})


def metric_order(dataset: DatasetResult) -> list[str]:
    """Metrics for a table: known ones in their usual order, then any others by name."""
    names = {name for folders in dataset.metrics.values() for metrics in folders.values() for name in metrics}
    return [name for name in _LABELS if name in names] + sorted(names - set(_LABELS) - _LEFT_OUT)


def best_models(dataset: DatasetResult, folder: str, metric: str) -> frozenset[str]:
    """The models with the best value of a metric in a folder; none where all are as good."""
    values = {
        name: value
        for name, folders in dataset.metrics.items()
        if (value := folders.get(folder, {}).get(metric)) is not None
    }
    if len(set(values.values())) < 2 or metric not in HIGHER_IS_BETTER | LOWER_IS_BETTER:
        return frozenset()
    best = max(values.values()) if metric in HIGHER_IS_BETTER else min(values.values())
    return frozenset(name for name, value in values.items() if value == best)


def metric_label(name: str) -> str:
    """What people call a metric."""
    return _LABELS.get(name, name)


def format_metric(metrics: Metrics, name: str) -> str:
    """One metric as text: ``undefined`` or ``unlabelled`` for null, a dash where it was not measured."""
    if name not in metrics:
        return "–"
    value = metrics[name]
    if value is None:
        return "unlabelled" if metrics.get("labelled") == 0 else "undefined"
    return format_number(value)


def format_number(value: float) -> str:
    """A number with as many digits as a reader can use."""
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", "\u202f")
    if value != 0 and abs(value) < 0.0005:
        return f"{value:.1e}"
    digits = 3 - sum(abs(value) > step for step in (1, 10, 100))
    return f"{value:.{digits if abs(value) >= 0.01 or value == 0 else 4}f}"


def format_change(difference: float) -> str:
    """A difference of two numbers with its sign."""
    return f"{'−' if difference < 0 else '+'}{format_number(abs(difference))}"


def format_duration(seconds: float | None) -> str:
    """Seconds as ``42 s``, ``6 min 33 s`` or ``14 h 05 min``."""
    if seconds is None:
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def format_memory(mib: float | None) -> str:
    """Mebibytes as ``640 MiB`` or ``12.6 GiB``."""
    if mib is None:
        return "–"
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"
