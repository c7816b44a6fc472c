"""What all charts share: the type, rows of data, times, names above rows, and how charts are linked.

Charts over time are linked: the page sets the signals ``t0`` and ``t1`` (the time they show) and
``chosen_dataset`` and ``chosen_phase`` (empty for all) in all of them at once.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import altair as alt
from altair.utils import schemapi

from core.analytics.theme import colour

Chart: TypeAlias = alt.Chart | alt.LayerChart | alt.FacetChart
Width: TypeAlias = int | str
Window: TypeAlias = tuple[datetime, datetime]
"""The first and the last moment of a plan."""

_NAME_PX = 340
ROW_PX = 34
"""Height of a row with its name above it."""
HEAD = 1.08
"""Room above the highest tick of an axis, so that plots beside each other begin at one height."""
_TIME_LABEL = (
    "utcFormat(datum.value, {milliseconds: '%H:%M:%S.%L', seconds: '%H:%M:%S', minutes: '%H:%M', "
    "hours: '%H:%M', day: '%d %b', date: '%d %b', week: '%d %b', month: '%b', quarter: '%b', year: '%Y'})"
)
"""Vega's own choice is a 12-hour clock."""


def row_names(names: Sequence[str], field: str = "dataset") -> Chart:
    """Names above their rows: long ones need no margin, so a chart stays wide in a narrow window."""
    text: Chart = (
        alt.Chart(data([{field: name} for name in names]))
        .mark_text(align="left", baseline="middle", dy=-13, fontSize=11, color=colour("ink"), limit=_NAME_PX)
        .encode(x=alt.value(0), y=alt.Y(f"{field}:N", sort=list(names)), text=f"{field}:N")
    )
    return text


def time_axis(num_ticks: int = 6) -> alt.Axis:
    """An axis of times, UTC, on a 24-hour clock."""
    return alt.Axis(
        grid=False,
        title=None,
        tickCount=num_ticks,
        labelOverlap="greedy",
        labelSeparation=8,
        labelExpr=_TIME_LABEL,
    )


def time_x(field: str, num_ticks: int = 6) -> alt.X:
    """Times on a linked axis; the chart as a whole needs ``linked``."""
    scale = alt.Scale(type="utc", nice=False, domainMin=alt.ExprRef("t0"), domainMax=alt.ExprRef("t1"))
    return alt.X(f"{field}:T", scale=scale, axis=time_axis(num_ticks))


def linked(chart: Chart, window: Window) -> Chart:
    """Link a chart over time to all others."""
    first, last = map(milliseconds, window)
    start = {"t0": first, "t1": max(last, first + 1000), "chosen_dataset": "", "chosen_phase": ""}
    return chart.add_params(*(alt.param(name=name, value=value) for name, value in start.items()))


def picked(full: float, faded: float) -> Any:
    """An opacity: less where another dataset or phase was chosen."""
    test = (
        "(chosen_dataset === '' || datum.dataset === '' || datum.dataset === chosen_dataset) && "
        "(chosen_phase === '' || datum.phase === '' || datum.phase === chosen_phase)"
    )
    return alt.condition(test, alt.value(full), alt.value(faded))


def hovered(chart: Chart, x: str, series: str, values: Mapping[str, str], unit: str = "") -> Chart:
    """Say what the page tells of the rows named ``points`` that are nearest to the pointer.

    Args:
        chart: Any chart of lines.
        x: Field of the rows that is drawn along the x axis, ``at`` for times.
        series: Field that tells lines apart.
        values: What is told of a row: a name (or nothing) by field.
        unit: Of these values.
    """
    told = {"x": x, "series": series, "values": [[k, name] for k, name in values.items()], "unit": unit}
    return chart.properties(usermeta={"hover": told})


def digits(value: float | None) -> float | None:
    """A number as precise as anyone can see."""
    return None if value is None else float(f"{value:.4g}")


def data(rows: Sequence[dict[str, Any]], name: str | None = None) -> alt.InlineData:
    """Rows for a chart, which ``written`` puts in place; the page finds them by their name."""
    values = _Rows(rows)
    return alt.InlineData(values=values, name=name) if name else alt.InlineData(values=values)


def written(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """The specification of a chart with its rows, checked where Altair's ``debug_mode`` is on."""
    spec: dict[str, Any] = _with_rows(chart.to_dict(validate=schemapi.DEBUG_MODE))
    return spec


class _Rows(str):
    """Stands for rows while a chart is put together: Altair would copy and check each of them many times."""

    rows: list[dict[str, Any]]

    def __new__(cls, rows: Sequence[dict[str, Any]]) -> "_Rows":
        """Make a text that is the same for the same rows only."""
        self = super().__new__(cls, hashlib.sha256(json.dumps(rows).encode()).hexdigest())
        self.rows = list(rows)
        return self


def _with_rows(spec: Any) -> Any:
    if isinstance(spec, _Rows):
        return spec.rows
    if isinstance(spec, dict):
        return {key: _with_rows(inner) for key, inner in spec.items()}
    if isinstance(spec, list):
        return [_with_rows(inner) for inner in spec]
    return spec


def milliseconds(time: datetime) -> int:
    """A time as Vega has it: milliseconds since the epoch."""
    return round(time.timestamp() * 1000)
