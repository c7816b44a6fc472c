"""How models learned."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from core.analytics.charts.base import Chart, Width, data
from core.analytics.theme import colour
from core.analytics.timeline import EpochPoint


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
        alt.Chart(data(rows))
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
        alt.Chart(data([best] if best else []))
        .mark_point(filled=True, size=55, opacity=1, color=colour("accent"))
        .encode(x=x, y=y, tooltip=tooltip)
    )
    return alt.layer(lines, dot).properties(width=width, height=130)
