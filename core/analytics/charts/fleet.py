"""All plans over time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import altair as alt

from core.analytics.charts.base import Chart, Width, data, milliseconds, time_axis
from core.analytics.charts.keys import Key
from core.analytics.fleet import Columns
from core.analytics.metrics import format_duration
from core.analytics.plan_summary import PlanSummary
from core.analytics.theme import colour

STATUSES = {
    "completed": ("good", "circle"),
    "failed": ("bad", "cross"),
    "interrupted": ("warn", "square"),
    "unfinished": ("accent", "triangle-up"),
}
"""Colour and symbol by status of a plan."""
_KINDS = {
    "cuda_oom": "evaluation",
    "host_oom": "gat",
    "fragmentation": "warn",
    "hang": "fusion",
    "cuda_error": "accent",
    "data_error": "student",
    "killed": "graphs",
    "bug": "bad",
}
_HEIGHT = 150


def dashboard_link(plan_id: str) -> str:
    """Where a plan's dashboard lies, seen from another one's."""
    return "./" + quote(f"{plan_id}_dashboard.html", safe="")


def plan_dots(plans: Sequence[PlanSummary], this: str, width: Width) -> Chart:
    """A dot per plan: when it began and how long it took; a click opens its dashboard."""
    rows = [
        {
            "began": milliseconds(plan.began_at),
            "hours": plan.worked_s / 3600,
            "status": plan.status,
            "plan": plan.plan_id,
            "took": format_duration(plan.worked_s),
            "this": plan.plan_id == this,
            "link": "" if plan.plan_id == this else dashboard_link(plan.plan_id),
        }
        for plan in plans
    ]
    domain = list(STATUSES)
    base = alt.Chart(data(rows)).encode(
        x=alt.X("began:T", title="began (UTC)", scale=alt.Scale(type="utc", padding=14), axis=time_axis()),
        y=alt.Y("hours:Q", title="hours", axis=alt.Axis(tickCount=4), scale=alt.Scale(zero=True, padding=8)),
        tooltip=["plan:N", "status:N", alt.Tooltip("began:T", format="%Y-%m-%d %H:%M"), "took:N"],
    )
    ring = (
        base.transform_filter("datum.this")
        .mark_point(size=230, strokeWidth=1.5, opacity=1, color=colour("ink"))
        .encode(shape=alt.value("circle"))
    )
    dots = base.mark_point(filled=True, size=62, opacity=0.9).encode(
        color=_scaled("status", {name: ink for name, (ink, _) in STATUSES.items()}),
        shape=alt.Shape(
            "status:N",
            legend=None,
            scale=alt.Scale(domain=domain, range=[symbol for _, symbol in STATUSES.values()]),
        ),
        href="link:N",
    )
    return alt.layer(ring, dots).properties(width=width, height=_HEIGHT)


def status_bars(columns: Columns, width: Width) -> Chart:
    """Plans per period, by status."""
    rows = [
        {columns.each: column.name, "status": status, "plans": num}
        for column in columns.columns
        for status in STATUSES
        if (num := sum(plan.status == status for plan in column.plans))
    ]
    inks = {name: ink for name, (ink, _) in STATUSES.items()}
    return _stacked(columns, rows, "status", "plans", inks, width)


def failure_bars(columns: Columns, width: Width) -> Chart:
    """Failed attempts by class; there must be some."""
    rows = [
        {columns.each: column.name, "class": kind, "attempts": num}
        for column in columns.columns
        for kind, num in sorted(column.failures.items())
    ]
    inks = kind_inks({str(row["class"]): 1 for row in rows})
    return _stacked(columns, rows, "class", "attempts", inks, width)


def amount_bars(columns: Columns, width: Width, *, cost: bool) -> Chart:
    """Time worked, or what it cost."""
    amount = "cost" if cost else "hours"
    rows = [
        {columns.each: column.name, amount: round(column.cost if cost else column.hours, 4)}
        for column in columns.columns
    ]
    bars: Chart = (
        alt.Chart(data(rows))
        .mark_bar(**_bar(columns), color=colour("accent"), cornerRadiusEnd=2)
        .encode(
            x=_x(columns),
            y=alt.Y(f"{amount}:Q", title=amount, axis=alt.Axis(tickCount=4)),
            tooltip=[f"{columns.each}:N", alt.Tooltip(f"{amount}:Q", format=",.2f")],
        )
        .properties(width=width, height=_HEIGHT)
    )
    return bars


def metric_trend(points: Sequence[Mapping[str, Any]], lowest: float, width: Width) -> Chart:
    """The MCC of one dataset over plans.

    Args:
        points: Rows with ``began`` (milliseconds), ``mcc``, ``plan``; ``plans`` of a mean, or ``link``.
        lowest: Lower end of the axis, the same for all datasets.
        width: Of the chart.
    """
    base = alt.Chart(data([dict(point) for point in points])).encode(
        x=alt.X("began:T", title=None, scale=alt.Scale(type="utc", padding=8), axis=time_axis()),
        y=alt.Y(
            "mcc:Q",
            title="MCC",
            scale=alt.Scale(domain=[lowest, 1.0]),
            axis=alt.Axis(tickCount=4, format=".2~f"),
        ),
        tooltip=["plan:N", alt.Tooltip("began:T", format="%Y-%m-%d"), alt.Tooltip("mcc:Q", format=".3f")],
    )
    line = base.mark_line(strokeWidth=1.6, color=colour("accent"))
    dots = base.mark_point(filled=True, size=30, opacity=1, color=colour("accent")).encode(href="link:N")
    return alt.layer(line, dots).properties(width=width, height=110)


def status_keys(plans: Sequence[PlanSummary]) -> list[Key]:
    """What symbols of plans mean."""
    found = {plan.status for plan in plans}
    return [Key(name, colour(ink), symbol) for name, (ink, symbol) in STATUSES.items() if name in found]


def kind_keys(kinds: Mapping[str, int]) -> list[Key]:
    """What colours of failure classes mean."""
    return [Key(f"{kind} ({kinds[kind]})", colour(ink), "square") for kind, ink in kind_inks(kinds).items()]


def kind_inks(kinds: Mapping[str, int]) -> dict[str, str]:
    """Colour by failure class, known classes first."""
    known = [kind for kind in _KINDS if kind in kinds]
    return {kind: _KINDS.get(kind, "baseline") for kind in [*known, *sorted(set(kinds) - set(known))]}


def _stacked(
    columns: Columns,
    rows: Sequence[dict[str, Any]],
    of: str,
    count: str,
    inks: Mapping[str, str],
    width: Width,
) -> Chart:
    order = {name: number for number, name in enumerate(inks)}
    totals = Counter[str]()
    for row in rows:
        totals[row[columns.each]] += row[count]
    ticks = alt.Axis(tickCount=min(4, max(totals.values())), format="d")
    bars: Chart = (
        alt.Chart(data([{**row, "order": order[str(row[of])]} for row in rows]))
        .mark_bar(**_bar(columns), stroke=colour("surface"), strokeWidth=0.8)
        .encode(
            x=_x(columns),
            y=alt.Y(f"sum({count}):Q", title=count, axis=ticks),
            color=_scaled(of, inks),
            order="order:Q",
            tooltip=[f"{columns.each}:N", f"{of}:N", f"{count}:Q"],
        )
        .properties(width=width, height=_HEIGHT)
    )
    return bars


def _bar(columns: Columns) -> dict[str, Any]:
    """A few bars stay slim."""
    return {"size": 36} if len(columns.columns) <= 6 else {}


def _x(columns: Columns) -> alt.X:
    names = [column.name for column in columns.columns]
    axis = alt.Axis(labelAngle=0, labelOverlap="greedy", labelSeparation=8, ticks=False)
    return alt.X(f"{columns.each}:N", title=None, sort=None, scale=alt.Scale(domain=names), axis=axis)


def _scaled(field: str, inks: Mapping[str, str]) -> alt.Color:
    scale = alt.Scale(domain=list(inks), range=[colour(ink) for ink in inks.values()])
    return alt.Color(f"{field}:N", legend=None, scale=scale)
