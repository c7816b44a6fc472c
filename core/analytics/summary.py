"""A plan's results on the terminal."""

from rich.console import Console
from rich.table import Table

from core.analytics.results import DatasetResult, RetrainingResults

_COLUMNS = {
    "f1": "F1",
    "mcc": "MCC",
    "auroc": "AUROC",
    "false_positive_rate": "FPR",
    "false_alarms_per_hour": "FA/h",
}


def print_results(results: RetrainingResults, console: Console) -> None:
    """Print the metrics of every dataset, model and test folder, and what went wrong.

    Args:
        results: Of a plan, finished or not.
        console: Where to.
    """
    console.print(f"\nPlan {results.plan_id}: {results.status}", style="bold", highlight=False)
    for name, dataset in results.datasets.items():
        if dataset.metrics:
            console.print(_metrics_table(name, dataset))
        for phase, result in dataset.phases.items():
            if result.error:
                console.print(f"{name}: {phase} {result.status}: {result.error}", style="red", markup=False)


def _metrics_table(name: str, dataset: DatasetResult) -> Table:
    table = Table(title=name, title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.add_column("test folder", overflow="fold")
    table.add_column("model")
    for title in _COLUMNS.values():
        table.add_column(title, justify="right")
    for folder in sorted({folder for folders in dataset.metrics.values() for folder in folders}):
        shown = folder
        for model, folders in dataset.metrics.items():
            metrics = folders.get(folder, {})
            table.add_row(shown, model, *(_number(metrics.get(key)) for key in _COLUMNS))
            shown = ""
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"
