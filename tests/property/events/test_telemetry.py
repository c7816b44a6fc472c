"""Whatever is written as telemetry is read back."""

import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_type_hints

from hypothesis import given, settings
from hypothesis import strategies as st

from core.events.telemetry import ResourceSample, TelemetryWriter, read_telemetry

VALUES = {
    datetime: st.datetimes(
        min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)
    ),
    float | None: st.none() | st.floats(allow_nan=False),
    int | None: st.none() | st.integers(-(2**63), 2**63 - 1),
    str | None: st.none() | st.text(),
}
samples = st.builds(
    ResourceSample, **{name: VALUES[kind] for name, kind in get_type_hints(ResourceSample).items()}
)
names = st.sampled_from(["p", "d"]) | st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20
)
flushes = st.lists(st.tuples(names, names, st.lists(samples, max_size=4)), max_size=5)


def _content(row: dict[str, Any]) -> str:
    return repr([value.timestamp() if isinstance(value, datetime) else value for value in row.values()])


@settings(deadline=None, max_examples=60)
@given(flushes, st.integers(0, 4))
def test_every_sample_comes_back_under_its_plan_and_dataset(
    written: list[tuple[str, str, list[ResourceSample]]], merge_after: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "telemetry"
        writers: dict[tuple[str, str], TelemetryWriter] = {}
        for plan, dataset, rows in written:
            writer = writers.setdefault((plan, dataset), TelemetryWriter(root, plan, dataset))
            writer.write(rows)
            if len(rows) == merge_after:
                writer.merge()
        expected = [{"plan": p, "dataset": d, **asdict(row)} for p, d, rows in written for row in rows]
        frame = read_telemetry(root)
        by_content = sorted(expected, key=_content)
        assert sorted(frame.iter_rows(named=True), key=_content) == by_content
        assert frame["occurred_at"].is_sorted()
        for plan in {plan for plan, _, _ in written}:
            assert read_telemetry(root, plan).height == sum(row["plan"] == plan for row in expected)
