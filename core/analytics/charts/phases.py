"""Phases over time."""

from collections.abc import Sequence

import altair as alt

from core.analytics.charts.base import ROW_PX, Chart, Width, data, milliseconds, row_names, time_axis
from core.analytics.charts.keys import PHASE_COLOURS
from core.analytics.metrics import format_duration
from core.analytics.theme import colour
from core.analytics.timeline import Span


def phase_timeline(spans: Sequence[Span], datasets: Sequence[str], width: Width) -> Chart:
    """Attempts of phases over time, a row per dataset; failed attempts are red and say why."""
    rows = [
        {
            "dataset": span.dataset,
            "phase": span.phase,
            "attempt": span.attempt,
            "from": milliseconds(span.started_at),
            "to": milliseconds(span.ended_at),
            "duration": format_duration(span.duration_s),
            "outcome": span.outcome,
            "paint": "failed" if span.outcome == "failed" else span.phase,
            "error": span.error,
            "mark": {"failed": "✕", "interrupted": "⏸", "running": "…"}.get(span.outcome, ""),
        }
        for span in spans
    ]
    base = alt.Chart(data(rows)).encode(
        x=alt.X("from:T", title="time (UTC)", scale=alt.Scale(type="utc"), axis=time_axis()),
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
    return alt.layer(bars, marks, row_names(datasets)).properties(
        width=width, height=ROW_PX * max(1, len(datasets))
    )
