"""Cost of resource sampling: ``python -m tests.benchmarks.bench_sampler``.

CPU time of the sampling process, the writing of telemetry included, over a real training-process tree (one
process with four children) at real intervals. The GPU's driver is the fake of the tests, answering at once:
what our side of it costs. Sampled at 1 and 10 Hz; a share of 1 % is 10 ms of CPU time per second.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import pynvml

from core.events.telemetry import TelemetryWriter
from core.resources.probes import Probe
from core.resources.sampler import sample_until
from core.resources.usage import Usage
from tests.fake_nvml import Board, FakeNvml
from tests.unit.resources.test_gpu import HOPPER

NUM_CHILDREN, DURATION_S, NUM_CALLS = 4, 30.0, 2000
RESULTS = Path(__file__).parent / "results" / "sampler.json"
TREE = """
import subprocess, sys
children = [
    subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) for _ in range(int(sys.argv[1]))
]
print("ready", flush=True)
input()
for child in children:
    child.communicate(b"\\n")
"""


@contextmanager
def training_tree() -> Iterator[int]:
    """A process with children, by its id."""
    command = [sys.executable, "-c", TREE, str(NUM_CHILDREN)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        yield process.pid
        process.communicate("\n")


def cpu_share(pid: int, nvml: Any, interval_s: float) -> dict[str, float]:
    """Sample and write for a while, and say what it took."""
    ended = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        probe = Probe(Path(folder), lambda: [pid], nvml)
        num_samples = 0

        def sample() -> list[Any]:
            nonlocal num_samples
            num_samples += 1
            return probe.sample()

        timer = threading.Timer(DURATION_S, ended.set)
        timer.start()
        began, cpu = time.perf_counter(), time.process_time()
        sample_until(
            ended.wait,
            sample,
            TelemetryWriter(Path(folder), "p", "d").write,
            interval_s=interval_s,
            flush_interval_s=10.0,
        )
        cpu, took_s = time.process_time() - cpu, time.perf_counter() - began
        num_bytes = sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))
    return {
        "cpu_percent_of_one_core": round(100 * cpu / took_s, 3),
        "cpu_ms_per_sample": round(1000 * cpu / num_samples, 3),
        "num_samples": num_samples,
        "bytes_per_sample": round(num_bytes / num_samples),
    }


def usage_us() -> dict[str, float]:
    """Microseconds of one question of the adaptive optimizer."""
    usage = Usage(FakeNvml(Board("GPU-a")))
    found = {}
    for name, question in (("gpu_percent", usage.gpu_percent), ("ram_percent", usage.ram_percent)):
        question()
        cpu = time.process_time()
        for _ in range(NUM_CALLS):
            question()
        found[name] = round(1e6 * (time.process_time() - cpu) / NUM_CALLS, 1)
    return found


def main() -> None:
    """Measure and write the results."""
    absent = FakeNvml()
    absent.broken = pynvml.NVMLError_LibraryNotFound()
    gpu = Board("GPU-a", gpm=HOPPER)
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "platform": platform.platform(),
            "num_cpus": os.cpu_count(),
            "num_processes": len(psutil.pids()),
            "load_average": os.getloadavg()[0],
        },
        "versions": {name: version(name) for name in ("psutil", "nvidia-ml-py", "polars")},
        "num_training_processes": 1 + NUM_CHILDREN,
        "usage_us_per_call": usage_us(),
    }
    with training_tree() as pid:
        for name, nvml in (("no_gpu", absent), ("one_gpu", FakeNvml(gpu)), ("four_gpus", four_gpus())):
            for interval_s in (1.0, 0.1):
                found[f"{name}_at_{1 / interval_s:.0f}_hz"] = cpu_share(pid, nvml, interval_s)
    text = json.dumps(found, indent=1)
    RESULTS.write_text(text + "\n")
    print(text)


def four_gpus() -> FakeNvml:
    """A machine with four GPUs, each with everything to be measured."""
    return FakeNvml(*(Board(f"GPU-{number}", gpm=HOPPER) for number in range(4)))


if __name__ == "__main__":
    main()
