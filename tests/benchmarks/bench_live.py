"""Cost of the live view: ``python -m tests.benchmarks.bench_live``.

CPU time (of this process, so that other load on the machine hardly matters) of a look, of drawing the
terminal's screen, and of what one browser is sent, at their rate of one a second: beside a training on 2
cores, a share of 1 % is 20 ms of CPU time per second. Measured with a plan of some hundred events and with
one of 100 000 that is still going on, so that nothing is compacted. The shares are for an event every 10 s,
as checkpoints come; the first look reads the whole log and is told apart.
"""

import asyncio
import io
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from core.events.catalogue import CheckpointWritten, to_event
from core.events.event import Event
from core.events.log import EventLog
from core.planning.live.view import LiveView
from core.planning.live.watching import Watch
from core.planning.shared.lock import hold
from flows import serve
from flows.watch import INTERVAL_S
from flows.watch_screen import LiveScreen
from settings.layout import Layout
from tests.sample_log import PLAN_ID, sample_events

NUM_LOOKS, NUM_CORES, LARGE, EVENT_S = 40, 2, 100_000, 10
RESULTS = Path(__file__).parent / "results" / "live.json"


def events_of(num: int) -> list[Event]:
    """A plan that goes on: the sample's, with as many checkpoints as it takes."""
    sample = sample_events()[:-1]
    fact = CheckpointWritten(
        dataset="set_01",
        phase="student",
        model="student_gat",
        epoch=1,
        num_steps=3,
        path="c",
        sha256="0" * 64,
    )
    more = [to_event(PLAN_ID, fact) for _ in range(num - len(sample))]
    return [event._replace(position=-1) for event in [*sample, *more]]


def cpu_ms(do: Callable[[], Any], before: Callable[[], Any] = lambda: None) -> list[float]:
    """CPU time of each of several calls."""
    times = []
    for _ in range(NUM_LOOKS):
        before()
        began = time.process_time()
        do()
        times.append(1000 * (time.process_time() - began))
        time.sleep(0.05)
    return times


def measure(num: int) -> dict[str, Any]:
    """All costs with a plan of so many events."""
    with tempfile.TemporaryDirectory() as folder, hold(Path(folder)):
        root = Path(folder)
        log = EventLog(Layout(root).events)
        events = events_of(num)
        for start in range(0, num, 10):  # ten to a segment, as a busy plan has them
            log.append(events[start : start + 10])
        watch = Watch(root)
        began = time.process_time()
        view = watch.look()
        first_ms = 1000 * (time.process_time() - began)
        time.sleep(3)
        watch.look()
        one = events[-1:]
        found = {
            "num_events": num,
            "num_segments": len(list((Layout(root).events / PLAN_ID).glob("*.parquet"))),
            "first_look_ms": round(first_ms, 1),
            "look_at_rest_ms": median(cpu_ms(watch.look)),
            "look_after_an_event_ms": median(
                cpu_ms(watch.look, lambda: log.append([one[0]._replace(event_id=os.urandom(8).hex())]))
            ),
            "draw_ms": median(cpu_ms(lambda: draw(watch.look()))) - median(cpu_ms(watch.look)),
            "one_browser_ms": browser_ms(root, view),
        }
    reading_ms = found["look_after_an_event_ms"] - found["look_at_rest_ms"]
    look_ms = found["look_at_rest_ms"] + reading_ms / EVENT_S
    found[f"watch_percent_of_{NUM_CORES}_cores"] = share(look_ms + max(0.0, found["draw_ms"]))
    sent_ms = found["one_browser_ms"] + reading_ms / EVENT_S
    found[f"serve_percent_of_{NUM_CORES}_cores"] = share(sent_ms)
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in found.items()}


def draw(view: LiveView) -> None:
    """Draw a terminal of 140 columns."""
    running = replace(view, status="running")
    Console(file=io.StringIO(), force_terminal=True, width=140, height=40).print(LiveScreen(running))


def browser_ms(root: Path, view: LiveView) -> float:
    """CPU time of what one browser is sent each time, the look included."""

    async def stream() -> list[float]:
        feed = await serve._Feeds(root).feed(None)
        parts = serve._stream(feed, lambda: False)
        for _ in range(4):
            await anext(parts)
        times = []
        for _ in range(10):
            began = time.process_time()
            await anext(parts)  # sleeps for the interval first
            times.append(1000 * (time.process_time() - began))
        return times

    assert view.plan_id
    return median(asyncio.run(stream()))


def share(ms: float) -> float:
    """Percent of the machine's cores at one such cost per interval."""
    return 100 * ms / 1000 / INTERVAL_S / NUM_CORES


def median(times: list[float]) -> float:
    """Of several measurements."""
    return statistics.median(times)


def main() -> None:
    """Measure and keep the results."""
    results = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": {"cpu": platform.processor() or platform.machine(), "num_cores": os.cpu_count()},
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("rich", "starlette", "polars", "psutil")},
        "load_average": os.getloadavg()[0],
        "interval_s": INTERVAL_S,
        "plans": [measure(len(sample_events()) - 1), measure(LARGE)],
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
