"""Memory that phases took, against what there was."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from core.analytics.charts.base import ROW_PX, Chart, Width, data, digits, row_names
from core.analytics.charts.keys import PHASE_COLOURS
from core.analytics.metrics import format_memory
from core.analytics.theme import colour
from core.analytics.watchdog import MemoryUse


def headroom_chart(uses: Sequence[MemoryUse], top_mib: float, width: Width) -> Chart:
    """Peak memory of each phase of a dataset as a bar within all there was; a tick is what packs might take.

    Args:
        uses: Of one dataset.
        top_mib: Where the axis ends, the same for all datasets.
        width: Of the chart.
    """
    rows: list[dict[str, Any]] = [
        {
            "row": f"{use.phase} ({'VRAM' if use.device == 'cuda' else 'RAM'})",
            "phase": use.phase,
            "peak": digits(use.peak_mib / 1024),
            "total": digits((use.total_mib or use.peak_mib) / 1024),
            "room": digits(use.room_mib / 1024) if use.room_mib is not None else None,
            "label": format_memory(use.peak_mib) + (f" · {use.share:.0%}" if use.share is not None else ""),
            "told": {
                "": f"{use.dataset} · {use.phase}",
                "peak": format_memory(use.peak_mib),
                "of": format_memory(use.total_mib),
                "free for packs": format_memory(use.room_mib) if use.room_mib is not None else "",
            },
        }
        for use in uses
    ]
    names = [str(row["row"]) for row in rows]
    x = alt.Scale(domain=[0, top_mib / 1024], nice=False)
    y = alt.Y(
        "row:N", sort=names, axis=None, scale=alt.Scale(domain=names, paddingInner=0.66, paddingOuter=0.45)
    )
    base = alt.Chart(data(rows)).encode(y=y)
    axis = alt.Axis(title=None, tickCount=5)
    there = base.mark_bar(cornerRadius=2, color=colour("line"), tooltip=alt.ExprRef("datum.told")).encode(
        x=alt.X("total:Q", scale=x, axis=axis)
    )
    taken = base.mark_bar(cornerRadius=2, tooltip=alt.ExprRef("datum.told")).encode(
        x=alt.X("peak:Q", scale=x, axis=axis),
        color=alt.Color(
            "phase:N",
            legend=None,
            scale=alt.Scale(domain=list(PHASE_COLOURS), range=[*map(colour, PHASE_COLOURS)]),
        ),
    )
    room = base.mark_tick(thickness=2, color=colour("ink"), size=16).encode(
        x=alt.X("room:Q", scale=x, axis=axis)
    )
    labels = base.mark_text(
        align="right", baseline="middle", dy=-13, fontSize=11, color=colour("muted")
    ).encode(x=alt.value("width"), text="label:N")
    return alt.layer(there, taken, room, labels, row_names(names, field="row")).properties(
        width=width, height=ROW_PX * max(1, len(rows))
    )
