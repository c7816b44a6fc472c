"""A plan's dashboard as one HTML page that needs nothing else; the same events give the same bytes."""

import functools
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any, TypeAlias

import altair as alt
import vl_convert

from core.analytics import html, sections
from core.analytics.board import Dashboard
from core.analytics.charts import (
    RESOURCES,
    Chart,
    loss_curve,
    loss_keys,
    metric_dots,
    model_keys,
    phase_keys,
    phase_timeline,
    resource_curve,
)
from core.analytics.metrics import metric_label
from core.analytics.telemetry import health_notes, summarize
from core.analytics.theme import DARK, LIGHT, css_variables, vega_config

Place: TypeAlias = Callable[[Chart | None, str, str], str]
"""Keeps a chart for the page and gives the HTML of its place, nothing for no chart."""

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:"
)


def render_html(dashboard: Dashboard) -> str:
    """Write the page: it works offline, in light and dark, on wide and narrow screens."""
    charts: dict[str, Chart] = {}

    def place(chart: Chart | None, caption: str, description: str) -> str:
        if chart is None:
            return ""
        name = f"chart-{len(charts)}"
        charts[name] = chart
        return html.figure(name, caption, description)

    results = dashboard.results
    body = [
        sections.header(results, summarize(dashboard.samples)),
        html.section(
            "Phases",
            _timeline(dashboard, place),
            sections.phase_matrix(results),
        ),
        _metrics(dashboard, place),
        html.section("Learning", _losses(dashboard, place)),
        _resources(dashboard, place),
        html.section("Health", sections.health(results, health_notes(dashboard.samples))),
        html.section("Errors and recoveries", sections.errors(results)),
        html.section("Data", sections.data_quality(results.datasets)),
        html.section("Recommended settings for the next plan", sections.recommendation(results)),
    ]
    if not results.datasets:
        body.append(
            html.section("Nothing yet", '<p class="muted">The log of this plan holds no work so far.</p>')
        )
    specs = {name: _spec(chart) for name, chart in charts.items()}
    return _page(f"Plan {results.plan_id}", "\n".join(filter(None, body)), specs)


def _timeline(dashboard: Dashboard, place: Place) -> str:
    if not dashboard.datasets:
        return ""
    chart = phase_timeline(dashboard.spans, dashboard.datasets, "container")
    return sections.legend(phase_keys(failures=True)) + place(chart, "", "Phases of each dataset over time")


def _metrics(dashboard: Dashboard, place: Place) -> str:
    datasets = dashboard.results.datasets
    names = dashboard.evaluated
    if not names:
        return ""
    parts = [
        *(sections.verdict(name, datasets[name]) for name in names),
        sections.legend(model_keys(dashboard.models)),
    ]
    for name in names:
        figures = "".join(
            place(
                metric_dots(datasets[name], metric, "container"),
                metric_label(metric),
                f"{metric_label(metric)} of every model and test folder of {name}",
            )
            for metric in dashboard.dot_metrics(name)
        )
        opened = " open" if len(names) <= 2 else ""
        parts.append(
            f'<h3>{html.text(name)}</h3><div class="grid wide">{figures}</div>'
            f"<details{opened}><summary>All metrics of {html.text(name)}</summary>"
            f"{sections.metric_tables(datasets[name])}</details>"
        )
    return html.section(
        "Detection", *parts, lead="Baselines are grey: what is more complex has to beat them."
    )


def _losses(dashboard: Dashboard, place: Place) -> str:
    parts = []
    for dataset in dashboard.datasets:
        figures = [
            place(loss_curve(points, "container"), model, f"Loss of {model} on {dataset} per epoch")
            for model, points in dashboard.losses(dataset)
        ]
        if figures:
            parts.append(f'<h3>{html.text(dataset)}</h3><div class="grid">{"".join(figures)}</div>')
    return sections.legend(loss_keys()) + "".join(parts) if parts else ""


def _resources(dashboard: Dashboard, place: Place) -> str:
    figures = [
        place(_resource(dashboard, metric, "container"), name, f"{name} over time in {unit}")
        for metric, (name, unit) in RESOURCES.items()
    ]
    if not any(figures):
        return ""
    lanes = "Tinted lanes are the phases of each dataset, in the order of the timeline."
    return html.section(
        "Resources",
        sections.legend(phase_keys(failures=False)),
        f'<div class="grid wide">{"".join(figures)}</div>',
        lead=lanes,
    )


def _resource(dashboard: Dashboard, metric: str, width: int | str) -> Chart | None:
    return resource_curve(dashboard.samples, metric, dashboard.spans, dashboard.datasets, width)


def _spec(chart: Chart) -> dict[str, Any]:
    spec: dict[str, Any] = chart.properties(
        autosize=alt.AutoSizeParams(type="fit-x", contains="padding")
    ).to_dict()
    return spec


def _page(title: str, body: str, specs: Mapping[str, Any]) -> str:
    config = vega_config()
    charts = {name: {**spec, "config": config} for name, spec in specs.items()}
    scripts = (
        f'<script type="application/json" id="charts">{html.script_json(charts)}</script>\n'
        f"<script>{_library()}</script>\n<script>{_asset('dashboard.js')}</script>"
        if specs
        else "<script>document.documentElement.dataset.ready = 'true';</script>"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{html.text(title)}</title>
<style>
:root {{ {css_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {css_variables(DARK)} }} }}
{_asset("dashboard.css")}</style>
</head>
<body>
<main>
{body}
</main>
{scripts}
</body>
</html>
"""


@functools.cache
def _library() -> str:
    """Vega, Vega-Lite and vega-embed in one script."""
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")


def _asset(name: str) -> str:
    return resources.files("core.analytics").joinpath(name).read_text(encoding="utf-8")
