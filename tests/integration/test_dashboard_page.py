"""The dashboard in a real browser, offline: every page, both themes, wide and narrow, of any history."""

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from core.analytics.projections import rebuild
from core.events.catalogue import (
    EpochFinished,
    ModelEvaluated,
    PhaseFailed,
    PhaseStarted,
    PlanResumed,
    to_event,
)
from core.events.event import Event
from core.events.log import EventLog
from settings.layout import Layout
from tests.browser import chromium, patient
from tests.sample_log import FOLDERS, PLAN_ID, sample_events, write_telemetry

GOLDEN = Path(__file__).parents[1] / "golden" / "0.1.0"
PAGES = ("run", "models", "fleet", "health")
READY = "document.documentElement.dataset.ready === 'true'"
SURFACE = {"light": "rgb(255, 255, 255)", "dark": "rgb(26, 30, 36)"}
EVIL = (
    "</script><script>alert('x')</script><img src=x onerror=alert(1)> **b** [l](x) `c` | \u202eevil\u202c \"'"
    * 3
)

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    events = sample_events(datasets=("a_long_dataset_name_" * 4, "hcrl_sa"), folders=FOLDERS)
    return written(tmp_path_factory.mktemp("dashboard"), events, telemetry=True)[".html"]


def written(folder: Path, events: Sequence[Event], *, telemetry: bool = False) -> dict[str, Path]:
    """The files of a plan by ending, as they are written after a run."""
    if telemetry:
        write_telemetry(Layout(folder).telemetry, events)
    plan_id = events[0].stream if events else PLAN_ID
    return {path.suffix: path for path in rebuild(folder, plan_id, {plan_id: events})}


@contextmanager
def opened(browser: Browser, path: Path, **options: Any) -> Iterator[Page]:
    """A page of a browser without a network; whatever it complains of or asks for fails the test."""
    context = browser.new_context(offline=True, **options)
    page = patient(context.new_page())
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    page.on("request", lambda request: problems.append(request.url) if request.url != path.as_uri() else None)
    page.goto(path.as_uri())
    yield page
    assert problems == []
    context.close()


def visit(page: Page, name: str) -> None:
    """Show a page of the dashboard, and wait until it is complete."""
    page.evaluate(f"location.hash = '#{name}'")
    page.wait_for_function(f"!document.getElementById('{name}').hidden && {READY}")


def fits(page: Page, width: int) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_every_page_draws_all_its_charts_without_overflow(
    browser: Browser, dashboard: Path, theme: Any, width: int
) -> None:
    with opened(browser, dashboard, viewport={"width": width, "height": 900}, color_scheme=theme) as page:
        drawn = {}
        for name in PAGES:
            visit(page, name)
            shown = page.locator(f"#{name} .chart:visible")
            drawn[name] = shown.count()
            assert shown.locator("svg").count() == drawn[name]
            fits(page, width)
        surface = page.evaluate("getComputedStyle(document.querySelector('section')).backgroundColor")
        ink = page.evaluate("getComputedStyle(document.querySelector('.chart svg text')).fill")
    assert drawn["run"] > 15
    assert drawn["models"] > 3
    assert drawn["health"] > 2
    assert surface == SURFACE[theme]
    assert (
        ink
        in {
            "light": ("rgb(86, 93, 105)", "rgb(23, 26, 31)"),
            "dark": ("rgb(164, 172, 185)", "rgb(233, 236, 241)"),
        }[theme]
    )


def test_tabs_are_moved_through_with_the_keyboard(browser: Browser, dashboard: Path) -> None:
    with opened(browser, dashboard) as page:
        page.wait_for_function(READY)
        page.locator("#tab-run").focus()
        for key, name in (
            ("ArrowRight", "models"),
            ("End", "health"),
            ("ArrowRight", "run"),
            ("ArrowLeft", "health"),
        ):
            page.keyboard.press(key)
            page.wait_for_function(f"!document.getElementById('{name}').hidden && {READY}")
            assert page.evaluate("document.activeElement.id") == f"tab-{name}"
            assert page.locator("[role=tab][aria-selected=true]").get_attribute("id") == f"tab-{name}"
            assert page.locator(".page:visible").count() == 1


def test_theme_is_chosen_and_remembered(browser: Browser, dashboard: Path) -> None:
    surface = "getComputedStyle(document.querySelector('section')).backgroundColor"
    with opened(browser, dashboard, color_scheme="light") as page:
        for theme in ("light", "dark"):
            page.locator("#theme").click()
            assert page.evaluate(surface) == SURFACE[theme]
        page.reload()
        page.wait_for_function(READY)
        assert page.evaluate(surface) == SURFACE["dark"]


def ticks(page: Page, caption: str) -> Locator:
    """Labels of the time axis of a chart."""
    return page.locator("figure", has_text=caption).locator(".role-axis-label text")


def test_dragging_over_one_chart_moves_the_time_of_the_others_until_all_is_shown_again(
    browser: Browser, dashboard: Path
) -> None:
    with opened(browser, dashboard, viewport={"width": 1280, "height": 900}) as page:
        page.wait_for_function(READY)
        gpu, cpu = ticks(page, "GPU utilisation"), ticks(page, "CPU use")
        before = gpu.all_text_contents()
        box = page.locator(".chart.linked").first.bounding_box()
        assert box
        page.mouse.move(box["x"] + 300, box["y"] + 60)
        page.mouse.down()
        page.mouse.move(box["x"] + 380, box["y"] + 60, steps=4)
        page.mouse.up()
        expect(gpu).not_to_have_text(before)
        expect(cpu).not_to_have_text(before)
        assert {*gpu.all_text_contents()} >= {t for t in cpu.all_text_contents() if ":" in t}
        page.locator("#reset").click()
        expect(gpu.filter(has_text=":")).to_have_count(sum(":" in text for text in before))
        expect(gpu.filter(has_text=before[0])).to_have_count(1)


def test_choosing_a_dataset_and_a_phase_leaves_out_the_others(browser: Browser, dashboard: Path) -> None:
    with opened(browser, dashboard) as page:
        page.wait_for_function(READY)
        page.locator("#dataset").select_option("hcrl_sa")
        page.locator("#phase").select_option("student")
        shown = page.locator("#run [data-dataset]:visible")
        assert shown.evaluate_all("parts => parts.map(part => part.dataset.dataset)") == ["hcrl_sa"]
        captions = shown.locator("figcaption:visible").all_text_contents()
        assert captions == ["student_vgae", "student_gat", "Validation MCC", "Graphs per second"]


def test_pointing_at_a_curve_tells_its_numbers(browser: Browser, dashboard: Path) -> None:
    with opened(browser, dashboard, viewport={"width": 1280, "height": 900}) as page:
        page.wait_for_function(READY)
        chart = page.locator("figure", has_text="GPU utilisation").locator(".chart")
        chart.hover()
        told = page.locator("#tooltip").inner_text()
        assert "UTC" in told
        assert "%" in told
        assert page.locator(".cross:visible").count() > 5


def test_without_scripts_all_pages_stand_one_after_the_other(browser: Browser, dashboard: Path) -> None:
    with opened(browser, dashboard, java_script_enabled=False) as page:
        assert page.locator(".page:visible").count() == len(PAGES)
        assert page.locator("p.note").is_visible()
        assert not page.locator("#theme").is_visible()


def test_paper_has_all_pages_with_their_charts(browser: Browser, dashboard: Path) -> None:
    with opened(browser, dashboard) as page:
        page.wait_for_function(READY)
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        page.emulate_media(media="print")
        assert page.locator(".page:visible").count() == len(PAGES)
        assert page.locator("#health .chart svg").count() > 0
        assert not page.locator("nav").is_visible()


def start(dataset: str = "d", phase: str = "teacher", attempt: int = 1) -> Event:
    fact = PhaseStarted(
        dataset=dataset, phase=phase, attempt=attempt, device="cpu", precision="fp32", micro_batch_size=1
    )
    return to_event(PLAN_ID, fact)


def failed(kind: str = "bug", message: str = "no luck", dataset: str = "d", attempt: int = 1) -> Event:
    fact = PhaseFailed(
        dataset=dataset, phase="teacher", attempt=attempt, kind=kind, message=message, micro_batch_size=1
    )
    return to_event(PLAN_ID, fact)


def one_epoch() -> list[Event]:
    events = sample_events(datasets=("demo",), failures=False, gpu=False)
    return [e for e in events if e.type != EpochFinished.TYPE or e.payload["epoch"] == 0]


def no_numbers() -> list[Event]:
    nothing = dict.fromkeys(("train_loss", "val_loss", "val_metric", "graphs_per_s"), float("nan"))
    return [
        e._replace(payload={**e.payload, **nothing}) if e.type == EpochFinished.TYPE else e
        for e in sample_events(datasets=("demo",))
    ]


def clock_set_back() -> list[Event]:
    events = sample_events()
    half = len(events) // 2
    return events[:half] + [e._replace(occurred_at=e.occurred_at - timedelta(hours=2)) for e in events[half:]]


def hostile() -> list[Event]:
    scored = ModelEvaluated(dataset=EVIL, model=EVIL, folder=EVIL, metrics={EVIL: 0.5, "f1": 0.5, "mcc": 0.1})
    resumed = PlanResumed(remaining=[EVIL], data_dir=EVIL)
    return [
        start(EVIL, EVIL),
        start(EVIL),
        failed(EVIL, EVIL, EVIL),
        to_event(PLAN_ID, resumed),
        start(EVIL),
        to_event(PLAN_ID, scored),
    ]


def release_0_1_0() -> list[Event]:
    log = EventLog(GOLDEN)
    (plan_id,) = log.streams()
    return log.read(plan_id)


HISTORIES: dict[str, Callable[[], Sequence[Event]]] = {
    "empty": list,
    "one event": lambda: sample_events()[:1],
    "one dataset, one epoch": one_epoch,
    "only failures": lambda: [start(), failed(), start(attempt=2), failed("hang", attempt=2)],
    "no finite number": no_numbers,
    "clock set back": clock_set_back,
    "six datasets with long names": lambda: sample_events(
        datasets=[f"{n}_of_the_vehicles_with_a_very_long_name_" * 3 for n in range(6)], folders=FOLDERS
    ),
    "hostile names": hostile,
    "release 0.1.0": release_0_1_0,
}


@pytest.mark.parametrize("history", HISTORIES)
def test_any_history_has_pages_and_a_picture(browser: Browser, tmp_path: Path, history: str) -> None:
    files = written(tmp_path, HISTORIES[history]())
    assert files[".html"].stat().st_size < 5_000_000
    picture = files[".png"].read_bytes()
    width, height = struct.unpack(">II", picture[16:24])
    assert width <= 1300
    assert height <= 1800
    assert len(picture) < 400_000
    with opened(browser, files[".html"], viewport={"width": 400, "height": 800}) as page:
        for name in PAGES:
            visit(page, name)
            assert page.locator(f"#{name} section, #{name} header").count() > 0
            assert (
                page.locator(f"#{name} .chart:visible svg").count()
                == page.locator(f"#{name} .chart:visible").count()
            )
            fits(page, 400)
