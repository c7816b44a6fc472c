"""A plan's results on the terminal."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from core.analytics.metrics import folder_order, model_order
from core.analytics.results import DatasetResult, RetrainingResults

_COLUMNS = {
    "f1": "F1",
    "mcc": "MCC",
    "auroc": "AUROC",
    "false_positive_rate": "FPR",
    "false_alarms_per_hour": "FA/h",
}
_NUMBER_WIDTH = 7


def print_results(results: RetrainingResults, console: Console) -> None:
    """Print the metrics of every dataset, model and test folder, and what went wrong.

    Args:
        results: Of a plan, finished or not.
        console: Where to.
    """
    console.print(f"\nPlan {results.plan_id}: {results.status}", style="bold", highlight=False)
    for name, dataset in results.datasets.items():
        if dataset.metrics:
            console.print(Text(f"\n{name}", style="bold"))
            for table in _metrics_tables(dataset):
                console.print(table)
        for phase, result in dataset.phases.items():
            if result.error:
                console.print(f"{name}: {phase} {result.status}: {result.error}", style="red", markup=False)


def _metrics_tables(dataset: DatasetResult) -> Iterator[Table]:
    """A table per test folder below its name: names of folders are long, and terminals narrow."""
    models = model_order(dataset.metrics)
    for number, folder in enumerate(folder_order(dataset)):
        table = Table(
            title=Text(folder),
            title_justify="left",
            title_style="italic",
            box=None,
            show_header=number == 0,
            header_style="bold",
            pad_edge=False,
        )
        table.add_column("model", min_width=max(map(len, models)))
        for title in _COLUMNS.values():
            table.add_column(title, justify="right", min_width=_NUMBER_WIDTH)
        for model in models:
            if folder in dataset.metrics[model]:
                metrics = dataset.metrics[model][folder]
                table.add_row(Text(model), *(_number(metrics.get(key)) for key in _COLUMNS))
        yield table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"
