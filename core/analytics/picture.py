"""A plan's dashboard as one picture, for places that show no pages."""

import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

import altair as alt
import vl_convert

from core.analytics.board import Dashboard
from core.analytics.charts.base import Chart, written
from core.analytics.charts.detection import metric_dots
from core.analytics.charts.keys import Key, line_keys, loss_keys, mark_keys, model_keys, phase_keys
from core.analytics.charts.learning import loss_curve, metric_curves
from core.analytics.charts.phases import phase_timeline
from core.analytics.charts.resources import Backdrop, resource_curve
from core.analytics.metrics import format_duration, fusion_verdict, metric_label
from core.analytics.telemetry import MEASURED
from core.analytics.theme import LIGHT, colour, vega_config, with_colours
from core.analytics.timeline import Mark, Span

Drawn: TypeAlias = dict[str, Any]
"""A specification: put together by Altair, charts would be copied as a whole, rows and all, several times."""
Thing = TypeVar("Thing", Span, Mark)

_PNG = b"\x89PNG\r\n\x1a\n"
_WIDTH = 1160
_GAP = 46
_UNDRAWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_CHANNELS = ("x", "y", "color", "shape", "strokeDash", "fill", "stroke")
_INDEPENDENT = {"scale": dict.fromkeys(_CHANNELS, "independent")}
_MANY = 2
"""Datasets above which each has one chart where it would have a row."""
_LINE, _NAME = 170, 32
"""Letters of a line and of a name in a legend that are shown."""
_MOST = 6
"""Datasets and resources that are shown: a picture is one page."""
_IN_PICTURE = [metric for metric in MEASURED if metric != "disk_free_mib"]


def render_png(dashboard: Dashboard) -> bytes:
    """Draw the picture, in the light theme, about 1 200 pixels wide."""
    parts = [
        _header(dashboard),
        *_timeline(dashboard),
        *_metrics(dashboard),
        *_losses(dashboard),
        *_resources(dashboard),
    ]
    # Rows, and what a page chooses by, the same in all charts, belong to the whole.
    charts = [chart for part in parts for chart in part.get("hconcat", [part])]
    params = {param["name"]: param for chart in charts for param in chart.pop("params", ())}
    datasets = {name: rows for chart in charts for name, rows in chart.pop("datasets", {}).items()}
    spec = {
        "vconcat": parts,
        "params": list(params.values()),
        "datasets": datasets,
        "spacing": 18,
        "padding": 20,
        "resolve": _INDEPENDENT,
        "config": vega_config() | {"concat": {"spacing": 18}},
    }
    return _compressed(bytes(vl_convert.vegalite_to_png(_drawable(with_colours(spec, LIGHT)), scale=1.0)))


def _drawable(part: Any) -> Any:
    """A specification without letters that XML has none for: the process would be aborted over them."""
    match part:
        case str():
            return _UNDRAWABLE.sub("\ufffd", part)
        case dict():
            return {_drawable(name): _drawable(value) for name, value in part.items()}
        case list() | tuple():
            return [_drawable(value) for value in part]
    return part


def _compressed(png: bytes) -> bytes:
    """The same picture in a third of the bytes: what draws it compresses for speed."""
    chunks, start = [], len(_PNG)
    while start < len(png):
        length, kind = struct.unpack(">I4s", png[start : start + 8])
        chunks.append((kind, png[start + 8 : start + 8 + length]))
        start += 12 + length
    pixels = zlib.decompress(b"".join(content for kind, content in chunks if kind == b"IDAT"))
    others = [(kind, content) for kind, content in chunks if kind != b"IDAT"]
    written = [*others[:-1], (b"IDAT", zlib.compress(pixels, 9)), others[-1]]
    return _PNG + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in written
    )


def _drawn(chart: Chart) -> Drawn:
    spec = written(chart)
    return {name: _without_names(inner) for name, inner in spec.items() if name not in ("$schema", "config")}


def _without_names(spec: Any) -> Any:
    """Rows have names for the page, the same in every chart; one picture cannot have a name twice."""
    if isinstance(spec, list):
        return [_without_names(inner) for inner in spec]
    if not isinstance(spec, dict):
        return spec
    if "values" in spec and "name" in spec:
        return {"values": spec["values"]}
    return {key: _without_names(inner) for key, inner in spec.items()}


def _header(dashboard: Dashboard) -> Drawn:
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
    verdicts = {name: fusion_verdict(results.datasets[name]) for name in dashboard.evaluated}
    said = [f"{name}: {verdict.sentence()}" for name, verdict in verdicts.items()]
    if len(verdicts) > _MANY:
        earned = sum(verdict.earned for verdict in verdicts.values())
        said = [f"Fusion earns its place in {earned} of {len(verdicts)} datasets."]
    lines = ["   ·   ".join(filter(None, figures)), *said]
    heading = _texts([(0, "")], 1).properties(
        title=alt.TitleParams(
            f"Retraining plan {results.plan_id}: {results.status}",
            subtitle=[line[:_LINE] for line in lines],
            limit=_WIDTH,
            fontSize=20,
            subtitleFontSize=13,
            subtitleColor=colour("muted"),
            subtitlePadding=6,
        )
    )
    return _drawn(heading)


def _timeline(dashboard: Dashboard) -> Iterable[Drawn]:
    if dashboard.window and (datasets := dashboard.datasets[:_MOST]):
        spans, marks = _of(datasets, dashboard.spans), _of([*datasets, ""], dashboard.marks)
        keys = [*phase_keys(failures=True), *mark_keys(mark.kind for mark in marks if mark.kind != "failure")]
        yield _legend("Phases", keys)
        yield _drawn(phase_timeline(spans, marks, datasets, dashboard.window, _WIDTH))


def _metrics(dashboard: Dashboard) -> Iterable[Drawn]:
    names = dashboard.evaluated[:_MOST]
    if not names:
        return
    yield _legend("Detection", model_keys(dashboard.models))
    metrics = {name: dashboard.dot_metrics(name) for name in names}
    if len(names) > _MANY:
        metrics = {name: [m for m in shown if m == "mcc"] or shown[:1] for name, shown in metrics.items()}
    charts = [(name, metric) for name, shown in metrics.items() for metric in shown]
    width = _columns(3)
    yield from _rows(
        _titled(
            metric_dots(dashboard.results.datasets[name], metric, width),
            f"{metric_label(metric)} · {name}",
            width,
        )
        for name, metric in charts
    )


def _losses(dashboard: Dashboard) -> Iterable[Drawn]:
    learned = {name: models for name in dashboard.datasets[:_MOST] if (models := dashboard.losses(name))}
    if len(learned) > _MANY:
        width = _columns(3)
        drawn = [(name, metric_curves(models, width)) for name, models in learned.items()]
        if any(chart for _, chart in drawn):
            trained = dict.fromkeys(model for models in learned.values() for model, _ in models)
            yield _legend("Learning", line_keys(trained))
            yield from _rows(
                _titled(chart, f"Validation MCC · {name}", width) for name, chart in drawn if chart
            )
        return
    if learned:
        yield _legend("Learning", loss_keys())
    for name, models in learned.items():
        width = _columns(max(5, len(models)))
        yield _row(_titled(loss_curve(points, width), f"{model} · {name}", width) for model, points in models)


def _resources(dashboard: Dashboard) -> Iterable[Drawn]:
    if dashboard.window is None:
        return
    backdrop = Backdrop(
        _of(dashboard.datasets, dashboard.spans), dashboard.marks, dashboard.datasets, dashboard.window
    )
    width = _columns(3)
    drawn = [(MEASURED[m], resource_curve(dashboard.telemetry, m, backdrop, width)) for m in _IN_PICTURE]
    charts = [_titled(chart, f"{what.name} ({what.unit})", width) for what, chart in drawn if chart][:_MOST]
    if charts:
        yield _legend("Resources", phase_keys(failures=False))
        yield from _rows(charts)


def _of(datasets: Sequence[str], things: Iterable[Thing]) -> list[Thing]:
    return [thing for thing in things if thing.dataset in datasets]


def _rows(charts: Iterable[Chart]) -> Iterable[Drawn]:
    listed = list(charts)
    return (_row(listed[first : first + 3]) for first in range(0, len(listed), 3))


def _columns(number: int) -> int:
    return (_WIDTH - _GAP * (number - 1)) // max(1, number)


def _titled(chart: Chart, title: str, width: int) -> Chart:
    # A long title must not make its column wider than the others.
    titled = chart.properties(title=alt.TitleParams(title, limit=width))
    titled.usermeta = alt.Undefined  # only a page has a pointer
    return titled


def _row(charts: Iterable[Chart]) -> Drawn:
    return {"hconcat": list(map(_drawn, charts)), "spacing": _GAP, "bounds": "flush", "resolve": _INDEPENDENT}


def _legend(title: str, keys: Sequence[Key]) -> Drawn:
    rows: list[dict[str, Any]] = []
    x = 110.0
    for key in keys:
        name = key.name if len(key.name) <= _NAME else f"{key.name[:_NAME]}…"
        if x + 34 + 6.4 * len(name) > _WIDTH:
            break
        rows.append({"x": x, "name": name, "ink": key.ink, "symbol": key.symbol, "filled": key.filled})
        x += 34 + 6.4 * len(name)
    data = alt.InlineData(values=rows)
    base = alt.Chart(data).encode(x=alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, _WIDTH])))
    plain = {"line": "stroke", "dashes": "stroke"}
    symbols = base.mark_point(size=80, strokeWidth=1.8, opacity=1).encode(
        shape=alt.Shape(
            "name:N",
            legend=None,
            scale=alt.Scale(
                domain=[row["name"] for row in rows],
                range=[plain.get(row["symbol"], row["symbol"]) for row in rows],
            ),
        ),
        stroke=alt.Stroke("ink:N", scale=None),
        fill=alt.Fill("ink:N", scale=None),
        fillOpacity=alt.condition("datum.filled", alt.value(1), alt.value(0)),
        strokeDash=alt.condition("datum.symbol == 'dashes'", alt.value([3, 2]), alt.value([1, 0])),
    )
    names = base.mark_text(align="left", dx=10, fontSize=12, color=colour("muted")).encode(text="name:N")
    head = _texts([(0, title)], 16)
    return _drawn(alt.layer(symbols, names, head).properties(width=_WIDTH, height=18))


def _texts(texts: Sequence[tuple[float, str]], size: int) -> Chart:
    chart: Chart = (
        alt.Chart(alt.InlineData(values=[{"x": x, "text": text} for x, text in texts]))
        .mark_text(align="left", fontSize=size, fontWeight="bold")
        .encode(x=alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, _WIDTH])), text="text:N")
        .properties(width=_WIDTH, height=max(1, size))
    )
    return chart
