"""The charts of a dashboard, each one a single view as wide as it is told (or as its container)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import altair as alt
import polars as pl

from core.analytics.metrics import (
    BASELINES,
    folder_order,
    format_duration,
    format_metric,
    metric_label,
    model_order,
)
from core.analytics.results import DatasetResult
from core.analytics.telemetry import bucket
from core.analytics.theme import colour
from core.analytics.timeline import EpochPoint, Span

Chart: TypeAlias = alt.Chart | alt.LayerChart | alt.FacetChart
Width: TypeAlias = int | str

PHASE_COLOURS = ("graphs", "teacher", "student", "fusion", "evaluation")
RESOURCES = {
    "gpu_utilization_percent": ("GPU utilisation", "%"),
    "vram_used_mib": ("VRAM used", "GiB"),
    "gpu_power_w": ("GPU power", "W"),
    "gpu_temperature_c": ("GPU temperature", "°C"),
    "cpu_percent": ("CPU use", "%"),
    "ram_used_mib": ("RAM used", "GiB"),
}
"""Measured quantities that are drawn: what people call them, and the unit."""
_TOTALS = {"vram_used_mib": "vram_total_mib", "ram_used_mib": "ram_total_mib"}
_SHAPES = {"teacher": "triangle-up", "student": "circle", "fusion": "diamond", "mlp": "square", "id": "cross"}
_TIME_LABEL = (
    "utcFormat(datum.value, {milliseconds: '%H:%M:%S.%L', seconds: '%H:%M:%S', minutes: '%H:%M', "
    "hours: '%H:%M', day: '%d %b', date: '%d %b', week: '%d %b', month: '%b', quarter: '%b', year: '%Y'})"
)
"""Vega's own choice is a 12-hour clock."""
_ROW_PX = 34
_SERIES = ("accent", "gat", "student", "fusion")


@dataclass(frozen=True)
class Key:
    """An entry of a legend; a symbol is a shape of Vega's, ``line`` or ``dashes``."""

    name: str
    ink: str
    symbol: str
    filled: bool = True


def model_colour(model: str) -> str:
    """A model's colour: by family, and one grey for all baselines."""
    if model in BASELINES:
        return colour("baseline")
    family = model.rpartition("_")[2]
    return colour(family if family in ("vgae", "gat", "fusion") else "accent")


def model_shape(model: str) -> str:
    """A model's symbol: by its part in the chain."""
    return _SHAPES.get(model.partition("_")[0], "circle")


def phase_keys(*, failures: bool) -> list[Key]:
    """What the colours of phases mean."""
    keys = [Key(name, colour(name), "square") for name in PHASE_COLOURS]
    return [*keys, Key("failed attempt", colour("bad"), "square")] if failures else keys


def model_keys(models: Iterable[str]) -> list[Key]:
    """What the symbols of models mean."""
    return [
        Key(
            f"{name} (baseline)" if name in BASELINES else name,
            model_colour(name),
            model_shape(name),
            filled=name not in BASELINES,
        )
        for name in models
    ]


def loss_keys() -> list[Key]:
    """What the lines of losses mean."""
    return [
        Key("training", colour("graphs"), "dashes", filled=False),
        Key("validation", colour("accent"), "line", filled=False),
        Key("best epoch", colour("accent"), "circle"),
    ]


def phase_timeline(spans: Sequence[Span], datasets: Sequence[str], width: Width) -> Chart:
    """Attempts of phases over time, a row per dataset; failed attempts are red and say why."""
    rows = [
        {
            "dataset": span.dataset,
            "phase": span.phase,
            "attempt": span.attempt,
            "from": _milliseconds(span.started_at),
            "to": _milliseconds(span.ended_at),
            "duration": format_duration(span.duration_s),
            "outcome": span.outcome,
            "paint": "failed" if span.outcome == "failed" else span.phase,
            "error": span.error,
            "mark": {"failed": "✕", "interrupted": "⏸", "running": "…"}.get(span.outcome, ""),
        }
        for span in spans
    ]
    base = alt.Chart(_data(rows)).encode(
        x=alt.X("from:T", title="time (UTC)", scale=alt.Scale(type="utc"), axis=_time_axis()),
        y=alt.Y(
            "dataset:N",
            sort=list(datasets),
            title=None,
            axis=None,
            scale=alt.Scale(domain=list(datasets), paddingInner=0.62, paddingOuter=0.45),
        ),
        tooltip=["dataset:N", "phase:N", "attempt:Q", "outcome:N", "duration:N", "error:N"],
    )
    bars = base.mark_bar(cornerRadius=2, stroke=colour("surface"), strokeWidth=1).encode(
        x2="to:T",
        color=alt.Color(
            "paint:N",
            legend=None,
            scale=alt.Scale(
                domain=[*PHASE_COLOURS, "failed"],
                range=[*map(colour, PHASE_COLOURS), colour("bad")],
            ),
        ),
        opacity=alt.condition(
            "datum.outcome == 'completed' || datum.outcome == 'failed'", alt.value(1), alt.value(0.45)
        ),
    )
    marks = base.mark_text(
        baseline="middle", align="left", dx=2, fontSize=11, color=colour("surface")
    ).encode(text="mark:N")
    return alt.layer(bars, marks, _row_names(datasets)).properties(
        width=width, height=_ROW_PX * max(1, len(datasets))
    )


def loss_curve(points: Sequence[EpochPoint], width: Width) -> Chart:
    """Training and validation loss of one model; the best validation epoch is marked."""
    rows: list[dict[str, Any]] = [
        {"epoch": point.epoch, "loss": loss, "of": name}
        for point in points
        for name, loss in (("training", point.train_loss), ("validation", point.val_loss))
        if loss is not None
    ]
    best = min((row for row in rows if row["of"] == "validation"), key=lambda row: row["loss"], default=None)
    last = max((point.epoch for point in points), default=0)
    ticks = list(range(0, last + 1, last // 6 + 1))
    x = alt.X("epoch:Q", title="epoch", axis=alt.Axis(values=ticks, format="d", grid=False))
    y = alt.Y("loss:Q", title="loss", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4))
    tooltip = ["of:N", "epoch:Q", alt.Tooltip("loss:Q", format=".4g")]
    lines = (
        alt.Chart(_data(rows))
        .mark_line(strokeWidth=2)
        .encode(
            x=x,
            y=y,
            tooltip=tooltip,
            color=alt.Color(
                "of:N",
                legend=None,
                scale=alt.Scale(
                    domain=["training", "validation"], range=[colour("graphs"), colour("accent")]
                ),
            ),
            strokeDash=alt.StrokeDash(
                "of:N",
                legend=None,
                scale=alt.Scale(domain=["training", "validation"], range=[[4, 3], [1, 0]]),
            ),
        )
    )
    dot = (
        alt.Chart(_data([best] if best else []))
        .mark_point(filled=True, size=55, opacity=1, color=colour("accent"))
        .encode(x=x, y=y, tooltip=tooltip)
    )
    return alt.layer(lines, dot).properties(width=width, height=130)


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
        alt.Chart(_data(rows))
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
        alt.Chart(_data(undefined))
        .mark_text(align="left", color=colour("muted"), fontStyle="italic", fontSize=11)
        .encode(x=alt.XDatum(low), y=y, text="text:N")
    )
    lines = (
        alt.Chart(_data([{"folder": folder} for folder in folders if folder in shown]))
        .mark_rule(color=colour("line"))
        .encode(x=alt.value(0), x2=alt.value("width"), y=y)
    )
    return alt.layer(lines, dots, empty, _row_names(folders, field="folder")).properties(
        width=width, height=_ROW_PX * max(1, len(folders))
    )


def resource_curve(
    samples: pl.DataFrame, metric: str, spans: Sequence[Span], datasets: Sequence[str], width: Width
) -> Chart | None:
    """One measured quantity over time, with the phases of each dataset as a tinted lane behind it.

    Returns:
        The chart, or None where the quantity was not measured.
    """
    points = bucket(samples, metric)
    if points.is_empty():
        return None
    scale = 1024.0 if metric.endswith("_mib") else 1.0
    total = samples[_TOTALS[metric]].max() if metric in _TOTALS else None
    peak = points["max"].max()
    top = 100.0 if metric.endswith("percent") else float(total or peak * 1.08) / scale  # type: ignore[operator, arg-type]
    rows = [
        {
            "at": _milliseconds(row["occurred_at"]),
            "time": f"{row['occurred_at']:%H:%M:%S}",  # Vega's tooltips know local time only
            "gpu": f"GPU {row['gpu_index']}" if row["gpu_index"] is not None else "machine",
            "mean": round(row["mean"] / scale, 3),
            "min": round(row["min"] / scale, 3),
            "max": round(row["max"] / scale, 3),
        }
        for row in points.to_dicts()
    ]
    x = alt.X("at:T", title="time (UTC)", scale=alt.Scale(type="utc"), axis=_time_axis())
    y = alt.Y(
        "mean:Q",
        title=RESOURCES[metric][1],
        scale=alt.Scale(domain=[0.0, top], nice=False, clamp=True),
        axis=alt.Axis(tickCount=4),
    )
    series = sorted({str(row["gpu"]) for row in rows})
    # Lanes and lines share one colour scale: two of them in one view would be merged.
    inks = [colour(_SERIES[number % len(_SERIES)]) for number in range(len(series))]
    colours = alt.Scale(domain=[*PHASE_COLOURS, *series], range=[*map(colour, PHASE_COLOURS), *inks])
    legend = None if len(series) == 1 else alt.Legend(orient="top", title=None, values=series)
    paint = alt.Color("gpu:N", legend=legend, scale=colours)
    base = alt.Chart(_data(rows)).encode(x=x, color=paint)
    band = base.mark_area(opacity=0.22).encode(y=alt.Y("min:Q", title=RESOURCES[metric][1]), y2="max:Q")
    line = base.mark_line(strokeWidth=1.6).encode(
        y=y,
        tooltip=[
            "gpu:N",
            alt.Tooltip("time:N", title="time (UTC)"),
            "min:Q",
            "mean:Q",
            "max:Q",
        ],
    )
    return alt.layer(_lanes(spans, datasets, top, colours), band, line).properties(width=width, height=120)


def _lanes(spans: Sequence[Span], datasets: Sequence[str], top: float, colours: alt.Scale) -> Chart:
    height = top / max(1, len(datasets))
    rank = {name: number for number, name in enumerate(reversed(datasets))}
    rows = [
        {
            "dataset": span.dataset,
            "phase": span.phase,
            "from": _milliseconds(span.started_at),
            "to": _milliseconds(span.ended_at),
            "low": height * rank[span.dataset],
            "high": height * (rank[span.dataset] + 1),
        }
        for span in spans
    ]
    lanes: Chart = (
        alt.Chart(_data(rows))
        .mark_rect(opacity=0.13)
        .encode(
            x="from:T",
            x2="to:T",
            y="low:Q",
            y2="high:Q",
            color=alt.Color("phase:N", legend=None, scale=colours),
            tooltip=["dataset:N", "phase:N"],
        )
    )
    return lanes


def _row_names(names: Sequence[str], field: str = "dataset") -> Chart:
    """Names above their rows: long ones need no margin, so a chart stays wide in a narrow window."""
    text: Chart = (
        alt.Chart(_data([{field: name} for name in names]))
        .mark_text(align="left", baseline="middle", dy=-13, fontSize=11, color=colour("ink"))
        .encode(x=alt.value(0), y=alt.Y(f"{field}:N", sort=list(names)), text=f"{field}:N")
    )
    return text


def _model_scale(models: Sequence[str], value: Any, channel: Any) -> Any:
    return channel(
        "model:N", legend=None, scale=alt.Scale(domain=list(models), range=[value(name) for name in models])
    )


def _time_axis() -> alt.Axis:
    return alt.Axis(grid=False, tickCount=6, labelOverlap="greedy", labelSeparation=8, labelExpr=_TIME_LABEL)


def _data(rows: Sequence[dict[str, Any]]) -> alt.InlineData:
    return alt.InlineData(values=list(rows))


def _milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1000)
