"""The page of models in a real browser: one test folder at a time, and a model that stands out."""

from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from core.analytics.board import fold_dashboard
from core.analytics.dashboard import render_html
from core.events.telemetry import read_telemetry
from tests.browser import chromium, patient
from tests.sample_log import FOLDERS, MODELS, START, sample_events

EVIL = "car<b>&'\"`${x}"


def opened(page: Page, path: Path) -> list[str]:
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(path.as_uri() + "#models")
    page.wait_for_function("document.documentElement.dataset.ready === 'true'")
    return problems


@pytest.mark.browser
def test_charts_and_tables_follow_the_chosen_folder_and_model(tmp_path: Path) -> None:
    streams = {
        name: sample_events(
            name, (EVIL,), FOLDERS, failures=False, seed=day, start=START + timedelta(days=day)
        )
        for day, name in enumerate(("first", "second"))
    }
    path = tmp_path / "page.html"
    path.write_text(render_html(fold_dashboard("second", streams, read_telemetry(tmp_path, "second"))))
    with chromium() as browser:
        page = patient(browser.new_context(viewport={"width": 1280, "height": 900}, offline=True).new_page())
        problems = opened(page, path)
        assert page.locator("#models article h3").inner_text() == EVIL
        assert page.locator("#models .chart").count() == page.locator("#models .chart svg").count()

        block = page.locator(".by-folder")
        folders = block.locator("[data-folder]")
        assert folders.evaluate_all("parts => parts.map(part => part.hidden)") == [False] + [True] * 6
        lines = page.locator("figure:has-text('ROC (') g.mark-line")
        expect(lines.locator("path[opacity='1']")).to_have_count(len(MODELS))

        block.get_by_role("button", name="student_gat").click()
        page.wait_for_function("document.querySelectorAll('.confusion.faded').length > 0")
        assert (
            block.locator(".confusion:visible:not(.faded) figcaption").inner_text().startswith("student_gat")
        )
        expect(lines.locator("path[opacity='1']")).to_have_count(1)
        expect(lines.locator("path[opacity='0.13']")).to_have_count(len(MODELS) - 1)

        block.locator("select").select_option(label=FOLDERS[3])
        block.get_by_text("no window is an attack").first.wait_for()
        assert block.locator("h4:visible").inner_text() == FOLDERS[3]
        block.locator("select").select_option(label=FOLDERS[4])
        block.get_by_text("labels mean nothing").first.wait_for()
        block.locator("select").select_option(label="validation windows")
        assert block.locator(".confusion:visible table").count() == len(MODELS)
    assert problems == []
