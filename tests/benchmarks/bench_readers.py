"""Speed and memory of the readers: ``python -m tests.benchmarks.bench_readers [frames]``.

Each format is read from a file in the page cache; the best of five passes counts, as passes are disturbed by
other work and never sped up by it. Memory is the growth of a fresh process with everything imported.
"""

import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from core.can.readers import open_capture

RESULTS = Path(__file__).parent / "results" / "readers.json"
BATCH = 200_000
FORMATS = ("can-train-and-test", "hcrl-csv", "hcrl-txt", "candump-log", "candump-console")


def lines(name: str, num_frames: int) -> Iterator[pl.Series]:
    """Frames with ids and payloads drawn at random, in batches of lines."""
    rng = np.random.default_rng(0)
    for first in range(0, num_frames, BATCH):
        size = min(BATCH, num_frames - first)
        digits = rng.bytes(8 * size).hex().upper()
        micros = 1_672_531_200_000_000 + 230 * np.arange(first, first + size)
        table = pl.DataFrame(
            {
                "seconds": micros // 1_000_000,
                "micros": micros % 1_000_000,
                "id": [f"{number:03X}" for number in rng.integers(0, 0x800, size)],
                "data": [digits[16 * i : 16 * i + 16] for i in range(size)],
                "attack": rng.integers(0, 2, size),
            }
        ).with_columns(time=pl.format("{}.{}", "seconds", pl.col("micros").cast(pl.String).str.zfill(6)))
        octets = pl.concat_list(pl.col("data").str.slice(2 * k, 2) for k in range(8))
        line = {
            "can-train-and-test": pl.format("{},{},{},{}", "time", "id", "data", "attack"),
            "hcrl-csv": pl.format("{},0{},8,{},R", "time", "id", octets.list.join(",")),
            "hcrl-txt": pl.format(
                "Timestamp: {}        ID: 0{}    000    DLC: 8    {}", "time", "id", octets.list.join(" ")
            ),
            "candump-log": pl.format("({}) can0 {}#{}", "time", "id", "data"),
            "candump-console": pl.format(" ({})  can0  {}   [8]  {}", "time", "id", octets.list.join(" ")),
        }[name]
        yield table.select(line=line)["line"]


def memory_mib(field: str) -> float:
    """Resident memory of this process now (``VmRSS``) or at its peak (``VmHWM``)."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))


def measure(path: Path) -> dict[str, float]:
    """Read a capture five times; to be run in a fresh process, whose peak memory is the readers'."""
    before = memory_mib("VmRSS")
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        reader = open_capture(path, attack_rule=None, max_quarantined_fraction=0.01)
        num_frames = sum(map(len, reader))
        seconds.append(time.perf_counter() - started)
    return {
        "frames": num_frames,
        "quarantined": reader.quarantine.num_rows,
        "frames_per_s": round(num_frames / min(seconds)),
        "frames_per_s_median": round(num_frames / sorted(seconds)[2]),
        "bytes_per_s": round(path.stat().st_size / min(seconds)),
        "grown_mib": round(memory_mib("VmHWM") - before),
    }


def write(path: Path, name: str, num_frames: int) -> None:
    """Write a capture; in ``bad-rows`` one label in a thousand is bad."""
    is_csv = name in {"can-train-and-test", "bad-rows"}
    with path.open("w") as file:
        if is_csv:
            file.write("timestamp,arbitration_id,data_field,attack\n")
        for batch in map(list, lines("can-train-and-test" if is_csv else name, num_frames)):
            if name == "bad-rows":
                batch[500::1000] = [f"{line}x" for line in batch[500::1000]]
            file.write("\n".join(batch) + "\n")


def main() -> None:
    """Measure every text format, and the CSV with bad rows, and write the results."""
    num_frames = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    results = {}
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        for name in (*FORMATS, "bad-rows"):
            path = Path(folder, name)
            write(path, name, num_frames)
            with spawn.Pool(1) as pool:
                results[name] = pool.apply(measure, (path,))
            path.unlink()
            sys.stdout.write(f"{name}: {json.dumps(results[name])}\n")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"cpus": os.cpu_count(), "formats": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
