"""How well models tell attacks apart."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from core.analytics.charts.base import ROW_PX, Chart, Width, data, row_names
from core.analytics.charts.keys import model_colour, model_shape
from core.analytics.metrics import BASELINES, folder_order, format_metric, metric_label, model_order
from core.analytics.results import DatasetResult
from core.analytics.theme import colour


def metric_dots(dataset: DatasetResult, metric: str, width: Width) -> Chart:
    """One metric of every model in every test folder; baselines are grey and hollow."""
    folders = folder_order(dataset)
    models = model_order(dataset.metrics)
    cells = [
        (model, folder, dataset.metrics[model].get(folder, {})) for model in models for folder in folders
    ]
    rows: list[dict[str, Any]] = [
        {"model": model, "folder": folder, "value": metrics[metric], "baseline": model in BASELINES}
        for model, folder, metrics in cells
        if metrics.get(metric) is not None
    ]
    shown = {row["folder"] for row in rows}
    undefined = [
        {"folder": folder, "text": text}
        for folder, text in {f: format_metric(metrics, metric) for _, f, metrics in cells}.items()
        if folder not in shown
    ]
    low = min([0.0, *(row["value"] for row in rows)])
    high = max([row["value"] for row in rows], default=1.0)
    x = alt.X(
        "value:Q",
        title=None,
        scale=alt.Scale(domain=[low, 1.0 if high > 0.5 else max(high * 1.1, 0.01)]),
        axis=alt.Axis(tickCount=5),
    )
    y = alt.Y(
        "folder:N",
        sort=folders,
        axis=None,
        scale=alt.Scale(domain=folders, paddingInner=0.62, paddingOuter=0.45),
    )
    tooltip = ["model:N", "folder:N", alt.Tooltip("value:Q", format=".4f", title=metric_label(metric))]
    dots = (
        alt.Chart(data(rows))
        .mark_point(size=75, strokeWidth=1.7)
        .encode(
            x=x,
            y=y,
            tooltip=tooltip,
            stroke=_model_scale(models, model_colour, alt.Stroke),
            fill=_model_scale(models, model_colour, alt.Fill),
            fillOpacity=alt.condition("datum.baseline", alt.value(0), alt.value(0.75)),
            shape=_model_scale(models, model_shape, alt.Shape),
        )
    )
    empty = (
        alt.Chart(data(undefined))
        .mark_text(align="left", color=colour("muted"), fontStyle="italic", fontSize=11)
        .encode(x=alt.XDatum(low), y=y, text="text:N")
    )
    lines = (
        alt.Chart(data([{"folder": folder} for folder in folders if folder in shown]))
        .mark_rule(color=colour("line"))
        .encode(x=alt.value(0), x2=alt.value("width"), y=y)
    )
    return alt.layer(lines, dots, empty, row_names(folders, field="folder")).properties(
        width=width, height=ROW_PX * max(1, len(folders))
    )


def _model_scale(models: Sequence[str], value: Any, channel: Any) -> Any:
    return channel(
        "model:N", legend=None, scale=alt.Scale(domain=list(models), range=[value(name) for name in models])
    )
