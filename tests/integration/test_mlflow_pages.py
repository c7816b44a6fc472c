"""MLflow's own pages of a finished plan, in a real browser: what a person looks for is there to see."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from core.events.log import EventLog
from settings.layout import Layout
from tests.browser import chromium, patient
from tests.mlflow_helpers import content, mlflow_server, registry

# MLflow and alembic warn about each other.
pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.filterwarnings("default")]

_REMEMBERED: dict[str, object] = {
    "mlflow.workflowType_v1": "machine_learning",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,
    "mlflow.assistant.panelOpen_v1": False,
}
"""What a browser remembers that has been to the pages before."""
BROKEN = ("Something went wrong", "Page not found", "Unexpected error", "Couldn't load")


@pytest.fixture(scope="module")
def shown(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Shown"]:
    folder = tmp_path_factory.mktemp("mlflow")
    with (
        chromium() as browser,
        mlflow_server(folder, finished / "mlflow.db") as url,
    ):
        page = patient(browser.new_page(viewport={"width": 1280, "height": 1000}))
        yield Shown(page, url, folder, finished)


class Shown:
    """Pages of a plan that MLflow shows, and pictures of them."""

    def __init__(self, page: Page, url: str, folder: Path, output_dir: Path) -> None:
        self.page, self._url, self.folder = page, url, folder
        self._refused: list[str] = []
        page.on("response", lambda r: self._refused.append(r.url) if r.status >= 500 else None)
        (self.plan_id,) = EventLog(Layout(output_dir).events).streams()
        self._runs: dict[str, dict[str, Any]] = content(folder)
        for name, value in _REMEMBERED.items():
            page.add_init_script(f"localStorage.setItem({json.dumps(name)}, {json.dumps(json.dumps(value))})")

    def run(self, key: str, tab: str = "") -> None:
        """Open a tab of a run."""
        run_id = self._runs[f"{self.plan_id}{key}"]["run_id"]
        self.open(f"/experiments/1/runs/{run_id}{tab}")

    def open(self, route: str) -> None:
        self.page.goto("about:blank")
        self.page.goto(f"{self._url}/#{route}")

    def expect(self, *texts: str) -> None:
        """Wait until all texts can be seen, and nothing is broken."""
        for text in texts:
            expect(self.page.get_by_text(text).filter(visible=True).first).to_be_visible()
        body = self.page.inner_text("body")
        assert not [text for text in BROKEN if text in body]
        assert self._refused == []

    def picture(self, name: str) -> None:
        """Keep what is seen, for who looks."""
        self.page.screenshot(path=self.folder / f"{name}.png")


def test_a_phases_page_tells_what_it_is_and_what_it_learned_from(shown: Shown) -> None:
    shown.run("/demo/teacher")
    shown.expect(
        "Full-size VGAE (learns benign traffic)", "Finished", "flows.retrain", "can-ids-demo-teacher"
    )
    expect(shown.page.get_by_text("demo (").first).to_be_visible()  # the captures, with their digest
    shown.picture("phase")


def test_curves_are_among_model_metrics_in_groups(shown: Shown) -> None:
    shown.run("/demo/teacher", "/model-metrics")
    shown.expect("teacher_gat", "train_loss", "val_loss", "val_mcc", "teacher_gat/speed")
    shown.picture("curves")


def test_resource_samples_are_among_system_metrics(shown: Shown) -> None:
    shown.run("/demo", "/system-metrics")
    shown.expect("System metrics", "cpu_utilization_percentage", "system_memory_usage_megabytes")
    shown.picture("system")


def test_a_plans_page_sums_it_up_and_shows_its_dashboard(shown: Shown) -> None:
    shown.run("")
    shown.expect("Retraining plan, failed after", "Open the dashboard", "Child runs")
    shown.picture("plan")
    link = shown.page.get_by_role("link", name="Open the dashboard").first.get_attribute("href")
    assert link
    shown.open(link.partition("#")[2])
    dashboard = shown.page.frame_locator("iframe").first
    expect(dashboard.get_by_text(shown.plan_id).first).to_be_visible()
    shown.expect(f"{shown.plan_id}_dashboard.html")
    shown.picture("dashboard")
    shown.run("", f"/artifacts/{shown.plan_id}_dashboard.png")
    shown.page.wait_for_function(
        "Array.from(document.images).some(image => image.complete && image.naturalWidth > 600)"
    )


def test_the_registry_shows_versions_with_aliases_and_where_they_come_from(shown: Shown) -> None:
    models = registry(shown.folder)
    assert set(models) == {f"can-ids-demo-{phase}" for phase in ("teacher", "student", "fusion")}
    shown.open("/models/can-ids-demo-student")
    shown.expect("can-ids-demo-student", "Compressed VGAE and GAT", "champion", "Version 1")
    shown.picture("model")
    shown.open("/models/can-ids-demo-student/versions/1")
    shown.expect("Version 1", "@ champion", "Trained from can-ids-demo-teacher version 1", "Source Run")
    shown.picture("version")
