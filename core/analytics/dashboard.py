"""A plan's dashboard as one HTML page that needs nothing else; the same events give the same bytes."""

import functools
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any, NamedTuple

import altair as alt
import vl_convert

from core.analytics import html
from core.analytics.board import Dashboard
from core.analytics.charts.base import Chart, written
from core.analytics.pages import fleet, health, models, run
from core.analytics.pages.parts import TONES, Place
from core.analytics.theme import DARK, LIGHT, css_variables, vega_config

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:"
)


class Page(NamedTuple):
    """A page of the dashboard: its anchor, the name of its tab, and what writes it."""

    anchor: str
    name: str
    render: Callable[[Dashboard, Place], str]


PAGES = (
    Page("run", "Run", run.render),
    Page("models", "Models", models.render),
    Page("fleet", "Fleet", fleet.render),
    Page("health", "Health", health.render),
)


def render_html(dashboard: Dashboard) -> str:
    """Write the page: it works offline, in light and dark, on wide and narrow screens."""
    charts: dict[str, Chart] = {}

    def place(chart: Chart | None, caption: str, description: str) -> str:
        if chart is None:
            return ""
        name = f"chart-{len(charts)}"
        charts[name] = chart.properties(description=description)
        return html.figure(name, caption, description)

    nothing = html.section("Nothing yet", '<p class="muted">The log of this plan holds no work so far.</p>')
    pages = [(page, page.render(dashboard, place).strip() or nothing) for page in PAGES]
    body = _bar(dashboard) + "<main>\n" + "\n".join(_panel(page, content) for page, content in pages)
    specs = {name: _spec(chart) for name, chart in charts.items()}
    return _document(f"Plan {dashboard.results.plan_id}", body + "\n</main>", specs)


def _bar(dashboard: Dashboard) -> str:
    results = dashboard.results
    tabs = "".join(f'<a id="tab-{page.anchor}" href="#{page.anchor}">{page.name}</a>' for page in PAGES)
    return (
        f'<header class="bar"><div><p class="plan"><strong>{html.text(results.plan_id)}</strong> '
        f"{html.chip(results.status, TONES.get(results.status, ''))}</p>"
        f'<nav aria-label="Pages">{tabs}</nav>{_choices(dashboard)}'
        '<button type="button" id="theme" hidden></button></div></header>\n'
    )


def _choices(dashboard: Dashboard) -> str:
    """What narrows the charts down; the script shows it where a page has something to narrow down."""
    phases = list(dict.fromkeys(span.phase for span in dashboard.spans))
    selects = [("dataset", "All datasets", dashboard.datasets), ("phase", "All phases", phases)]
    shown = "".join(
        f'<select id="{name}" aria-label="{html.text(name.capitalize())}"><option value="">{every}</option>'
        + "".join(f'<option value="{html.text(value)}">{html.text(value)}</option>' for value in values)
        + "</select>"
        for name, every, values in selects
        if len(values) > 1
    )
    reset = '<button type="button" id="reset" disabled>Show all</button>'
    return f'<form id="choices" aria-label="Filters" hidden>{shown}{reset}</form>' if shown else ""


def _panel(page: Page, content: str) -> str:
    return f'<div class="page" id="{page.anchor}" aria-labelledby="tab-{page.anchor}">\n{content}\n</div>'


def _spec(chart: Chart) -> dict[str, Any]:
    spec = written(chart.properties(autosize=alt.AutoSizeParams(type="fit-x", contains="padding")))
    del spec["$schema"], spec["config"]
    return spec


def _document(title: str, body: str, specs: Mapping[str, Any]) -> str:
    # Whatever a chart is drawn from lies inside the page; the library only where there is a chart.
    content = html.script_json({"config": vega_config(), "charts": specs})
    library = f"<script>{_library()}</script>\n" if specs else ""
    dark = css_variables(DARK)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{html.text(title)}</title>
<style>
:root {{ {css_variables(LIGHT)} color-scheme: light; }}
@media (prefers-color-scheme: dark) {{ :root:not([data-theme="light"]) {{ {dark} color-scheme: dark; }} }}
:root[data-theme="dark"] {{ {dark} color-scheme: dark; }}
{_asset("dashboard.css")}</style>
</head>
<body>
{body}
<noscript><p class="note">Charts need JavaScript; all tables and figures are above.</p></noscript>
<script type="application/json" id="charts">{content}</script>
<script>{_asset("detection.js")}</script>
{library}<script>{_asset("dashboard.js")}</script>
</body>
</html>
"""


@functools.cache
def _library() -> str:
    """Vega, Vega-Lite and vega-embed in one script."""
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")


def _asset(name: str) -> str:
    return resources.files("core.analytics").joinpath(name).read_text(encoding="utf-8")
