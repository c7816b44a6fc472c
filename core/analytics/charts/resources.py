"""Measured quantities of the machine over time."""

from collections.abc import Sequence

import altair as alt

from core.analytics.charts.base import Chart, Width, data, milliseconds, time_axis
from core.analytics.charts.keys import PHASE_COLOURS
from core.analytics.telemetry import MEASURED, Telemetry
from core.analytics.theme import colour
from core.analytics.timeline import Span

_SERIES = ("accent", "gat", "student", "fusion")


def resource_curve(
    telemetry: Telemetry, metric: str, spans: Sequence[Span], datasets: Sequence[str], width: Width
) -> Chart | None:
    """One measured quantity over time, with the phases of each dataset as a tinted lane behind it.

    Returns:
        The chart, or None where the quantity was not measured.
    """
    points, quantity = telemetry.curves.get(metric), MEASURED[metric]
    if points is None:
        return None
    scale = 1024.0 if metric.endswith("_mib") else 1.0
    peak = telemetry.totals.get(metric) or float(points["max"].max()) * 1.08  # type: ignore[arg-type]
    top = 100.0 if metric.endswith("percent") else peak / scale
    rows = [
        {
            "at": milliseconds(row["occurred_at"]),
            "time": f"{row['occurred_at']:%H:%M:%S}",  # Vega's tooltips know local time only
            "gpu": f"GPU {row['gpu_index']}" if row["gpu_index"] is not None else "machine",
            "mean": round(row["mean"] / scale, 3),
            "min": round(row["min"] / scale, 3),
            "max": round(row["max"] / scale, 3),
        }
        for row in points.to_dicts()
    ]
    x = alt.X("at:T", title="time (UTC)", scale=alt.Scale(type="utc"), axis=time_axis())
    y = alt.Y(
        "mean:Q",
        title=quantity.unit,
        scale=alt.Scale(domain=[0.0, top], nice=False, clamp=True),
        axis=alt.Axis(tickCount=4),
    )
    series = sorted({str(row["gpu"]) for row in rows})
    # Lanes and lines share one colour scale: two of them in one view would be merged.
    inks = [colour(_SERIES[number % len(_SERIES)]) for number in range(len(series))]
    colours = alt.Scale(domain=[*PHASE_COLOURS, *series], range=[*map(colour, PHASE_COLOURS), *inks])
    legend = None if len(series) == 1 else alt.Legend(orient="top", title=None, values=series)
    paint = alt.Color("gpu:N", legend=legend, scale=colours)
    base = alt.Chart(data(rows)).encode(x=x, color=paint)
    band = base.mark_area(opacity=0.22).encode(y=alt.Y("min:Q", title=quantity.unit), y2="max:Q")
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
            "from": milliseconds(span.started_at),
            "to": milliseconds(span.ended_at),
            "low": height * rank[span.dataset],
            "high": height * (rank[span.dataset] + 1),
        }
        for span in spans
    ]
    lanes: Chart = (
        alt.Chart(data(rows))
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
