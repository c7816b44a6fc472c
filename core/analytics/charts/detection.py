"""How well models tell attacks apart: their metrics, by test folder and over versions."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from core.analytics.charts.base import ROW_PX, Chart, Width, data, row_names
from core.analytics.charts.keys import model_colour, model_dash, model_shape
from core.analytics.detection import TrendPoint
from core.analytics.metrics import BASELINES, folder_order, format_metric, metric_label, model_order
from core.analytics.results import DatasetResult
from core.analytics.theme import colour
from core.analytics.versions import DECIDING_MODEL

_LINEAR_BELOW = {
    "false_positive_rate": 1e-3,
    "false_alarms_per_hour": 1.0,
    "time_to_alarm_mean_s": 0.1,
    "time_to_alarm_max_s": 0.1,
}
"""Metrics that range over powers of ten: the scale is linear below this and logarithmic above."""


def metric_dots(dataset: DatasetResult, metric: str, width: Width) -> Chart:
    """One metric of every model in every test folder; baselines are grey and hollow."""
    folders = folder_order(dataset)
    models = model_order(dataset.metrics)
    cells = [
        (model, folder, dataset.metrics[model].get(folder, {})) for model in models for folder in folders
    ]
    rows: list[dict[str, Any]] = [
        {
            "model": model,
            "folder": folder,
            "value": metrics[metric],
            "told": format_metric(metrics, metric),
            "baseline": model in BASELINES,
        }
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
    x = _metric_axis(metric, low, max([row["value"] for row in rows], default=1.0))
    y = alt.Y(
        "folder:N",
        sort=folders,
        axis=None,
        scale=alt.Scale(domain=folders, paddingInner=0.62, paddingOuter=0.45),
    )
    dots = (
        alt.Chart(data(rows))
        .mark_point(size=75, strokeWidth=1.7)
        .encode(
            x=x,
            y=y,
            tooltip=["model:N", "folder:N", alt.Tooltip("told:N", title=metric_label(metric))],
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


def _metric_axis(metric: str, low: float, high: float) -> alt.X:
    linear_below = _LINEAR_BELOW.get(metric)
    if linear_below is None:
        domain = [low, 1.0 if high > 0.5 else max(high * 1.1, 0.01)]
        return alt.X("value:Q", title=None, scale=alt.Scale(domain=domain), axis=alt.Axis(tickCount=5))
    top = max(high * 1.15, 10 * linear_below)
    ticks = [0.0, *(tick for power in range(-5, 7) if linear_below <= (tick := 10.0**power) <= top)]
    scale = alt.Scale(type="symlog", constant=linear_below, domain=[0.0, top], nice=False)
    axis = alt.Axis(values=ticks, labelExpr="'' + datum.value", labelOverlap="greedy")
    return alt.X("value:Q", title=None, scale=scale, axis=axis)


def trend_chart(points: Sequence[TrendPoint], metric: str) -> Chart:
    """A metric over versions, a line per phase; the champion is filled."""
    phases = [phase for phase in DECIDING_MODEL if any(point.phase == phase for point in points)]
    last = max((point.number for point in points), default=1)
    rows = [
        {
            "phase": point.phase,
            "model": point.model,
            "version": point.number,
            "value": float(f"{point.value:.6g}"),
            "role": point.role or "earlier version",
        }
        for point in points
    ]
    ink = alt.Color(
        "phase:N", legend=None, scale=alt.Scale(domain=phases, range=[colour(phase) for phase in phases])
    )
    base = alt.Chart(data(rows)).encode(
        x=alt.X(
            "version:Q",
            title="version",
            scale=alt.Scale(domain=[0.7, last + 0.3], nice=False),
            axis=alt.Axis(values=list(range(1, last + 1, max(1, last // 8))), format="d", grid=False),
        ),
        y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(tickCount=4)),
        color=ink,
        tooltip=["model:N", "version:Q", alt.Tooltip("value:Q", title=metric_label(metric)), "role:N"],
    )
    lines = base.mark_line(strokeWidth=1.8).encode(
        strokeDash=alt.StrokeDash(
            "phase:N",
            legend=None,
            scale=alt.Scale(domain=phases, range=[model_dash(DECIDING_MODEL[phase]) for phase in phases]),
        )
    )
    dots = base.mark_point(size=70, strokeWidth=1.6, opacity=1).encode(
        shape=alt.Shape(
            "phase:N",
            legend=None,
            scale=alt.Scale(domain=phases, range=[model_shape(DECIDING_MODEL[phase]) for phase in phases]),
        ),
        fill=alt.Fill(
            "phase:N", legend=None, scale=alt.Scale(domain=phases, range=[colour(phase) for phase in phases])
        ),
        fillOpacity=alt.condition("datum.role === 'champion'", alt.value(1), alt.value(0)),
    )
    return alt.layer(lines, dots).properties(width="container", height=110)


def _model_scale(models: Sequence[str], value: Any, channel: Any) -> Any:
    return channel(
        "model:N", legend=None, scale=alt.Scale(domain=list(models), range=[value(name) for name in models])
    )
