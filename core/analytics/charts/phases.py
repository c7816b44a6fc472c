"""Phases over time, and what befell them."""

from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt

from core.analytics.charts.base import (
    Chart,
    Width,
    Window,
    data,
    linked,
    milliseconds,
    picked,
    row_names,
    time_x,
)
from core.analytics.charts.keys import MARK_COLOURS, MARK_SHAPES, PHASE_COLOURS
from core.analytics.metrics import format_duration
from core.analytics.theme import colour
from core.analytics.timeline import Mark, Span, gather_marks

_NUM_TICKS = 12
_ROW_PX = 46
_PLACES = 90
"""Marks that lie closer are drawn as one."""
_LETTER_PX = 6.2


def phase_timeline(
    spans: Sequence[Span], marks: Iterable[Mark], datasets: Sequence[str], window: Window, width: Width
) -> Chart:
    """Attempts of phases over time, a row per dataset; what is not as planned can be told without colours.

    Failed attempts have a cross, interrupted ones a dashed border, later ones their number.
    """
    total_s = max(1.0, (window[1] - window[0]).total_seconds())
    rows = [
        {
            "dataset": span.dataset,
            "phase": span.phase,
            "from": milliseconds(span.started_at),
            "to": milliseconds(span.ended_at),
            "outcome": span.outcome,
            "paint": "failed" if span.outcome == "failed" else span.phase,
            "label": _label(span),
            "short": _short(span),
            "text": _fitting(span, width, total_s),
            "told": {
                "": f"{span.dataset} · {span.phase} · attempt {span.attempt}",
                span.outcome: format_duration(span.duration_s),
                "error": span.error[:300],
            },
        }
        for span in spans
    ]
    y = alt.Y(
        "dataset:N",
        sort=list(datasets),
        title=None,
        axis=None,
        scale=alt.Scale(domain=list(datasets), paddingInner=0.66, paddingOuter=0.45),
    )
    base = alt.Chart(data(rows, "spans"))
    bars = base.mark_bar(
        cornerRadius=2, clip=True, strokeWidth=1.2, tooltip=alt.ExprRef("datum.told"), cursor="pointer"
    ).encode(
        x=time_x("from", _NUM_TICKS),
        x2="to:T",
        y=y,
        color=alt.Color(
            "paint:N",
            legend=None,
            scale=alt.Scale(
                domain=[*PHASE_COLOURS, "failed"], range=[*map(colour, PHASE_COLOURS), colour("bad")]
            ),
        ),
        stroke=alt.condition(
            "datum.outcome === 'interrupted' || datum.outcome === 'running'",
            alt.value(colour("ink")),
            alt.value(colour("surface")),
        ),
        strokeDash=alt.condition("datum.outcome === 'interrupted'", alt.value([4, 3]), alt.value([1, 0])),
        fillOpacity=alt.condition(
            "datum.outcome === 'interrupted' || datum.outcome === 'running'", alt.value(0.55), alt.value(1)
        ),
        opacity=picked(1, 0.25),
    )
    names = base.mark_text(
        baseline="middle", align="left", fontSize=10.5, clip=True, color=colour("surface"), **_place(width)
    ).encode(
        y=y, opacity=picked(1, 0.25), **({} if width == "container" else {"x": time_x("from", _NUM_TICKS)})
    )
    return linked(
        alt.layer(bars, names, *_marks(marks, datasets, y), row_names(datasets)).properties(
            width=width, height=_ROW_PX * max(1, len(datasets))
        ),
        window,
    )


def _marks(marks: Iterable[Mark], datasets: Sequence[str], y: alt.Y) -> list[Chart]:
    shown = [
        (mark, count, dataset)
        for mark, count in gather_marks((m for m in marks if m.kind != "failure"), _PLACES)
        for dataset in ([mark.dataset] if mark.dataset else datasets)
    ]
    if not shown:
        return []
    symbols: Chart = (
        alt.Chart(data([mark_row(mark, count) | {"dataset": dataset} for mark, count, dataset in shown]))
        .mark_point(filled=True, size=46, opacity=1, yOffset=14, clip=True, tooltip=alt.ExprRef("datum.told"))
        .encode(
            x=time_x("at", _NUM_TICKS), y=y, shape=mark_shape(), color=mark_colour(), opacity=picked(1, 0.25)
        )
    )
    return [symbols]


def mark_row(mark: Mark, count: int) -> dict[str, object]:
    """A mark, or several close to each other, as a row."""
    more = f"and {count - 1} more alike" if count > 1 else ""
    where = " · ".join(filter(None, (mark.dataset, mark.phase)))
    return {
        "at": milliseconds(mark.at),
        "dataset": mark.dataset,
        "phase": mark.phase,
        "kind": mark.kind,
        "ink": MARK_COLOURS[mark.kind],
        "told": {"": where, f"{mark.at:%H:%M:%S}": mark.text[:300], " ": more},
    }


def mark_shape() -> alt.Shape:
    """The symbol of each kind of mark."""
    return alt.Shape(
        "kind:N", legend=None, scale=alt.Scale(domain=list(MARK_SHAPES), range=list(MARK_SHAPES.values()))
    )


def mark_colour() -> alt.Color:
    """The colour of each kind of mark; phases and marks are coloured in one chart, so it has no scale."""
    return alt.Color("ink:N", legend=None, scale=None)


def _label(span: Span) -> str:
    words = [span.phase]
    if span.attempt > 1:
        words.append(f"attempt {span.attempt}")
    if span.outcome in ("interrupted", "running"):
        words.append(span.outcome)
    return ("✕ " if span.outcome == "failed" else "") + " · ".join(words)


def _short(span: Span) -> str:
    if span.outcome == "failed":
        return "✕"
    return f"{span.attempt}" if span.attempt > 1 else ""


def _fitting(span: Span, width: Width, total_s: float) -> str:
    """What fits into a bar of a picture; a page finds that out itself."""
    if isinstance(width, str):
        return ""
    room = span.duration_s / total_s * width / _LETTER_PX - 1
    return next((text for text in (_label(span), _short(span)) if text and len(text) < room), "")


def _place(width: Width) -> dict[str, Any]:
    """Where the text of a bar begins, and which one: in a page as much as can be seen of the bar."""
    if width != "container":
        return {"dx": 4, "text": alt.ExprRef("datum.text")}
    begin = "max(0, scale('x', datum.from))"
    room = f"((min(width, scale('x', datum.to)) - {begin}) / {_LETTER_PX} - 1)"
    text = f"length(datum.label) < {room} ? datum.label : length(datum.short) < {room} ? datum.short : ''"
    return {"x": alt.ExprRef(f"{begin} + 4"), "text": alt.ExprRef(text)}
