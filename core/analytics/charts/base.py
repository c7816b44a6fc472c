"""What all charts share: the type, rows of data, times, names above rows."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeAlias

import altair as alt

from core.analytics.theme import colour

Chart: TypeAlias = alt.Chart | alt.LayerChart | alt.FacetChart
Width: TypeAlias = int | str

ROW_PX = 34
"""Height of a row with its name above it."""
_TIME_LABEL = (
    "utcFormat(datum.value, {milliseconds: '%H:%M:%S.%L', seconds: '%H:%M:%S', minutes: '%H:%M', "
    "hours: '%H:%M', day: '%d %b', date: '%d %b', week: '%d %b', month: '%b', quarter: '%b', year: '%Y'})"
)
"""Vega's own choice is a 12-hour clock."""


def row_names(names: Sequence[str], field: str = "dataset") -> Chart:
    """Names above their rows: long ones need no margin, so a chart stays wide in a narrow window."""
    text: Chart = (
        alt.Chart(data([{field: name} for name in names]))
        .mark_text(align="left", baseline="middle", dy=-13, fontSize=11, color=colour("ink"))
        .encode(x=alt.value(0), y=alt.Y(f"{field}:N", sort=list(names)), text=f"{field}:N")
    )
    return text


def time_axis() -> alt.Axis:
    """An axis of times, UTC, on a 24-hour clock."""
    return alt.Axis(grid=False, tickCount=6, labelOverlap="greedy", labelSeparation=8, labelExpr=_TIME_LABEL)


def data(rows: Sequence[dict[str, Any]]) -> alt.InlineData:
    """Rows for a chart."""
    return alt.InlineData(values=list(rows))


def milliseconds(time: datetime) -> int:
    """A time as Vega has it: milliseconds since the epoch."""
    return round(time.timestamp() * 1000)
