"""An output directory with a bit of everything that maintenance looks at, of plans that ended long ago."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from signal import SIGKILL
from typing import Any
from unittest.mock import patch

from core.events.catalogue import PhaseStarted, PlanFinished, PlanResumed, to_event
from core.events.event import Event
from core.events.log import EventLog
from core.planning.upkeep.maintenance import maintain_outputs
from core.planning.upkeep.survey import PLAN_FILES
from settings.app import load_settings
from settings.layout import Layout
from tests.sample_log import sample_events, write_telemetry

BEGAN = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
STORE = "ab" * 32
LITTER = f".{'c' * 32}.tmp"


def old_plan(layout: Layout, plan_id: str, *, is_over: bool = True) -> list[Event]:
    """A plan of two datasets with all that it leaves behind; if not over, the second stopped at its end."""
    events = sample_events(plan_id, ("hcrl_sa", "set_01"), failures=False, start=BEGAN)
    if not is_over:
        own = [place for place, event in enumerate(events) if event.payload.get("dataset") == "set_01"]
        last = max(place for place in own if events[place].type == PhaseStarted.TYPE)
        ended = next(place for place, event in enumerate(events) if event.type == PlanFinished.TYPE)
        events = [event for i, event in enumerate(events[:ended]) if i <= last or i not in own]
    graphs = [
        event._replace(payload={**event.payload, "path": f"/elsewhere/{STORE}"})
        if event.type == "graphs_built"
        else event
        for event in events
    ]
    for part in (graphs[: len(graphs) // 2], graphs[len(graphs) // 2 :]):
        EventLog(layout.events).append([event._replace(position=-1) for event in part])
    write_telemetry(layout.telemetry, events, interval_s=60.0)
    for path in layout.telemetry.rglob("*"):
        os.utime(path, (BEGAN.timestamp(), BEGAN.timestamp()))
    for dataset in ("hcrl_sa", "set_01"):
        for step in range(2):
            write_checkpoint(layout, plan_id, dataset, step)
    for ending in PLAN_FILES:
        write(layout.plan_file(plan_id, ending))
    for path in (
        layout.coordinator_logs / f"{plan_id}.jsonl",
        layout.orchestrator_logs / f"{plan_id}.jsonl.1",
        layout.process_logs / f"{plan_id}-set_01.log",
        layout.saved_models / "best_teacher_model_set_01.pth",
        layout.saved_models / LITTER,
        layout.events / plan_id / LITTER,
        layout.graphs / STORE / "manifest.json",
        layout.graphs / STORE / "x.npy",
    ):
        write(path)
    return events


def write_checkpoint(layout: Layout, plan_id: str, dataset: str, step: int) -> Path:
    """A checkpoint of a plan with its sidecar."""
    path = layout.checkpoints / dataset / "teacher" / f"gat_{plan_id}" / f"epoch-000001-step-{step:08d}.pt"
    write(path)
    sidecar = path.with_suffix(".json")
    write(sidecar, json.dumps({"version": 3, "sha256": "0", "key": f"{plan_id}/data/settings/"}))
    return sidecar


def write(path: Path, text: str = "x" * 1000) -> None:
    """A file that was written when the old plans were."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    for written in (path, path.parent):
        os.utime(written, (BEGAN.timestamp(), BEGAN.timestamp()))


def resumed(layout: Layout, plan_id: str, at: datetime) -> None:
    """Let a plan be taken up again."""
    fact = PlanResumed(remaining=[], data_dir=None)
    EventLog(layout.events).append([to_event(plan_id, fact)._replace(occurred_at=at)])


def contents(root: Path) -> dict[str, int]:
    """Every file with its size, but for the log of maintenance itself and locks."""
    return {
        str(path.relative_to(root)): path.stat().st_size
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "maintenance.jsonl" and path.suffix != ".lock"
    }


def maintain_until_killed(output_dir: str, years: float, num_operations: int) -> None:
    """Maintain an output directory as if years had passed, and be killed after so many changes of files."""
    with _killed_after(num_operations):
        maintain_outputs(load_settings(output_dir=Path(output_dir)), BEGAN + timedelta(days=365 * years))


@contextmanager
def _killed_after(left: int) -> Iterator[None]:
    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), SIGKILL)
            left -= 1
            return function(*args, **options)

        return call

    with ExitStack() as patches:
        for name in ("unlink", "rename", "rmdir", "link"):
            patches.enter_context(patch.object(os, name, dying(getattr(os, name))))
        yield
