"""CSV -> graph store: frames per second and memory, beside a frame-by-frame peer, on this machine.

Run with ``python -m tests.benchmarks.bench_graphs``; writes ``results/graphs.json``. Every build runs in a
fresh process. The peer is the tests' reference (plain Python and networkx) on a sample of the same capture.
"""

import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from core.can.frames import Frames
from core.can.graphs import build_graph_store
from core.can.readers import open_capture
from core.can.registry import find_captures
from core.events.catalogue import Fact, GraphsBuilt
from settings.app import Settings, load_settings
from tests.reference.graphs import reference_graphs

NUM_FRAMES = 2_000_000
LARGER = 4
PEER_FRAMES = 20_000
REPEATS = 3
RESULT = Path(__file__).parent / "results" / "graphs.json"


def make_frames(num_frames: int, seed: int = 0) -> Frames:
    """Traffic like a car's: 45 ids, each sent every 10 to 1000 ms, some bytes changing."""
    rng = np.random.default_rng(seed)
    num_ids = 45
    pool = np.sort(rng.choice(2048, num_ids, replace=False)).astype(np.uint32)
    period = rng.choice([0.01, 0.01, 0.02, 0.02, 0.05, 0.1, 0.2, 1.0], num_ids)
    counts = np.ceil(num_frames / period / (1 / period).sum()).astype(np.int64)
    slot = np.repeat(np.arange(num_ids), counts)
    beat = np.arange(len(slot)) - np.repeat(np.cumsum(counts) - counts, counts)
    timestamp = (beat + rng.random(num_ids)[slot] + rng.normal(1.0, 0.005, len(slot))) * period[slot]
    order = np.argsort(timestamp)[:num_frames]
    slot, timestamp = slot[order], timestamp[order]
    constant = rng.integers(0, 256, (num_ids, 8), dtype=np.uint8)[slot]
    changes = (rng.random((num_ids, 8)) < 0.4)[slot]
    payload = np.where(changes, rng.integers(0, 256, (num_frames, 8), dtype=np.uint8), constant)
    return Frames(
        timestamp=timestamp,
        arbitration_id=pool[slot],
        extended=np.zeros(num_frames, bool),
        remote=np.zeros(num_frames, bool),
        length=np.full(num_frames, 8, np.uint8),
        payload=payload,
        attack=(rng.random(num_frames) < 5e-4).astype(np.int8),
    )


def write_capture(path: Path, num_frames: int) -> None:
    """A can-train-and-test CSV."""
    path.parent.mkdir(parents=True)
    frames = make_frames(num_frames)
    hex_ids = np.array([f"{i:03X}" for i in range(2048)])
    digits = np.frombuffer(frames.payload.tobytes().hex().upper().encode(), "S16").astype("U16")
    columns = {
        "timestamp": frames.timestamp,
        "arbitration_id": hex_ids[frames.arbitration_id],
        "data_field": digits,
        "attack": frames.attack,
    }
    pl.DataFrame(columns).write_csv(path, float_precision=6)


def settings_for(folder: Path) -> Settings:
    layout = {"folder": str(folder), "attack_free": (), "with_attacks": ("*.csv",), "tests": ()}
    return load_settings(data={"datasets": {"bench": layout}})


def peak_bytes() -> int:
    """Largest resident memory of this program so far (``ru_maxrss`` would count its parent's)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def build(folder: Path, cache_dir: Path) -> dict[str, float]:
    """Build once in this process, which must be fresh for the peak to be the build's."""
    settings = settings_for(folder)
    before = peak_bytes()
    facts: list[Fact] = []
    started, cpu = time.perf_counter(), time.process_time()
    build_graph_store("bench", find_captures("bench", settings.data), "d", settings, cache_dir, facts.append)
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = peak_bytes()
    (built,) = (fact for fact in facts if isinstance(fact, GraphsBuilt))
    return {
        "frames_per_s": built.num_frames / elapsed,
        "frames_per_cpu_s": built.num_frames / cpu,
        "nodes_per_graph": built.num_nodes / built.num_graphs,
        "edges_per_graph": built.num_edges / built.num_graphs,
        "bytes_before": before,
        "peak_bytes": peak,
        "peak_bytes_per_frame": peak / built.num_frames,
    }


def build_apart(folder: Path) -> dict[str, float]:
    """Build in a fresh process, into a cache that is gone afterwards."""
    with (
        tempfile.TemporaryDirectory() as cache,
        multiprocessing.get_context("spawn").Pool(1) as pool,
    ):
        return pool.apply(build, (folder, Path(cache)))


def peer_frames_per_cpu_s(path: Path) -> float:
    frames = next(iter(open_capture(path, attack_rule=None, max_quarantined_fraction=0.0)))[:PEER_FRAMES]
    started = time.process_time()
    reference_graphs(frames, 100, 100)
    return len(frames) / (time.process_time() - started)


def main() -> None:
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder, "small"), Path(folder, "large")
        write_capture(small / "capture.csv", NUM_FRAMES)
        write_capture(large / "capture.csv", LARGER * NUM_FRAMES)
        builds = [build_apart(small) for _ in range(REPEATS)]
        larger = build_apart(large)
        peer = peer_frames_per_cpu_s(small / "capture.csv")
    median = {name: statistics.median(run[name] for run in builds) for name in builds[0]}
    result: dict[str, Any] = {
        "machine": {
            "cpu_count": os.cpu_count(),
            "load_average": load,
            "processor": platform.machine(),
            "numpy": np.__version__,
        },
        "window": 100,
        "num_frames": NUM_FRAMES,
        "store": median,
        "all_frames_per_s": [run["frames_per_s"] for run in builds],
        "larger": {"num_frames": LARGER * NUM_FRAMES, **larger},
        "peak_growth": larger["peak_bytes"] / median["peak_bytes"],
        "peer_frames_per_cpu_s": peer,
        "times_faster_than_peer_per_core": median["frames_per_cpu_s"] / peer,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
