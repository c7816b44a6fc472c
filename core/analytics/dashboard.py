"""A plan's dashboard as one HTML page that needs nothing else; the same events give the same bytes."""

import functools
from collections.abc import Mapping
from importlib import resources
from typing import Any

import altair as alt
import vl_convert

from core.analytics import html
from core.analytics.board import Dashboard
from core.analytics.charts.base import Chart
from core.analytics.pages import advice, health, models, run
from core.analytics.theme import DARK, LIGHT, css_variables, vega_config

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
        run.header(results, dashboard.telemetry.summary),
        run.render(dashboard, place),
        models.render(dashboard, place),
        health.render(dashboard, place),
        html.section("Recommended settings for the next plan", advice.recommendation(results)),
    ]
    if not results.datasets:
        body.append(
            html.section("Nothing yet", '<p class="muted">The log of this plan holds no work so far.</p>')
        )
    specs = {name: _spec(chart) for name, chart in charts.items()}
    return _page(f"Plan {results.plan_id}", "\n".join(filter(None, body)), specs)


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
