"""The page and the picture: complete, self-contained, escaped, and the same every time."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from core.analytics.board import fold_dashboard
from core.analytics.dashboard import render_html
from core.analytics.picture import render_png
from core.analytics.theme import DARK, LIGHT, colour
from core.events.catalogue import ChainStarted, ModelEvaluated, PhaseFailed, PhaseStarted, to_event
from core.events.event import Event
from core.events.telemetry import TELEMETRY_SCHEMA, read_telemetry
from tests.sample_log import FOLDERS, MODELS, PLAN_ID, sample_events, write_telemetry

NO_SAMPLES = pl.DataFrame(schema=TELEMETRY_SCHEMA)
EVIL = "</script><script>alert('x')</script><img src=x onerror=alert(1)>&\"'"


class Page(HTMLParser):
    """Collects elements, and the text outside scripts and styles."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._raw = ""
        self.charts = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._raw = dict(attrs).get("id") or tag

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._raw = ""

    def handle_data(self, data: str) -> None:
        if self._raw == "charts":
            self.charts += data
        elif not self._raw:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def render(events: list[Event], samples: pl.DataFrame = NO_SAMPLES) -> Page:
    return Page(render_html(fold_dashboard(PLAN_ID, {PLAN_ID: events}, samples)))


def specs(page: Page) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(page.charts)["charts"]
    return loaded


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    folder: Path = tmp_path_factory.mktemp("telemetry")
    write_telemetry(folder, sample_events())
    return read_telemetry(folder, PLAN_ID)


def test_page_shows_every_section(samples: pl.DataFrame) -> None:
    page = render(sample_events(), samples)
    for title in (
        "Phases",
        "Learning",
        "Resources",
        "Errors and recoveries",
        "Data",
        "Recommended",
    ):
        assert title in page.text
    for word in (
        *MODELS,
        *FOLDERS[:4],
        "undefined",
        "recovered in attempt 2",
        "cuda_oom",
        "37 rows quarantined",
    ):
        assert word in page.text
    drawn = {spec["description"] for spec in specs(page).values()}
    for what in (
        "Phases of each dataset over time",
        "Loss of student_gat on hcrl_sa per epoch",
        "MCC on validation of all models on set_01 per epoch",
        "GPU utilisation over time in %",
        "Most graphs in one forward and backward pass of teacher_vgae on hcrl_sa over time",
        "Peak memory of each phase of hcrl_sa against the memory there was",
        "Free disk space over time in GiB",
    ):
        assert what in drawn


def test_page_needs_nothing_from_outside(samples: pl.DataFrame) -> None:
    page = render(sample_events(), samples)
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "img")
        assert not {"src", "srcset", "action"} & attributes.keys()
        assert (attributes.get("href") or "#").startswith("#")
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert (policy or "").startswith("default-src 'none'")


def test_names_and_messages_cannot_break_out() -> None:
    # Built-in names are checked in settings; a log may hold anything.
    events = [
        to_event("p", ChainStarted(dataset=EVIL)),
        to_event(
            "p",
            PhaseStarted(
                dataset=EVIL, phase="teacher", attempt=1, device="cpu", precision="fp32", micro_batch_size=1
            ),
        ),
        to_event(
            "p",
            PhaseFailed(
                dataset=EVIL, phase="teacher", attempt=1, kind=EVIL, message=EVIL, micro_batch_size=1
            ),
        ),
        to_event("p", ModelEvaluated(dataset=EVIL, model=EVIL, folder=EVIL, metrics={EVIL: 0.5, "f1": 0.5})),
    ]
    page = render(events)
    assert "img" not in {tag for tag, _ in page.elements}
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    assert scripts == [attributes for tag, attributes in render(sample_events()).elements if tag == "script"]
    assert EVIL in json.dumps(specs(page)).encode().decode("unicode_escape")
    assert EVIL in page.text


def test_an_empty_plan_has_a_page_and_a_picture() -> None:
    page = render([])
    assert "holds no work so far" in page.text
    assert specs(page) == {}
    assert render_png(fold_dashboard(PLAN_ID, {PLAN_ID: []}, NO_SAMPLES)).startswith(b"\x89PNG")


@pytest.mark.parametrize("num_events", [1, 5, 30, 120])
def test_an_unfinished_plan_has_a_page(num_events: int) -> None:
    page = render(sample_events()[:num_events])
    assert "unfinished" in page.text


def test_machine_without_gpu_shows_no_gpu_charts(tmp_path: Path) -> None:
    events = sample_events(gpu=False)
    write_telemetry(tmp_path, events, gpu=False)
    page = render(events, read_telemetry(tmp_path, PLAN_ID))
    assert "CPU use" in page.text
    assert "GPU utilisation" not in page.text


def test_charts_hold_few_rows(samples: pl.DataFrame) -> None:
    many = pl.concat([samples] * 20).with_columns(
        pl.col("occurred_at") + pl.duration(milliseconds=pl.int_range(pl.len()) * 7)
    )
    for spec in specs(render(sample_events(), many.sort("occurred_at"))).values():
        for layer in spec.get("layer", [spec]):
            assert len(layer.get("data", {}).get("values", [])) < 5_000


def test_times_are_utc_on_a_24_hour_clock(samples: pl.DataFrame) -> None:
    timeline = specs(render(sample_events(), samples))["chart-0"]["layer"][0]["encoding"]["x"]
    assert timeline["scale"]["type"] == "utc"
    assert "utcFormat(" in timeline["axis"]["labelExpr"]
    assert "%I" not in timeline["axis"]["labelExpr"]


def test_page_and_picture_are_the_same_every_time(samples: pl.DataFrame) -> None:
    board = fold_dashboard(PLAN_ID, {PLAN_ID: sample_events()}, samples)
    again = fold_dashboard(PLAN_ID, {PLAN_ID: sample_events()}, samples)
    assert render_html(board) == render_html(again)
    assert render_png(board) == render_png(again)


def test_page_stays_small_for_a_large_plan(samples: pl.DataFrame) -> None:
    datasets = ("hcrl_ch", "hcrl_sa", "set_01", "set_02", "set_03", "set_04")
    events = sample_events(datasets=datasets, folders=FOLDERS, failures=False)
    assert len(render_html(fold_dashboard(PLAN_ID, {PLAN_ID: events}, samples))) < 5_000_000


def luminance(code: str) -> float:
    channels = [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_have_accessible_contrast(palette: dict[str, str]) -> None:
    def contrast(name: str) -> float:
        pair = sorted((luminance(palette[name]), luminance(palette["surface"])))
        return (pair[1] + 0.05) / (pair[0] + 0.05)

    for name in ("ink", "muted", "good", "bad", "warn", "accent"):
        assert contrast(name) >= 4.5, name
    for name in ("graphs", "teacher", "student", "fusion", "evaluation", "vgae", "gat", "baseline"):
        assert contrast(name) >= 3.0, name


def test_both_themes_have_the_same_colours_and_charts_use_only_them(samples: pl.DataFrame) -> None:
    assert LIGHT.keys() == DARK.keys()
    used = set(re.findall(r"var\(--([a-z]+)\)", render(sample_events(), samples).charts))
    assert used <= LIGHT.keys()
    with pytest.raises(KeyError):
        colour("mauve")
