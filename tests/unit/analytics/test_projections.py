"""Projections can be deleted and come back byte for byte."""

import hashlib
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from core.analytics.markdown import (
    dashboard_markdown,
    metrics_rows,
    recommendation_markdown,
    results_markdown,
)
from core.analytics.metrics import (
    format_duration,
    format_memory,
    format_metric,
    format_number,
    fusion_verdict,
)
from core.analytics.projections import rebuild, write_configs
from core.analytics.results import DatasetResult, RetrainingResults, fold_results
from core.events.log import EventLog
from core.events.resource_facts import ConfigRecommended
from settings.app import load_settings
from settings.layout import Layout
from tests.sample_log import PLAN_ID, sample_events, write_telemetry


def digests(paths: list[Path]) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def write_all(output_dir: Path) -> list[Path]:
    events = EventLog(Layout(output_dir).events).read(PLAN_ID)
    return rebuild(output_dir, PLAN_ID, {PLAN_ID: events}) + write_configs(output_dir, [events])


def test_deleted_projections_come_back_byte_for_byte_from_the_log(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    events = sample_events()
    EventLog(layout.events).append(events)
    write_telemetry(layout.telemetry, events)
    written = write_all(tmp_path)
    first = digests(written)
    assert set(first) == {
        f"{PLAN_ID}_plan.json",
        f"{PLAN_ID}_results.json",
        f"{PLAN_ID}_dashboard.html",
        f"{PLAN_ID}_dashboard.png",
        "nvidia-geforce-rtx-3090.yaml",
    }
    for path in written:
        path.unlink()
    shutil.rmtree(layout.generated_configs)
    again = write_all(tmp_path)
    assert again == written
    assert digests(again) == first
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_generated_configuration_can_be_handed_straight_back(tmp_path: Path) -> None:
    (config,) = write_configs(tmp_path, [sample_events()])
    assert load_settings(config).training.micro_batch_size == 1024


def test_the_newest_plan_on_a_device_decides_its_configuration(tmp_path: Path) -> None:
    newer = [
        e._replace(stream="newer", occurred_at=e.occurred_at + timedelta(days=1)) for e in sample_events()
    ]
    for order in ([newer, sample_events()], [sample_events(), newer]):
        (config,) = write_configs(tmp_path, order)
        assert "after plan newer" in config.read_text()


def test_a_plan_without_events_has_results_and_a_dashboard(tmp_path: Path) -> None:
    written = rebuild(tmp_path, "p", {})
    assert [path.name for path in written] == ["p_results.json", "p_dashboard.html", "p_dashboard.png"]
    assert RetrainingResults.model_validate_json(written[0].read_bytes()).plan_id == "p"


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "p_results.json").mkdir()
    with pytest.raises(OSError, match=r"p_results\.json"):
        rebuild(tmp_path, "p", {})
    assert [path.name for path in tmp_path.iterdir()] == ["p_results.json"]


def test_results_markdown_has_a_metrics_table_with_the_best_in_bold() -> None:
    markdown = results_markdown(fold_results(sample_events()))
    assert "## hcrl_sa: completed" in markdown
    assert "| test_04_unknown_vehicle_unknown_attack | fusion | undefined |" in markdown
    assert "| teacher_gat | **0." in markdown
    assert "mlp_fusion (baseline)" in markdown
    assert "<script>" not in markdown.replace("\\<script\\>", "")
    widths = {
        line.replace("\\|", "").count("|") for line in markdown.splitlines() if line.startswith("| test_0")
    }
    assert widths == {10}


def test_metrics_rows_are_plain_text() -> None:
    rows = metrics_rows(fold_results(sample_events()))
    assert len(rows) == 7 * 4
    assert all(isinstance(value, str) for row in rows for value in row.values())


def test_recommendation_markdown_has_reasons_and_settings() -> None:
    fact = ConfigRecommended(device_name="CPU", settings={"training": {"epochs": 3}}, reasons=["a|b <c>"])
    assert recommendation_markdown(fact) == (
        "# Recommended settings for CPU\n\n"
        "Nothing to change: what was measured speaks for the settings as they are.\n\n"
        "## What was found\n\n- a\\|b \\<c\\>\n\n"
        "## The whole settings file\n\n```yaml\ntraining:\n  epochs: 3\n```\n"
    )


def test_dashboard_markdown_holds_the_picture() -> None:
    assert dashboard_markdown(b"\x89PNG") == "![Dashboard](data:image/png;base64,iVBORw==)\n"


def test_fusion_has_to_be_ahead_of_students_and_baselines_but_not_of_teachers() -> None:
    def dataset(fusion: float | None, **others: float | None) -> DatasetResult:
        scores = {"fusion": fusion, **others}
        return DatasetResult(metrics={model: {"t": {"mcc": mcc}} for model, mcc in scores.items()})

    assert fusion_verdict(dataset(0.9, student_gat=0.8, teacher_gat=0.95)).earned
    behind = fusion_verdict(dataset(0.9, student_gat=0.8, mlp_fusion=0.9))
    assert not behind.earned
    assert (behind.num_ahead, behind.num_folders, behind.rival) == (0, 1, "mlp_fusion")
    assert "no verdict" in fusion_verdict(dataset(None, student_gat=0.8)).sentence()
    assert "no verdict" in fusion_verdict(DatasetResult()).sentence()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (12_345, "12\u202f345"), (0.98765, "0.988"), (0.0071, "0.0071"), (5.6, "5.60"),
        (0.0, "0.000"), (31.26, "31.3"), (250.4, "250"), (1e-6, "1.0e-06"), (123456.7, "123\u202f457"),
        (-0.25, "-0.250"), (1.0, "1.000"),
    ],
)  # fmt: skip
def test_numbers_have_as_many_digits_as_a_reader_can_use(value: float, text: str) -> None:
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.25, "0.2 s"), (42.4, "42 s"), (59.7, "1 min 00 s"), (392.6, "6 min 33 s"),
     (50_700.0, "14 h 05 min")],
)  # fmt: skip
def test_durations_read_well(seconds: float | None, text: str) -> None:
    assert format_duration(seconds) == text


def test_memory_reads_well() -> None:
    assert [format_memory(mib) for mib in (None, 640.0, 12_902.4)] == ["–", "640 MiB", "12.6 GiB"]


def test_a_metric_that_is_null_says_why() -> None:
    assert format_metric({"f1": None, "labelled": 1}, "f1") == "undefined"
    assert format_metric({"f1": None, "labelled": 0}, "f1") == "unlabelled"
    assert format_metric({}, "f1") == "–"
