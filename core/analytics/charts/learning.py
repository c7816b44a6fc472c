"""How models learned: losses, metrics and throughput over epochs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair as alt

from core.analytics.charts.base import HEAD, Chart, Width, data, digits, hovered
from core.analytics.charts.keys import model_colour, model_dash
from core.analytics.epochs import thin
from core.analytics.theme import colour
from core.analytics.timeline import EpochPoint

HEIGHT_PX = 130
_WIDE_RANGE = 30.0
"""From the lowest to the highest value of a chart, above which its scale is logarithmic."""
_LOSSES: Mapping[str, Callable[[EpochPoint], float | None]] = {
    "training": lambda point: point.train_loss,
    "validation": lambda point: point.val_loss,
}


def loss_curve(points: Sequence[EpochPoint], width: Width) -> Chart:
    """Training and validation loss of one model; the best validation epoch is marked."""
    rows: list[dict[str, Any]] = []
    for name, loss in _LOSSES.items():
        known = [(point.epoch, value) for point in points if (value := loss(point)) is not None]
        rows += [{"epoch": n, "loss": digits(v), "of": name} for n, v in thin(known, lambda pair: pair[1])]
    best = min((row for row in rows if row["of"] == "validation"), key=lambda row: row["loss"], default=None)
    x = _epochs(max((point.epoch for point in points), default=0))
    y = alt.Y("loss:Q", scale=_scale([row["loss"] for row in rows]), axis=alt.Axis(tickCount=4, title=None))
    of = list(_LOSSES)
    lines = (
        alt.Chart(data(rows, "points"))
        .mark_line(strokeWidth=2, point=_dots(points))
        .encode(
            x=x,
            y=y,
            color=alt.Color(
                "of:N",
                legend=None,
                scale=alt.Scale(domain=of, range=[colour("graphs"), colour("accent")]),
            ),
            strokeDash=alt.StrokeDash(
                "of:N", legend=None, scale=alt.Scale(domain=of, range=[[4, 3], [1, 0]])
            ),
        )
    )
    dot = (
        alt.Chart(data([best] if best else []))
        .mark_point(filled=True, size=55, opacity=1, color=colour("accent"))
        .encode(x=x, y=y)
    )
    chart = alt.layer(lines, dot).properties(width=width, height=HEIGHT_PX)
    return hovered(chart, "epoch", "of", {"loss": ""})


def metric_curves(models: Sequence[tuple[str, Sequence[EpochPoint]]], width: Width) -> Chart | None:
    """MCC on validation of all models of a dataset that have one."""
    return _curves(models, lambda point: point.val_metric, "", width, domain=(0.0, 1.0))


def throughput_curves(models: Sequence[tuple[str, Sequence[EpochPoint]]], width: Width) -> Chart | None:
    """Graphs per second in training of all models of a dataset."""
    return _curves(models, lambda point: point.graphs_per_s, "graphs/s", width)


def _curves(
    models: Sequence[tuple[str, Sequence[EpochPoint]]],
    value: Callable[[EpochPoint], float | None],
    unit: str,
    width: Width,
    domain: tuple[float, float] | None = None,
) -> Chart | None:
    rows: list[dict[str, Any]] = []
    for model, points in models:
        known = [(point.epoch, v) for point in points if (v := value(point)) is not None]
        rows += [{"epoch": n, "value": digits(v), "of": model} for n, v in thin(known, lambda pair: pair[1])]
    if not rows:
        return None
    values = [row["value"] for row in rows]
    shown = list(dict.fromkeys(row["of"] for row in rows))
    scale = _scale(values)
    if domain:
        scale = alt.Scale(domain=[min(domain[0], *values), max(domain[1], *values) * HEAD], nice=False)
    elif not isinstance(scale.type, str):
        scale = alt.Scale(domain=[0, max(values) * HEAD or 1.0], nice=False)
    lines = (
        alt.Chart(data(rows, "points"))
        .mark_line(strokeWidth=1.8, point=_dots(models[0][1]))
        .encode(
            x=_epochs(max(row["epoch"] for row in rows)),
            y=alt.Y("value:Q", scale=scale, axis=alt.Axis(tickCount=4, title=None)),
            color=alt.Color(
                "of:N",
                legend=None,
                scale=alt.Scale(domain=shown, range=[model_colour(name) for name in shown]),
            ),
            strokeDash=alt.StrokeDash(
                "of:N",
                legend=None,
                scale=alt.Scale(domain=shown, range=[model_dash(name) for name in shown]),
            ),
        )
    )
    chart = alt.layer(lines).properties(width=width, height=HEIGHT_PX)
    return hovered(chart, "epoch", "of", {"value": ""}, unit)


def _epochs(last: int) -> alt.X:
    ticks = list(range(0, last + 1, last // 6 + 1))
    axis = alt.Axis(values=ticks, format="d", grid=False, title=None)
    return alt.X("epoch:Q", scale=alt.Scale(domain=[0, max(1, last)], nice=False), axis=axis)


def _scale(values: Sequence[float]) -> alt.Scale:
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low > 0 and high / low > _WIDE_RANGE:
        return alt.Scale(type="log", nice=False)
    room = (high - low or abs(high) or 1.0) * (HEAD - 1)
    return alt.Scale(domain=[low - room, high + room], nice=False)


def _dots(points: Sequence[EpochPoint]) -> bool:
    """A line of one epoch would not be seen."""
    return len(points) < 3
