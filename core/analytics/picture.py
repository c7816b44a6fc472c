"""A plan's dashboard as one picture, for places that show no pages."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import altair as alt
import vl_convert

from core.analytics.board import Dashboard
from core.analytics.charts.base import Chart
from core.analytics.charts.detection import metric_dots
from core.analytics.charts.keys import Key, loss_keys, model_keys, phase_keys
from core.analytics.charts.losses import loss_curve
from core.analytics.charts.phases import phase_timeline
from core.analytics.charts.resources import resource_curve
from core.analytics.metrics import format_duration, fusion_verdict, metric_label
from core.analytics.telemetry import MEASURED
from core.analytics.theme import LIGHT, colour, vega_config, with_colours

Drawn: TypeAlias = Chart | alt.HConcatChart

_WIDTH = 1160
_GAP = 36


def render_png(dashboard: Dashboard) -> bytes:
    """Draw the picture, in the light theme, about 1 200 pixels wide."""
    parts = [
        _header(dashboard),
        *_timeline(dashboard),
        *_metrics(dashboard),
        *_losses(dashboard),
        *_resources(dashboard),
    ]
    picture = alt.vconcat(*parts, spacing=18, padding=20).resolve_scale(
        x="independent", y="independent", color="independent", shape="independent"
    )
    config = vega_config() | {"concat": {"spacing": 18}}
    spec = {**picture.to_dict(), "config": config}
    return bytes(vl_convert.vegalite_to_png(with_colours(spec, LIGHT), scale=1.0))


def _header(dashboard: Dashboard) -> Chart:
    results = dashboard.results
    phases = [phase for dataset in results.datasets.values() for phase in dataset.phases.values()]
    failed = sum(len(phase.failures) for phase in phases)
    figures = [
        f"{results.started_at:%Y-%m-%d %H:%M} UTC" if results.started_at else "not started",
        str(results.machine.get("device_name", "")),
        f"{format_duration(results.duration_s)}" if results.duration_s is not None else "",
        f"{sum(p.status == 'completed' for p in phases)} of {len(phases)} phases run",
        f"{failed} failed attempts" if failed else "",
    ]
    verdicts = [
        f"{name}: {fusion_verdict(results.datasets[name]).sentence()}" for name in dashboard.evaluated
    ]
    lines = ["   ·   ".join(filter(None, figures)), *verdicts]
    return _texts([(0, "")], 1).properties(
        title=alt.TitleParams(
            f"Retraining plan {results.plan_id}: {results.status}",
            subtitle=lines,
            fontSize=20,
            subtitleFontSize=13,
            subtitleColor=colour("muted"),
            subtitlePadding=6,
        )
    )


def _timeline(dashboard: Dashboard) -> Iterable[Drawn]:
    if dashboard.datasets:
        chart = phase_timeline(dashboard.spans, dashboard.datasets, _WIDTH)
        yield _legend("Phases", phase_keys(failures=True))
        yield chart


def _metrics(dashboard: Dashboard) -> Iterable[Drawn]:
    if dashboard.evaluated:
        yield _legend("Detection", model_keys(dashboard.models))
    for name in dashboard.evaluated:
        metrics = dashboard.dot_metrics(name)
        width = _columns(len(metrics))
        yield _row(
            _titled(
                metric_dots(dashboard.results.datasets[name], metric, width),
                f"{metric_label(metric)} · {name}",
                width,
            )
            for metric in metrics
        )


def _losses(dashboard: Dashboard) -> Iterable[Drawn]:
    losses = {name: dashboard.losses(name) for name in dashboard.datasets}
    if any(losses.values()):
        yield _legend("Learning", loss_keys())
    for name, models in losses.items():
        width = _columns(max(5, len(models)))
        if models:
            yield _row(
                _titled(loss_curve(points, width - 20), f"{model} · {name}", width - 20)
                for model, points in models
            )


def _resources(dashboard: Dashboard) -> Iterable[Drawn]:
    charts = [
        _titled(chart, f"{quantity.name} ({quantity.unit})", _columns(3) - 20)
        for metric, quantity in MEASURED.items()
        if (
            chart := resource_curve(
                dashboard.telemetry, metric, dashboard.spans, dashboard.datasets, _columns(3) - 20
            )
        )
    ]
    if charts:
        yield _legend("Resources", phase_keys(failures=False))
    for first in range(0, len(charts), 3):
        yield _row(charts[first : first + 3])


def _columns(number: int) -> int:
    return (_WIDTH - _GAP * (number - 1)) // max(1, number)


def _titled(chart: Chart, title: str, width: int) -> Chart:
    # A long title must not make its column wider than the others.
    return chart.properties(title=alt.TitleParams(title, limit=width))


def _row(charts: Iterable[Chart]) -> alt.HConcatChart:
    row: alt.HConcatChart = alt.hconcat(*charts, spacing=_GAP - 20).resolve_scale(
        x="independent", y="independent", color="independent", shape="independent"
    )
    return row


def _legend(title: str, keys: Sequence[Key]) -> Chart:
    rows: list[dict[str, Any]] = []
    x = 110.0
    for key in keys:
        rows.append({"x": x, "name": key.name, "ink": key.ink, "symbol": key.symbol, "filled": key.filled})
        x += 34 + 6.4 * len(key.name)
    data = alt.InlineData(values=rows)
    base = alt.Chart(data).encode(x=alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, _WIDTH])))
    plain = {"line": "stroke", "dashes": "stroke"}
    symbols = base.mark_point(size=80, strokeWidth=1.8, opacity=1).encode(
        shape=alt.Shape(
            "name:N",
            legend=None,
            scale=alt.Scale(
                domain=[key.name for key in keys], range=[plain.get(key.symbol, key.symbol) for key in keys]
            ),
        ),
        stroke=alt.Stroke("ink:N", scale=None),
        fill=alt.Fill("ink:N", scale=None),
        fillOpacity=alt.condition("datum.filled", alt.value(1), alt.value(0)),
        strokeDash=alt.condition("datum.symbol == 'dashes'", alt.value([3, 2]), alt.value([1, 0])),
    )
    names = base.mark_text(align="left", dx=10, fontSize=12, color=colour("muted")).encode(text="name:N")
    head = _texts([(0, title)], 16)
    return alt.layer(symbols, names, head).properties(width=_WIDTH, height=18)


def _texts(texts: Sequence[tuple[float, str]], size: int) -> Chart:
    chart: Chart = (
        alt.Chart(alt.InlineData(values=[{"x": x, "text": text} for x, text in texts]))
        .mark_text(align="left", fontSize=size, fontWeight="bold")
        .encode(x=alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, _WIDTH])), text="text:N")
        .properties(width=_WIDTH, height=max(1, size))
    )
    return chart
