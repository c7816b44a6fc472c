"""Where the time of training went."""

from collections.abc import Sequence

import altair as alt

from core.analytics.charts.base import (
    Chart,
    Width,
    Window,
    data,
    digits,
    linked,
    milliseconds,
    picked,
    time_x,
)
from core.analytics.charts.keys import USE_COLOURS
from core.analytics.epochs import TimeUse
from core.analytics.metrics import format_duration
from core.analytics.theme import colour

_NUM_TICKS = 12
_ROW_PX = 56
_BAR = 0.64
"""Share of a row that a bar of 100 % takes."""


def time_use_chart(slices: Sequence[TimeUse], datasets: Sequence[str], window: Window, width: Width) -> Chart:
    """Shares of waiting, computing and validating of each epoch over time, a row per dataset."""
    rank = {name: number for number, name in enumerate(datasets)}
    rows = []
    for use in slices:
        bottom = rank[use.dataset] + 1.0
        several = use.first_epoch != use.last_epoch
        epochs = f"epoch {use.first_epoch}" + (f" to {use.last_epoch}" if several else "")
        told = {"": f"{use.dataset} · {use.model} · {epochs}", "took": format_duration(use.total_s)}
        for name, seconds in zip(
            USE_COLOURS, (use.waiting_s, use.computing_s, use.validating_s), strict=True
        ):
            share = seconds / use.total_s if use.total_s else 0.0
            if share == 0:
                continue
            most = f", at most {use.most_waiting:.1%}" if name == "waiting" and several else ""
            rows.append(
                {
                    "dataset": use.dataset,
                    "phase": use.phase,
                    "from": milliseconds(use.started_at),
                    "to": milliseconds(use.ended_at),
                    "low": digits(bottom),
                    "high": digits(bottom - share * _BAR),
                    "use": name,
                    "told": told | {name: f"{share:.1%}{most}"},
                }
            )
            bottom -= share * _BAR
    y = alt.Scale(domain=[0, len(datasets)], reverse=True, nice=False, zero=False)
    bars = (
        alt.Chart(data(rows))
        .mark_rect(clip=True, tooltip=alt.ExprRef("datum.told"))
        .encode(
            x=time_x("from", _NUM_TICKS),
            x2="to:T",
            y=alt.Y("low:Q", scale=y, axis=None),
            y2="high:Q",
            color=alt.Color(
                "use:N",
                legend=None,
                scale=alt.Scale(domain=list(USE_COLOURS), range=list(USE_COLOURS.values())),
            ),
            opacity=picked(1, 0.25),
        )
    )
    ground = (
        alt.Chart(data([{"low": rank[name] + 1.0} for name in datasets]))
        .mark_rule(color=colour("line"))
        .encode(y=alt.Y("low:Q", scale=y, axis=None))
    )
    names = (
        alt.Chart(data([{"name": name, "at": rank[name] + (1 - _BAR) / 2} for name in datasets]))
        .mark_text(align="left", baseline="middle", fontSize=11, color=colour("ink"))
        .encode(x=alt.value(0), y=alt.Y("at:Q", scale=y, axis=None), text="name:N")
    )
    chart = alt.layer(ground, bars, names).properties(width=width, height=_ROW_PX * max(1, len(datasets)))
    return linked(chart, window)
