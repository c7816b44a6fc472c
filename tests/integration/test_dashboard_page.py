"""The dashboard in a real browser, offline."""

from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from core.analytics.projections import rebuild
from settings.layout import Layout
from tests.sample_log import FOLDERS, PLAN_ID, sample_events, write_telemetry

CHROMIUM = Path("/usr/bin/chromium")


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_page_draws_all_charts_offline_without_errors_or_overflow(
    tmp_path: Path, theme: str, width: int
) -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    events = sample_events(datasets=("a_long_dataset_name_" * 4, "hcrl_sa"), folders=FOLDERS)
    write_telemetry(Layout(tmp_path).telemetry, events)
    page_path = next(path for path in rebuild(tmp_path, PLAN_ID, {PLAN_ID: events}) if path.suffix == ".html")
    problems: list[str] = []
    requests: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if theme == "dark" else "light",
            offline=True,
        )
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(page_path.as_uri())
        page.wait_for_function("document.documentElement.dataset.ready === 'true'")
        places, drawn = page.locator(".chart").count(), page.locator(".chart svg").count()
        scroll_width = page.evaluate("document.documentElement.scrollWidth")
        surface = page.evaluate("getComputedStyle(document.querySelector('section')).backgroundColor")
        ink = page.evaluate("getComputedStyle(document.querySelector('.chart svg text')).fill")
        browser.close()
    assert problems == []
    assert requests == [page_path.as_uri()]
    assert places == drawn > 15
    assert scroll_width <= width
    assert surface == {"light": "rgb(255, 255, 255)", "dark": "rgb(26, 30, 36)"}[theme]
    assert (
        ink
        in {
            "light": ("rgb(86, 93, 105)", "rgb(23, 26, 31)"),
            "dark": ("rgb(164, 172, 185)", "rgb(233, 236, 241)"),
        }[theme]
    )
