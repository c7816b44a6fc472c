"""Many plans of one output directory: weeks of retraining on two devices, with all that goes wrong."""

import random
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from typing import Any

from core.events.event import Event
from tests.sample_log import MACHINES, sample_events

CARD = {
    **MACHINES[True],
    "device_name": "NVIDIA A100-SXM4-40GB",
    "num_cpus": 64,
    "gpus": [{**MACHINES[True]["gpus"][0], "name": "NVIDIA A100-SXM4-40GB", "vram_total_mib": 40_960.0}],
}
KINDS = ("cuda_oom", "host_oom", "hang", "cuda_error", "data_error", "bug")
_DETECTORS = ("student_vgae", "student_gat", "fusion")


def simulated_fleet(num: int, seed: int = 1, *, cost_per_hour: float = 1.2) -> dict[str, list[Event]]:
    """The events of so many plans, by plan, oldest first."""
    rng = random.Random(seed)
    plans, day = {}, 0.0
    for number in range(num):
        events = list(_plan(rng, number, day, cost_per_hour))
        plans[events[0].stream] = events
        day += rng.choice((0.6, 1.0, 1.4))
    return plans


def _plan(rng: random.Random, number: int, day: float, cost_per_hour: float) -> Iterator[Event]:
    failures, second, hours = rng.random() < 0.25, rng.random() < 0.3, rng.uniform(8, 14)
    interrupted = rng.random() < 0.06
    kind, skill = rng.choice(KINDS), 0.02 * min(number / 20, 1.5) + rng.gauss(0, 0.006)
    events = _template(failures)
    began = events[0].occurred_at + timedelta(days=day)
    plan_id = f"plan-{began:%Y%m%d-%H%M}-{number:04x}"
    length = (events[-1].occurred_at - events[0].occurred_at).total_seconds()
    stretch = hours * 3600 / length * (0.55 if second else 1.0)
    for event in events[: int(len(events) * rng.uniform(0.2, 0.9)) if interrupted else len(events)]:
        payload: dict[str, Any] = dict(event.payload)
        match event.type:
            case "plan_created":
                payload["settings"] = {**payload["settings"], "resources": {"cost_per_hour": cost_per_hour}}
                payload["machine"] = CARD if second else payload["machine"]
            case "phase_failed" if payload["kind"] == "bug":
                payload["kind"] = kind
            case "epoch_finished":
                payload["graphs_per_s"] *= 1.8 if second else 1.0
            case "model_evaluated" if payload["metrics"].get("mcc") and payload["model"] in _DETECTORS:
                payload["metrics"] = {**payload["metrics"], "mcc": payload["metrics"]["mcc"] * (0.97 + skill)}
            case _:
                pass
        yield event._replace(
            stream=plan_id,
            payload=payload,
            event_id=f"{plan_id}-{event.position}",
            occurred_at=began + (event.occurred_at - events[0].occurred_at) * stretch,
        )


@cache
def _template(failures: bool) -> list[Event]:
    return sample_events(datasets=("hcrl_sa", "set_01", "set_02"), failures=failures)
