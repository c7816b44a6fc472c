"""Memory of a build does not grow with the capture."""

from pathlib import Path

import pytest

from tests.benchmarks.bench_graphs import build_apart, write_capture


@pytest.mark.slow
def test_memory_does_not_grow_with_the_capture(tmp_path: Path) -> None:
    peaks = []
    for num_frames in (500_000, 2_000_000):
        write_capture(tmp_path / str(num_frames) / "capture.csv", num_frames)
        peaks.append(build_apart(tmp_path / str(num_frames))["peak_bytes"])
    assert peaks[1] < peaks[0] + 32 * 2**20
    assert peaks[1] < 600 * 2_000_000
