"""Measured quantities of the machine over time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import altair as alt
import polars as pl

from core.analytics.charts.base import (
    HEAD,
    Chart,
    Width,
    Window,
    data,
    digits,
    hovered,
    linked,
    milliseconds,
    picked,
    time_x,
)
from core.analytics.charts.keys import PHASE_COLOURS
from core.analytics.charts.phases import mark_colour, mark_row, mark_shape
from core.analytics.telemetry import MEASURED, Telemetry
from core.analytics.theme import colour
from core.analytics.timeline import LimitPoint, Mark, Span, gather_marks

_SERIES = ("accent", "gat", "student", "fusion")
_DASHES = ([1, 0], [6, 3], [2, 2])
_PLACES = 40
"""Marks that lie closer are drawn as one."""
_SCALES = {"_mib": 1024.0, "_bytes_per_s": 2.0**20}
"""By what a column is divided to be in the unit that people read, by its ending."""
HEIGHT_PX = 118


@dataclass(frozen=True)
class Backdrop:
    """What lies behind every chart over time.

    Attributes:
        spans: Attempts of phases, drawn as a tinted lane per dataset.
        marks: What befell the plan.
        datasets: In the order of the timeline.
        window: The plan's first and last moment.
    """

    spans: Sequence[Span]
    marks: Sequence[Mark]
    datasets: Sequence[str]
    window: Window


def resource_curve(telemetry: Telemetry, metric: str, backdrop: Backdrop, width: Width) -> Chart | None:
    """One measured quantity over time; phases and what befell them are behind it.

    Returns:
        The chart, or None where the quantity was not measured.
    """
    points = telemetry.curves.get(metric)
    if points is None:
        return None
    quantity = MEASURED[metric]
    scale = next((by for ending, by in _SCALES.items() if metric.endswith(ending)), 1.0)
    peak = telemetry.totals.get(metric) or float(points["max"].max())  # type: ignore[arg-type]
    top = 100.0 if metric.endswith("percent") else peak / scale or 1.0
    rows = _rows(points, scale)
    base = alt.Chart(data(rows, "points"))
    series = sorted({str(row["gpu"]) for row in rows})
    y = alt.Y(
        "mean:Q",
        scale=alt.Scale(domain=[0.0, top * HEAD], nice=False, clamp=True),
        axis=alt.Axis(tickCount=4, title=None),
    )
    # Lanes and lines share one colour scale: two of them in one view would be merged.
    colours = _colours(series)
    legend = None if len(series) == 1 else alt.Legend(orient="top", title=None, values=series)
    paint, dash = alt.Color("gpu:N", legend=legend, scale=colours), _dash(series)
    band = base.mark_area(opacity=0.25, clip=True, line=False).encode(
        x=time_x("at"), y=alt.Y("low:Q", title=None), y2="high:Q", color=paint
    )
    line = base.mark_line(strokeWidth=1.6, clip=True).encode(
        x=time_x("at"), y=y, color=paint, strokeDash=dash
    )
    chart = _over(backdrop, [alt.layer(band, line)], top, width, colours)
    return hovered(chart, "at", "gpu", {"mean": "", "low": "lowest", "high": "highest"}, quantity.unit)


def limit_curve(limits: Sequence[LimitPoint], backdrop: Backdrop, width: Width) -> Chart:
    """How many graphs a pack of one model might hold over time."""
    end = max(backdrop.window[1], limits[-1].at)
    steps = [(point.at, point.num_graphs, point.reason.replace("_", " ")) for point in limits]
    steps.append((end, limits[-1].num_graphs, "at the end"))
    rows: list[dict[str, Any]] = [{"at": milliseconds(at), "limit": n, "of": of} for at, n, of in steps]
    top = max(row["limit"] for row in rows) or 1.0
    line = (
        alt.Chart(data(rows, "points"))
        .mark_line(interpolate="step-after", strokeWidth=1.8, clip=True, color=colour("accent"))
        .encode(
            x=time_x("at"),
            y=alt.Y(
                "limit:Q",
                scale=alt.Scale(domain=[0, top * HEAD], nice=False),
                axis=alt.Axis(tickCount=4, title=None),
            ),
        )
    )
    own = [mark for mark in backdrop.marks if mark.phase in ("", limits[-1].phase)]
    framed = Backdrop(backdrop.spans, own, backdrop.datasets, backdrop.window)
    return hovered(_over(framed, [line], top, width, _colours([])), "at", "of", {"limit": ""}, "graphs")


def _over(backdrop: Backdrop, layers: Iterable[Chart], top: float, width: Width, colours: alt.Scale) -> Chart:
    chart = alt.layer(_lanes(backdrop, top, colours), *layers, *_marks(backdrop))
    return linked(chart.properties(width=width, height=HEIGHT_PX), backdrop.window)


def _rows(points: pl.DataFrame, scale: float) -> list[dict[str, Any]]:
    """Rows of the curve; where nothing was measured for long, one without a value breaks the line."""
    rows: list[dict[str, Any]] = []
    steps = points["occurred_at"].diff().drop_nulls()
    usual = steps.filter(steps > timedelta(0)).median()
    gap_s = 4 * usual.total_seconds() if isinstance(usual, timedelta) else 0.0
    before: dict[str, Any] | None = None
    for row in points.to_dicts():
        name = f"GPU {row['gpu_index']}" if row["gpu_index"] is not None else "machine"
        at = row["occurred_at"]
        if before and before["gpu_index"] == row["gpu_index"]:
            missing_s = (at - before["occurred_at"]).total_seconds()
            if gap_s and missing_s > gap_s:
                middle = milliseconds(before["occurred_at"]) + 1
                rows.append({"at": middle, "gpu": name, "mean": None, "low": None, "high": None})
        before = row
        values = {key: digits(row[column] / scale) for key, column in _COLUMNS.items()}
        rows.append({"at": milliseconds(at), "gpu": name, **values})
    return rows


_COLUMNS = {"mean": "mean", "low": "min", "high": "max"}


def _colours(series: Sequence[str]) -> alt.Scale:
    inks = [colour(_SERIES[number % len(_SERIES)]) for number in range(len(series))]
    return alt.Scale(domain=[*PHASE_COLOURS, *series], range=[*map(colour, PHASE_COLOURS), *inks])


def _dash(series: Sequence[str]) -> alt.StrokeDash:
    dashes = [_DASHES[number // len(_SERIES) % len(_DASHES)] for number in range(len(series))]
    scale = alt.Scale(domain=list(series), range=dashes)
    return alt.StrokeDash("gpu:N", legend=None, scale=scale)


def _lanes(backdrop: Backdrop, top: float, colours: alt.Scale) -> Chart:
    height = top * HEAD / max(1, len(backdrop.datasets))
    rank = {name: number for number, name in enumerate(reversed(backdrop.datasets))}
    rows = [
        {
            "dataset": span.dataset,
            "phase": span.phase,
            "from": milliseconds(span.started_at),
            "to": milliseconds(span.ended_at),
            "bottom": height * rank[span.dataset],
            "top": height * (rank[span.dataset] + 1),
        }
        for span in backdrop.spans
    ]
    lanes: Chart = (
        alt.Chart(data(rows))
        .mark_rect(clip=True)
        .encode(
            x=time_x("from"),
            x2="to:T",
            y=alt.Y("bottom:Q", title=None),
            y2="top:Q",
            color=alt.Color("phase:N", legend=None, scale=colours),
            opacity=picked(0.15, 0.03),
        )
    )
    return lanes


def _marks(backdrop: Backdrop) -> list[Chart]:
    rows = [mark_row(mark, count) for mark, count in gather_marks(backdrop.marks, _PLACES)]
    if not rows:
        return []
    base = alt.Chart(data(rows)).encode(x=time_x("at"), color=mark_colour())
    rules = base.mark_rule(clip=True, strokeDash=[1, 3]).encode(opacity=picked(0.55, 0.1))
    symbols = base.mark_point(filled=True, size=34, y=5, clip=True, tooltip=alt.ExprRef("datum.told")).encode(
        shape=mark_shape(), opacity=picked(1, 0.15)
    )
    return [rules, symbols]
