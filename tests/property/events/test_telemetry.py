"""Whatever is written as telemetry is read back."""

import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from core.events.telemetry import ResourceSample, TelemetryWriter, read_telemetry

number = st.none() | st.floats(allow_nan=False)
samples = st.builds(
    ResourceSample,
    occurred_at=st.datetimes(
        min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)
    ),
    cpu_percent=number,
    ram_used_mib=number,
    ram_total_mib=number,
    process_rss_mib=number,
    disk_free_mib=number,
    gpu_index=st.none() | st.integers(0, 15),
    gpu_name=st.none() | st.text(),
    gpu_utilization_percent=number,
    vram_used_mib=number,
    vram_total_mib=number,
    gpu_power_w=number,
    gpu_temperature_c=number,
)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
flushes = st.lists(st.tuples(names, names, st.lists(samples, max_size=4)), max_size=5)


def _content(row: dict[str, Any]) -> str:
    return repr([value.timestamp() if isinstance(value, datetime) else value for value in row.values()])


@settings(deadline=None, max_examples=60)
@given(flushes)
def test_every_sample_comes_back_under_its_plan_and_dataset(
    written: list[tuple[str, str, list[ResourceSample]]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "telemetry"
        for plan, dataset, rows in written:
            TelemetryWriter(root, plan, dataset).write(rows)
        expected = [{"plan": p, "dataset": d, **asdict(row)} for p, d, rows in written for row in rows]
        frame = read_telemetry(root)
        by_content = sorted(expected, key=_content)
        assert sorted(frame.iter_rows(named=True), key=_content) == by_content
        assert frame["occurred_at"].is_sorted()
        for plan in {plan for plan, _, _ in written}:
            assert read_telemetry(root, plan).height == sum(row["plan"] == plan for row in expected)
