"""Speed of the event log: ``python -m tests.benchmarks.bench_events [folder]``.

One plan of a million events: a generated history whose epochs and checkpoints are repeated until there are
that many, appended 100 at a time. The folder should be on the disk that is to be measured; it defaults to
``outputs``. Appends of single events are timed with 10 000 segments in the folder, fsyncs included; reads are
the best of three by a new ``EventLog`` with the files in the page cache.
"""

import json
import os
import platform
import shutil
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import polars as pl

from core.events.catalogue import CheckpointWritten, EpochFinished
from core.events.event import Event
from core.events.log import EventLog
from core.planning.plan_state import PLAN_STATE
from core.planning.registry_view import REGISTRY_VIEW
from tests.sample_log import PLAN_ID, sample_events

NUM_EVENTS, PER_APPEND, NUM_SINGLE, NUM_READS = 1_000_000, 100, 500, 3
RESULTS = Path(__file__).parent / "results" / "events.json"


def long_plan() -> list[Event]:
    """A million events in the order of a plan."""
    sample = sample_events()
    repeated = {EpochFinished.TYPE, CheckpointWritten.TYPE}
    num_repeated = sum(event.type in repeated for event in sample)
    times = -(-(NUM_EVENTS - len(sample)) // num_repeated) + 1
    copies = chain.from_iterable(repeat(event, times if event.type in repeated else 1) for event in sample)
    return [event._replace(event_id=uuid.uuid4().hex) for event in islice(copies, NUM_EVENTS)]


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call took, and what it returned."""
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


def append_all(log: EventLog, events: list[Event]) -> dict[str, float]:
    """Append everything, then single events one by one."""
    batches = [events[start : start + PER_APPEND] for start in range(0, NUM_EVENTS, PER_APPEND)]
    together = [timed(lambda batch=batch: log.append(batch))[0] for batch in batches]  # type: ignore[misc]
    single = [
        timed(lambda event=event: log.append([event._replace(event_id=uuid.uuid4().hex)]))[0]  # type: ignore[misc]
        for event in events[-NUM_SINGLE:]
    ]
    return {
        "append_100_median_ms": round(1000 * statistics.median(together), 2),
        "append_1_median_ms": round(1000 * statistics.median(single), 2),
        "append_1_p99_ms": round(1000 * statistics.quantiles(single, n=100)[98], 2),
    }


def read_and_fold(root: Path) -> dict[str, float]:
    """Read the plan and fold it, into its state and into the model registry."""
    best: dict[str, float] = {}
    for _ in range(NUM_READS):
        read_s, events = timed(lambda: EventLog(root).read(PLAN_ID))
        state_s, _ = timed(lambda events=events: PLAN_STATE.fold(events))  # type: ignore[misc]
        registry_s, _ = timed(lambda events=events: REGISTRY_VIEW.fold(events))  # type: ignore[misc]
        if read_s + state_s <= best.get("read_and_fold_s", float("inf")):
            best = {
                "num_events": len(events),
                "read_s": round(read_s, 2),
                "fold_plan_state_s": round(state_s, 2),
                "fold_registry_view_s": round(registry_s, 2),
                "read_and_fold_s": round(read_s + state_s, 2),
            }
        del events
    return best


def main(folder: Path) -> None:
    """Measure and write the results."""
    root = folder / "bench_events"
    shutil.rmtree(root, ignore_errors=True)
    try:
        log = EventLog(root)
        results: dict[str, Any] = {
            "at": f"{datetime.now(UTC):%Y-%m-%d}",
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "polars": pl.__version__,
            **append_all(log, long_plan()),
            "segments": read_and_fold(root),
        }
        compact_s, _ = timed(lambda: EventLog(root).compact(PLAN_ID))
        results["compact_s"] = round(compact_s, 2)
        results["compacted"] = read_and_fold(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(RESULTS.read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("outputs"))
