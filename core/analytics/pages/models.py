"""The page of models: how well each tells attacks apart."""

from collections.abc import Mapping

from core.analytics import html
from core.analytics.board import Dashboard
from core.analytics.charts.detection import metric_dots
from core.analytics.charts.keys import model_keys
from core.analytics.metrics import (
    BASELINES,
    HIGHER_IS_BETTER,
    best_models,
    folder_order,
    format_metric,
    format_number,
    fusion_verdict,
    metric_label,
    metric_order,
    model_order,
)
from core.analytics.pages.parts import Place, legend
from core.analytics.results import DatasetResult


def render(dashboard: Dashboard, place: Place) -> str:
    """The page's sections."""
    return "\n".join(
        [
            _metrics(dashboard, place),
            html.section("Data", data_quality(dashboard.results.datasets)),
        ]
    )


def _metrics(dashboard: Dashboard, place: Place) -> str:
    datasets = dashboard.results.datasets
    names = dashboard.evaluated
    if not names:
        return ""
    parts = [
        *(verdict(name, datasets[name]) for name in names),
        legend(model_keys(dashboard.models)),
    ]
    for name in names:
        figures = "".join(
            place(
                metric_dots(datasets[name], metric, "container"),
                metric_label(metric),
                f"{metric_label(metric)} of every model and test folder of {name}",
            )
            for metric in dashboard.dot_metrics(name)
        )
        opened = " open" if len(names) <= 2 else ""
        parts.append(
            f'<h3>{html.text(name)}</h3><div class="grid wide">{figures}</div>'
            f"<details{opened}><summary>All metrics of {html.text(name)}</summary>"
            f"{metric_tables(datasets[name])}</details>"
        )
    return html.section(
        "Detection", *parts, lead="Baselines are grey: what is more complex has to beat them."
    )


def metric_tables(dataset: DatasetResult) -> str:
    """All metrics of one dataset, a group of rows per test folder, tinted where 1 is best."""
    columns = metric_order(dataset)
    rows = []
    for folder in folder_order(dataset):
        best = {metric: best_models(dataset, folder, metric) for metric in columns}
        rows.append(
            f'<tr class="group"><th scope="colgroup" colspan="{len(columns) + 1}"><span>{html.text(folder)}'
            "</span></th></tr>"
        )
        for model in model_order(dataset.metrics):
            metrics = dataset.metrics[model].get(folder)
            if metrics is None:
                continue
            cells = []
            for metric in columns:
                value = metrics.get(metric)
                heated = metric in HIGHER_IS_BETTER and value is not None
                css = "number undefined" if metrics.get(metric, 0) is None else "number"
                css += " best" if model in best[metric] else ""
                heat = min(1.0, max(0.0, value)) if heated and value is not None else None
                cells.append(html.cell(format_metric(metrics, metric), css, heat))
            rows.append(html.row(model, cells, "baseline" if model in BASELINES else ""))
    return html.table("Metrics per test folder and model", ["model", *map(metric_label, columns)], rows, 1)


def verdict(name: str, dataset: DatasetResult) -> str:
    """Whether fusion earns its place on one dataset."""
    found = fusion_verdict(dataset)
    tone = "good" if found.earned else "warn"
    word = "earned" if found.earned else "not earned" if found.num_folders else "no verdict"
    return f"<p>{html.chip(word, tone)} <strong>{html.text(name)}</strong>: {html.text(found.sentence())}</p>"


def data_quality(datasets: Mapping[str, DatasetResult]) -> str:
    """Frames, graphs, quarantined rows and refused or shared captures."""
    rows = []
    for name, dataset in datasets.items():
        graphs, quarantined = dataset.graphs, sum(q.num_rows for q in dataset.quarantine.values())
        splits = graphs.splits if graphs else {}
        attacks = f"{graphs.num_attack_graphs / max(1, graphs.num_graphs):.1%}" if graphs else "–"
        cells = [
            format_number(graphs.num_frames) if graphs else "–",
            format_number(graphs.num_graphs) if graphs else "–",
            attacks,
            *(format_number(splits[split]) if split in splits else "–" for split in ("train", "val", "test")),
            format_number(quarantined),
            format_number(len(dataset.refused_captures)),
            format_number(len(dataset.shared_captures)),
        ]
        rows.append(html.row(name, (html.cell(content, "number") for content in cells)))
    columns = [
        "dataset", "frames", "graphs", "attack graphs", "train", "validation", "test",
        "quarantined rows", "refused captures", "shared captures",
    ]  # fmt: skip
    parts = [html.table("Data quality", columns, rows, 1)] if rows else []
    if details := [line for name, dataset in datasets.items() for line in _data_problems(name, dataset)]:
        parts += [
            "<h3>What was put aside</h3>",
            html.table("Problems", ["dataset", "capture", "what"], details, 3),
        ]
    return "".join(parts)


def _data_problems(name: str, dataset: DatasetResult) -> list[str]:
    lines = [
        (path, f"{format_number(q.num_rows)} rows quarantined: " + ", ".join(
            f"{reason} ({format_number(count)})" for reason, count in sorted(q.reasons.items())
        ))
        for path, q in sorted(dataset.quarantine.items())
    ]  # fmt: skip
    lines += [(path, f"refused: {reason}") for path, reason in sorted(dataset.refused_captures.items())]
    lines += [
        (
            str(c.get("path")),
            f"same bytes as {c.get('other_path')} of {c.get('other_dataset')}: not independent",
        )
        for c in dataset.shared_captures
    ]
    return [html.row(name, [html.cell(path, "long"), html.cell(what, "long")]) for path, what in lines]
