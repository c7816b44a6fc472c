"""Telemetry files: atomic, partitioned, tolerant of other releases and strict about damage."""

import shutil
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from core.errors import DamagedLogError, EventLogError
from core.events.seal import encode_frame
from core.events.telemetry import (
    FLUSHES_PER_MERGE,
    SAMPLE_SCHEMA,
    TELEMETRY_SCHEMA,
    ResourceSample,
    TelemetryWriter,
    read_telemetry,
    reduce_telemetry,
)

START = datetime(2026, 11, 3, 9, 15, tzinfo=UTC)


def sample(second: int, **values: float) -> ResourceSample:
    return ResourceSample(occurred_at=START + timedelta(seconds=second), cpu_percent=float(second), **values)  # type: ignore[arg-type]


def files_of(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


GOLDEN = Path(__file__).parents[2] / "golden_telemetry" / "0.2.0"


def test_a_file_has_the_fields_of_a_sample_as_columns() -> None:
    assert SAMPLE_SCHEMA.names() == [field.name for field in fields(ResourceSample)]


def test_telemetry_of_an_earlier_release_is_read_as_it_was_written() -> None:
    frame = read_telemetry(GOLDEN)
    assert frame.schema == TELEMETRY_SCHEMA
    (old,) = (pl.read_parquet_schema(file) for file in GOLDEN.rglob("dataset=demo/*.parquet"))
    assert all(TELEMETRY_SCHEMA[name] == kind for name, kind in old.items()), "no column may change its type"
    assert frame["dataset"].value_counts().sort("dataset").rows() == [("demo", 10), ("hcrl_ch", 3)]
    demo = frame.filter(dataset="demo")
    assert demo["gpu_index"].to_list() == [0, 1] * 5
    assert demo["gpu_utilization_percent"].to_list() == [90.0, 89.0] * 5
    assert demo["cpu_percent"].to_list() == [50.0 + second for second in range(5) for _ in range(2)]
    later = [name for name in SAMPLE_SCHEMA if name not in old]
    assert frame.select(later).null_count().row(0) == (13,) * len(later)


def test_telemetry_of_an_earlier_release_stays_readable_beside_ours(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "t")
    plan = next(GOLDEN.glob("plan=*")).name.removeprefix("plan=")
    TelemetryWriter(tmp_path / "t", plan, "demo").write([sample(0, gpu_last_xid=79)])
    frame = read_telemetry(tmp_path / "t", plan)
    assert frame.height == 14
    assert frame["gpu_last_xid"].drop_nulls().to_list() == [79]


def test_no_telemetry_is_an_empty_frame_with_the_schema(tmp_path: Path) -> None:
    for frame in (read_telemetry(tmp_path / "nothing"), read_telemetry(tmp_path, "plan")):
        assert frame.is_empty()
        assert frame.schema == TELEMETRY_SCHEMA


def test_samples_come_back_with_plan_and_dataset_in_order_of_time(tmp_path: Path) -> None:
    TelemetryWriter(tmp_path, "p1", "set_02").write([sample(1), sample(3)])
    TelemetryWriter(tmp_path, "p1", "set_01").write([sample(2), sample(0)])
    frame = read_telemetry(tmp_path)
    assert frame.schema == TELEMETRY_SCHEMA
    assert frame["dataset"].to_list() == ["set_01", "set_02", "set_01", "set_02"]
    assert frame["cpu_percent"].to_list() == [0, 1, 2, 3]
    assert frame["occurred_at"][3] == START + timedelta(seconds=3)


def test_only_the_asked_plan_is_read(tmp_path: Path) -> None:
    TelemetryWriter(tmp_path, "p1", "a").write([sample(1)])
    TelemetryWriter(tmp_path, "p10", "a").write([sample(2)])
    assert read_telemetry(tmp_path, "p1")["plan"].to_list() == ["p1"]
    assert read_telemetry(tmp_path)["plan"].to_list() == ["p1", "p10"]


def test_files_lie_in_hive_partitions_that_polars_reads_by_itself(tmp_path: Path) -> None:
    TelemetryWriter(tmp_path, "p1", "set_01").write([sample(1)])
    (file,) = files_of(tmp_path)
    assert file.parent == tmp_path / "plan=p1" / "dataset=set_01"
    assert pl.read_parquet(tmp_path, hive_partitioning=True)["dataset"].to_list() == ["set_01"]


def test_writers_of_the_same_partition_never_overwrite_each_other(tmp_path: Path) -> None:
    for _ in range(3):
        TelemetryWriter(tmp_path, "p", "a").write([sample(1)])
    assert read_telemetry(tmp_path).height == 3


def test_nothing_is_written_for_no_samples(tmp_path: Path) -> None:
    TelemetryWriter(tmp_path, "p", "a").write([])
    assert files_of(tmp_path) == []


def test_torn_temporary_and_foreign_files_are_ignored(tmp_path: Path) -> None:
    writer = TelemetryWriter(tmp_path, "p", "a")
    writer.write([sample(1)])
    (writer.folder / ".0123.tmp").write_bytes(b"PAR1 torn")
    (writer.folder / "notes.txt").write_text("mine")
    (tmp_path / "stray.parquet").write_bytes(b"")
    assert read_telemetry(tmp_path).height == 1


@pytest.mark.parametrize("kept_bytes", [0, 3, 100, -1])
def test_a_damaged_file_among_good_ones_is_refused_by_name(tmp_path: Path, kept_bytes: int) -> None:
    writer = TelemetryWriter(tmp_path, "p", "a")
    for second in range(3):
        writer.write([sample(second)])
    victim = files_of(tmp_path)[1]
    victim.write_bytes(victim.read_bytes()[:kept_bytes])
    with pytest.raises(DamagedLogError, match=victim.name):
        read_telemetry(tmp_path)


def test_a_column_of_another_type_is_refused_by_name(tmp_path: Path) -> None:
    writer = TelemetryWriter(tmp_path, "p", "a")
    writer.write([sample(1)])
    strange = writer.folder / "strange.parquet"
    pl.DataFrame({"occurred_at": [START], "cpu_percent": ["much"]}).write_parquet(strange)
    with pytest.raises(DamagedLogError, match=r"strange\.parquet"):
        read_telemetry(tmp_path)


def test_files_of_other_releases_are_read_beside_ours(tmp_path: Path) -> None:
    writer = TelemetryWriter(tmp_path, "p", "a")
    writer.write([sample(2, gpu_power_w=70.0)])
    pl.DataFrame({"occurred_at": [START], "cpu_percent": [0.0], "fan_rpm": [900]}).write_parquet(
        writer.folder / "other.parquet"
    )
    frame = read_telemetry(tmp_path)
    assert frame.schema == TELEMETRY_SCHEMA
    assert frame["gpu_power_w"].to_list() == [None, 70.0]


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "plan=p").write_text("a file where a folder belongs")
    with pytest.raises(EventLogError, match="plan=p"):
        TelemetryWriter(tmp_path, "p", "a").write([sample(1)])


def test_a_flipped_bit_is_refused_by_name_or_changes_nothing(tmp_path: Path) -> None:
    TelemetryWriter(tmp_path, "p", "d").write([sample(second) for second in range(10)])
    (file,) = files_of(tmp_path)
    written, before = file.read_bytes(), read_telemetry(tmp_path)
    refused = 0
    for at in range(0, len(written), 29):
        file.write_bytes(written[:at] + bytes([written[at] ^ 1]) + written[at + 1 :])
        try:
            assert read_telemetry(tmp_path).equals(before)  # a seal that says nothing is none
        except DamagedLogError as error:
            refused += file.name in str(error)
    assert refused >= len(range(0, len(written), 29)) - 1


def test_files_of_one_flush_are_merged_as_they_become_many_and_at_the_end(tmp_path: Path) -> None:
    writer, other = TelemetryWriter(tmp_path, "p", "a"), TelemetryWriter(tmp_path, "p", "a")
    other.write([sample(1000)])
    for second in range(2 * FLUSHES_PER_MERGE + 3):
        writer.write([sample(second)])
    assert len(files_of(tmp_path)) == 1 + 1 + 3
    writer.merge()
    assert len(files_of(tmp_path)) == 2, "one of each writer"
    seconds = [*range(2 * FLUSHES_PER_MERGE + 3), 1000]
    assert read_telemetry(tmp_path)["cpu_percent"].to_list() == [float(second) for second in seconds]


def test_a_full_file_is_merged_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = TelemetryWriter(tmp_path, "p", "a")
    for second in range(10):
        writer.write([sample(second)])
    writer.merge()
    (full,) = files_of(tmp_path)
    monkeypatch.setattr("core.events.telemetry_files.FULL_BYTES", full.stat().st_size)
    for second in range(10, 12):
        writer.write([sample(second)])
    writer.merge()
    assert len(files_of(tmp_path)) == 2
    assert files_of(tmp_path)[0] == full
    assert read_telemetry(tmp_path).height == 12


def test_merging_keeps_columns_of_other_releases_and_leaves_damaged_files_to_be_told_of(
    tmp_path: Path,
) -> None:
    writer = TelemetryWriter(tmp_path, "p", "a")
    for second in range(4):
        writer.write([sample(second)])
    first, changed, _, victim = files_of(tmp_path)
    changed.write_bytes(encode_frame(pl.DataFrame({"occurred_at": [START], "fan_rpm": [900]})))
    victim.write_bytes(victim.read_bytes()[:-20])
    writer.merge()
    merged, left = files_of(tmp_path)
    assert left == victim
    assert merged.name.startswith(first.name[:53])
    assert pl.read_parquet(merged)["fan_rpm"].to_list() == [None, 900, None]
    with pytest.raises(DamagedLogError, match=victim.name):
        read_telemetry(tmp_path)


def test_a_renamed_file_that_holds_samples_of_another_is_refused(tmp_path: Path) -> None:
    writer = TelemetryWriter(tmp_path, "p", "a")
    for second in range(3):
        writer.write([sample(second)])
    writer.merge()
    (merged,) = files_of(tmp_path)
    merged.with_name(merged.name.replace("00000000-00000002", "00000001-00000003")).write_bytes(b"")
    with pytest.raises(DamagedLogError, match="same samples"):
        read_telemetry(tmp_path)


def test_files_merged_away_while_they_are_read_are_read_in_what_replaces_them(
    tmp_path: Path,
) -> None:
    writer = TelemetryWriter(tmp_path, "p", "a")
    for second in range(3):
        writer.write([sample(second)])
    tries = []

    def reduce(samples: pl.LazyFrame) -> int:
        tries.append(len(files_of(tmp_path)))
        if len(tries) == 1:
            writer.merge()
        return samples.select("cpu_percent").collect(engine="streaming").height

    assert reduce_telemetry(tmp_path, "p", reduce) == 3
    assert tries == [3, 1]


def test_a_failed_flush_leaves_nothing_that_would_count_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = TelemetryWriter(tmp_path, "p", "a")
    writer.write([sample(0)])

    def fail(folder: Path) -> None:
        raise OSError(5, "Input/output error", str(folder))

    with monkeypatch.context() as failing:
        failing.setattr("core.events.files.fsync_folder", fail)
        with pytest.raises(EventLogError, match="Input/output error"):
            writer.write([sample(1)])
    writer.write([sample(1), sample(2)])
    writer.merge()
    assert read_telemetry(tmp_path)["cpu_percent"].to_list() == [0.0, 1.0, 2.0]
