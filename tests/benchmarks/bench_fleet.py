"""Time to show all plans on a dashboard: ``python -m tests.benchmarks.bench_fleet``.

Simulated plans of two devices (three datasets each) in memory, 250 and 1000 of them. Measured, in seconds of
CPU time, are: the newest plan's dashboard as a page from nothing, then what every plan sees of all others (as
rebuilding all dashboards folds it), and the page of all plans for every 50th of them. Every plan is folded
once; what grows with the square of plans is looking up who was there when, some microseconds a pair.
"""

import json
import platform
import resource
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import process_time
from typing import Any

import polars as pl

from core.analytics.board import fold_dashboard
from core.analytics.dashboard import render_html
from core.analytics.fleet import FleetHistory
from core.analytics.pages import fleet
from core.events.telemetry import TELEMETRY_SCHEMA
from tests.simulated_fleet import simulated_fleet

NUM_PLANS = (250, 1000)
EVERY = 50
NO_SAMPLES = pl.DataFrame(schema=TELEMETRY_SCHEMA)
RESULTS = Path(__file__).parent / "results" / "fleet.json"


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of CPU time that a call took, whatever else runs on the machine, and what it returned."""
    began = process_time()
    result = call()
    return round(process_time() - began, 3), result


def measure(num_plans: int) -> dict[str, float]:
    """Seconds of each part, for so many plans."""
    streams = simulated_fleet(num_plans)
    names = list(streams)
    newest_s, page = timed(lambda: render_html(fold_dashboard(names[-1], streams, NO_SAMPLES)))
    history = FleetHistory(streams)
    views_s, _ = timed(lambda: [history.seen_from(name) for name in names])
    boards = [fold_dashboard(name, streams, NO_SAMPLES, history) for name in names[::EVERY]]
    pages_s, pages = timed(
        lambda: [
            fleet.render(board, lambda chart, _caption, _description: str(bool(chart))) for board in boards
        ]
    )
    return {
        "num_plans": num_plans,
        "num_events": sum(map(len, streams.values())),
        "newest_dashboard_s": newest_s,
        "newest_dashboard_mib": round(len(page.encode()) / 2**20, 3),
        "views_of_all_plans_s": views_s,
        "page_of_all_plans_ms": round(1000 * pages_s / len(pages), 1),
    }


def main() -> None:
    """Measure, print and keep the results."""
    render_html(fold_dashboard("p", {}, NO_SAMPLES))  # libraries are loaded
    measured = [measure(num) for num in NUM_PLANS]
    found = {
        "sizes": measured,
        "views_ratio": round(measured[-1]["views_of_all_plans_s"] / measured[0]["views_of_all_plans_s"], 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "polars": pl.__version__,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }
    print(json.dumps(found, indent=2))
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
