"""Time to learn from a long history: ``python -m tests.benchmarks.bench_advice``.

A thousand plans of one device, each with the events of a generated plan (two datasets, a hundred epochs), lie
in a log on disk. Timed are: reading them, folding each into its record, and recommending and judging after
the last with all records at hand; the best of three. Reading is what it was before there was any advice.
"""

import json
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from core.analytics.advice.evidence import gather
from core.analytics.advice.judging import judge
from core.analytics.observations import record_plan
from core.analytics.recommendations import recommend
from core.analytics.telemetry import TelemetrySummary
from core.events.log import EventLog
from settings.app import Settings
from tests.sample_log import sample_events

NUM_PLANS, NUM_TRIES = 1000, 3
RESULTS = Path(__file__).parent / "results" / "advice.json"


def fill(root: Path) -> int:
    """A log of many plans, a day apart; returns its number of events."""
    log, num_events = EventLog(root), 0
    sample = sample_events()
    for number in range(NUM_PLANS):
        plan_id, later = f"plan-{number:04}", timedelta(days=number)
        events = [
            event._replace(
                stream=plan_id, event_id=f"{plan_id}-{event.position}", occurred_at=event.occurred_at + later
            )
            for event in sample
        ]
        num_events += len(log.append(events))
    return num_events


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of CPU time that a call took, whatever else runs on the machine, and what it returned."""
    began = time.process_time()
    result = call()
    return time.process_time() - began, result


def learn(root: Path) -> dict[str, float]:
    """Seconds of each part."""
    log = EventLog(root)
    read_s, streams = timed(lambda: [log.read(plan_id) for plan_id in log.streams()])
    fold_s, (*before, plan) = timed(lambda: list(filter(None, map(record_plan, streams))))

    def advise() -> Any:
        judge([*before, plan])
        return recommend(gather(plan, before, TelemetrySummary(), Settings()))

    advise_s, _ = timed(advise)
    return {"read_s": read_s, "fold_records_s": fold_s, "recommend_and_judge_s": advise_s}


def main() -> None:
    """Measure, print and keep the results."""
    with tempfile.TemporaryDirectory() as folder:
        num_events = fill(Path(folder))
        tries = [learn(Path(folder)) for _ in range(NUM_TRIES)]
    found = {
        "num_plans": NUM_PLANS,
        "num_events": num_events,
        **{name: round(min(one[name] for one in tries), 3) for name in tries[0]},
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "polars": pl.__version__,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }
    print(json.dumps(found, indent=2))
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
