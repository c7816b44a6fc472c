"""What supervision costs, and how soon training goes on after each kind of failure.

python -m tests.benchmarks.bench_supervision [--runs N] [--load TEXT]
writes tests/benchmarks/results/supervision.json.

Overhead: the demo's teacher is trained in a plain process that tells nobody anything, and in a supervised one
whose beats are followed, whose facts are appended to an event log and which is sampled once a second; by
turns, the same work each time. Both are timed inside, without the start of a process. CPU time is compared
too, the supervisor's included, because wall time on a busy machine says little.
"""

import argparse
import json
import os
import pickle
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from core.errors import TrainingProcessError
from core.events.catalogue import ChainStarted, Emit, Fact, to_event
from core.events.heartbeat import beat
from core.events.log import EventLog
from core.events.telemetry import TelemetryWriter
from core.planning.chain import Chain
from core.planning.coordinator import RetrainingCoordinator
from core.resources.machine import probe_machine
from core.resources.probes import Probe
from core.resources.process import TrainingProcess
from core.resources.sampler import sample_until
from core.training.job import PhaseJob
from settings.app import load_settings

RESULTS = Path(__file__).parent / "results"
HERE = "tests.benchmarks.bench_supervision"
HANG_TIMEOUT_S = 2.0
FAILURES = ("killed", "crash", "hang", "host_oom", "bug")


def train(job: PhaseJob, emit: Emit) -> tuple[float, float]:
    """Wall and CPU seconds of the teacher phase, in the training process."""
    from core.training import phases

    wall, cpu = time.perf_counter(), time.process_time()
    phases.train_teacher(job, emit)
    return time.perf_counter() - wall, time.process_time() - cpu


def fail(how: str, emit: Emit) -> None:
    """Fail in one of many ways, right after a fact."""
    import ctypes
    import signal

    import torch

    emit(ChainStarted(dataset=how))
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "crash":
        ctypes.string_at(0)
    if how == "hang":
        threading.Event().wait()
    if how == "host_oom":
        torch.empty(1 << 50)
    raise ValueError(how)


def ready(emit: Emit) -> None:
    """What a phase does before anything else."""
    import torch

    torch.zeros(1)


def measure_overhead(folder: Path, num_runs: int) -> dict[str, Any]:
    """Train plainly and supervised, by turns."""
    coordinator = RetrainingCoordinator(
        load_settings(
            output_dir=folder,
            data={"demo": {"duration_s": 20.0}},
            graph={"window": 50},
            training={"epochs": 4, "patience": 4, "num_threads": 1},
        )
    )
    plan = coordinator.create_retraining_plan(datasets=["demo"])
    coordinator.begin(plan)
    with Chain(folder, plan.plan_id, "demo") as chain:
        chain.run_phase("graphs")
        job = chain.job("teacher", chain.next_attempt("teacher"))
    plain, supervised = [], []
    for number in range(num_runs):
        own = replace(job, checkpoints_dir=folder / f"c{number}", models_dir=folder / f"m{number}")
        plain.append(_train_plainly(replace(own, checkpoints_dir=folder / f"p{number}"), folder))
        supervised.append(_train_supervised(own, folder, coordinator.log))
    began = time.perf_counter()
    for step in range(100_000):
        beat("training teacher_vgae", epoch=1, step=step, num_steps=100_000)
    return {
        "plain_wall_s": [run[0] for run in plain],
        "plain_cpu_s": [run[1] for run in plain],
        "supervised_wall_s": [run[0] for run in supervised],
        "supervised_cpu_s": [run[1] for run in supervised],
        "supervisor_cpu_s": [run[2] for run in supervised],
        "wall_overhead_percent": _percent_more([r[0] for r in plain], [r[0] for r in supervised]),
        "cpu_overhead_percent": _percent_more([r[1] for r in plain], [r[1] + r[2] for r in supervised]),
        "supervisor_cpu_percent_of_wall": 100 * statistics.median(r[2] / r[0] for r in supervised),
        "beat_us": (time.perf_counter() - began) * 10,
    }


def _train_plainly(job: PhaseJob, folder: Path) -> tuple[float, float]:
    path = folder / "job.pickle"
    path.write_bytes(pickle.dumps(job))
    done = subprocess.run(
        [sys.executable, "-m", HERE, "--plain", str(path)], check=True, stdout=subprocess.PIPE, text=True
    )
    wall_s, cpu_s = json.loads(done.stdout.splitlines()[-1])
    return wall_s, cpu_s


def _train_supervised(job: PhaseJob, folder: Path, log: EventLog) -> tuple[float, float, float]:
    ended = threading.Event()
    with TrainingProcess("bench", folder / "process_logs") as process:
        process.run(f"{HERE}:ready", on_fact=print)
        sampler = threading.Thread(
            target=lambda: sample_until(
                ended.wait,
                Probe(folder, lambda: [process.pid] if process.pid else []).sample,
                TelemetryWriter(folder / "telemetry", "bench", "demo").write,
                interval_s=1.0,
                flush_interval_s=10.0,
            )
        )
        own = time.process_time()
        sampler.start()

        def append(fact: Fact) -> None:
            log.append([to_event("bench", fact)])

        wall_s, cpu_s = process.run(f"{HERE}:train", job, on_fact=append, timeout_s=600.0)
        own = time.process_time() - own
        ended.set()
        sampler.join()
    return wall_s, cpu_s, own


def measure_recovery(folder: Path, num_runs: int) -> dict[str, dict[str, Any]]:
    """Seconds from a failure to its being known, and from there to the next process having loaded torch."""
    found: dict[str, dict[str, Any]] = {}
    for how in FAILURES:
        known_s, ready_s, kinds = [], [], set()
        for _ in range(num_runs):
            with TrainingProcess(how, folder) as process:
                failed_at: list[float] = []

                def fails_now(fact: Fact, at: list[float] = failed_at) -> None:
                    at.append(time.perf_counter())

                process.run(f"{HERE}:ready", on_fact=print)  # loading torch is no part of a hang
                try:
                    process.run(
                        f"{HERE}:fail",
                        how,
                        on_fact=fails_now,
                        timeout_s=HANG_TIMEOUT_S if how == "hang" else None,
                    )
                except TrainingProcessError as error:
                    kinds.add(error.kind)
                known = time.perf_counter()
                process.run(f"{HERE}:ready", on_fact=print)
                known_s.append(known - failed_at[0])
                ready_s.append(time.perf_counter() - known)
        found[how] = {
            "kind": ", ".join(sorted(kinds)),
            "known_after_s": statistics.median(known_s),
            "next_process_ready_after_s": statistics.median(ready_s),
        }
    return found


def _percent_more(before: list[float], after: list[float]) -> float:
    """Median over pairs of neighbours."""
    return 100 * (statistics.median(b / a for a, b in zip(before, after, strict=True)) - 1)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--load", default="none")
    parser.add_argument("--plain", type=Path)
    arguments = parser.parse_args()
    if arguments.plain:
        print(json.dumps(train(pickle.loads(arguments.plain.read_bytes()), lambda fact: None)))  # noqa: S301
        return
    machine = probe_machine()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "machine": {"cpu": machine.cpu_model, "num_cpus": machine.num_cpus, "other_load": arguments.load},
            "versions": {"python": platform.python_version(), "torch": version("torch")},
            "load_average": os.getloadavg(),
            "hang_timeout_s": HANG_TIMEOUT_S,
            "recovery": measure_recovery(Path(folder), min(arguments.runs, 3)),
            "overhead": measure_overhead(Path(folder), arguments.runs),
        }
    text = json.dumps(found, indent=1)
    (RESULTS / "supervision.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
