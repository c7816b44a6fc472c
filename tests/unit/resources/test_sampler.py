"""The sampling loop keeps its schedule and loses nothing."""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.errors import EventLogError
from core.events.telemetry import ResourceSample, TelemetryWriter, read_telemetry
from core.resources.probes import Probe
from core.resources.sampler import beside, sample_until
from tests.commands import wait_for
from tests.fake_nvml import Board, FakeNvml


def one_sample() -> list[ResourceSample]:
    return [ResourceSample(occurred_at=datetime.now(UTC))]


def stop_after(num_waits: int) -> Callable[[float], bool]:
    waits = iter(range(1, num_waits + 1))

    def stopped(seconds: float) -> bool:
        time.sleep(seconds)
        return next(waits) == num_waits

    return stopped


def test_samples_of_this_machine_reach_the_disk(tmp_path: Path) -> None:
    stop = threading.Event()
    probe, writer = Probe(tmp_path), TelemetryWriter(tmp_path, "p", "a")

    def num_there() -> int:
        return read_telemetry(tmp_path)["occurred_at"].n_unique()

    loop = threading.Thread(
        target=sample_until,
        args=(stop.wait, probe.sample, writer.write),
        kwargs={"interval_s": 0.02, "flush_interval_s": 0.1},
    )
    loop.start()
    wait_for(lambda: num_there() > 5)
    num_seen = num_there()
    wait_for(lambda: num_there() > num_seen)
    stop.set()
    loop.join()
    frame = read_telemetry(tmp_path)
    assert frame["ram_total_mib"].min() == frame["ram_total_mib"].max()
    assert len(list(writer.folder.iterdir())) > 1


def test_the_first_sample_is_taken_and_written_even_if_stopped_at_once() -> None:
    written: list[ResourceSample] = []
    stop = threading.Event()
    stop.set()
    sample_until(stop.wait, one_sample, written.extend, interval_s=60, flush_interval_s=60)
    assert len(written) == 1


def test_stopping_does_not_wait_for_the_next_sample() -> None:
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    began = time.monotonic()
    sample_until(stop.wait, one_sample, lambda rows: None, interval_s=60, flush_interval_s=60)
    assert time.monotonic() - began < 30


class Time:
    """Passes while somebody samples or waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, sample_s: float, num_waits: int) -> None:
        self.now_s, self.sample_s, self.num_waits = 0.0, sample_s, num_waits
        self.moments: list[float] = []
        self.waits: list[float] = []
        monkeypatch.setattr("core.resources.sampler.time", SimpleNamespace(monotonic=lambda: self.now_s))

    def sample(self) -> list[ResourceSample]:
        self.moments.append(self.now_s)
        self.now_s += self.sample_s
        return one_sample()

    def stopped(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now_s += seconds
        return len(self.waits) == self.num_waits


def test_slow_samples_do_not_make_the_schedule_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    passing = Time(monkeypatch, sample_s=0.03, num_waits=10)
    sample_until(passing.stopped, passing.sample, lambda rows: None, interval_s=0.1, flush_interval_s=60)
    assert passing.moments == pytest.approx([0.1 * number for number in range(10)])


def test_missed_moments_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    passing = Time(monkeypatch, sample_s=0.07, num_waits=3)
    sample_until(passing.stopped, passing.sample, lambda rows: None, interval_s=0.03, flush_interval_s=60)
    assert passing.moments == pytest.approx([0.0, 0.09, 0.18])
    assert all(0 < wait <= 0.03 for wait in passing.waits)


def test_samples_are_flushed_when_sampling_fails() -> None:
    written: list[ResourceSample] = []
    results = iter([one_sample(), one_sample()])
    with pytest.raises(StopIteration):
        sample_until(
            stop_after(9), lambda: next(results), written.extend, interval_s=0.001, flush_interval_s=60
        )
    assert len(written) == 2


def test_samples_that_could_not_be_written_are_written_later(caplog: pytest.LogCaptureFixture) -> None:
    written: list[ResourceSample] = []
    attempts: list[int] = []

    def write(rows: Sequence[ResourceSample]) -> None:
        attempts.append(len(rows))
        if len(attempts) < 4:
            raise EventLogError("disk full")
        written.extend(rows)

    sample_until(stop_after(6), one_sample, write, interval_s=0.001, flush_interval_s=0)
    assert attempts[:4] == [1, 2, 3, 4]
    assert len(written) == 6
    assert [record.getMessage() for record in caplog.records] == ["resource samples are held back: disk full"]


def test_samples_that_cannot_be_written_in_the_end_are_an_error() -> None:
    def write(rows: Sequence[ResourceSample]) -> None:
        raise EventLogError("disk full")

    with pytest.raises(EventLogError, match="disk full"):
        sample_until(stop_after(3), one_sample, write, interval_s=0.001, flush_interval_s=0)


def test_sampling_ends_with_what_it_runs_beside_even_if_that_fails() -> None:
    ended, written = threading.Event(), list[ResourceSample]()

    def run() -> None:
        sample_until(ended.wait, one_sample, written.extend, interval_s=60, flush_interval_s=60)

    def train() -> None:
        with beside(run, ended, "sampler"):
            raise ValueError("training failed")

    with pytest.raises(ValueError, match="training failed"):
        train()
    assert len(written) == 1
    assert "sampler" not in {thread.name for thread in threading.enumerate()}


def test_a_call_that_blocks_does_not_hold_up_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ended, measuring = threading.Event(), threading.Event()
    nvml = FakeNvml(Board("GPU-a"))
    written: list[ResourceSample] = []

    def run() -> None:
        probe = Probe(tmp_path, nvml=nvml)
        probe.sample()
        nvml.gate.clear()
        measuring.set()
        sample_until(ended.wait, probe.sample, written.extend, interval_s=60, flush_interval_s=60)

    with beside(run, ended, "sampler", patience_s=0.1):
        measuring.wait()
    (left,) = (thread for thread in threading.enumerate() if thread.name == "sampler")
    assert "sampler has not ended" in caplog.text
    assert written == []
    nvml.gate.set()
    left.join()
    assert len(written) == 1, "once the driver answers, the sample is written after all"
