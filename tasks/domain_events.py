"""What happens to plans, as events of Prefect: what automations react to.

Every event is about a plan, a dataset or a disk, and carries what an automation may tell apart as labels of
that resource. There are no paths, messages or settings in it: events are shown to everyone who may see the
server, and handed on to webhooks. Telling never disturbs training: events are queued, and sent in the
background.
"""

import shutil
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from prefect.events import emit_event

from core.analytics.health import LEAST_DISK_MIB
from core.analytics.regressions import Regression, find_regressions
from core.events.catalogue import (
    ChainFinished,
    Fact,
    ModelSaved,
    PhaseFailed,
    PlanCreated,
    PlanFinished,
    PlanResumed,
)
from core.events.open import open_log
from core.events.resource_facts import PackLimitChanged
from core.planning.chain import Listener
from core.planning.live.progress import LOG
from core.resources.failures import OOM_KINDS
from core.resources.readings import MIB
from settings.layout import Layout

PREFIX = "can-retrain"
PLAN_CREATED = f"{PREFIX}.plan.created"
PLAN_RESUMED = f"{PREFIX}.plan.resumed"
PLAN_FINISHED = f"{PREFIX}.plan.finished"
PHASE_FAILED = f"{PREFIX}.phase.failed"
OUT_OF_MEMORY = f"{PREFIX}.phase.out-of-memory"
MODEL_SAVED = f"{PREFIX}.model.saved"
METRIC_REGRESSED = f"{PREFIX}.metric.regressed"
DISK_LOW = f"{PREFIX}.disk.low"
CAPTURES_CHANGED = f"{PREFIX}.captures.changed"
DRIFT_FOUND = f"{PREFIX}.drift.found"

PLAN, DATASET, HOST = f"{PREFIX}.plan", f"{PREFIX}.dataset", f"{PREFIX}.host"
STATUS, KIND = f"{PREFIX}.status", f"{PREFIX}.kind"
"""Labels of resources: what an automation may match and tell apart."""

_MOST_RELATED = 50
"""Prefect takes a hundred, its own included."""
_RELIEVED = 1.1
"""Free space, as a multiple of what is low, from which on a disk is no longer low."""


class DomainEvent(NamedTuple):
    """An event to be: its name, what it is about, what else it concerns, and details for people."""

    name: str
    resource: dict[str, str]
    related: list[dict[str, str]]
    payload: dict[str, Any]


def domain_events(plan_id: str, fact: Fact) -> list[DomainEvent]:
    """What Prefect is told of a fact; nothing of most of them.

    Args:
        plan_id: The plan whose fact it is.
        fact: What happened.
    """
    match fact:
        case PlanCreated():
            datasets = list(dict.fromkeys(step["dataset"] for step in fact.steps))
            num_run = sum(step["action"] == "run" for step in fact.steps)
            payload = {"num_phases": num_run, "num_datasets": len(datasets), "force": fact.force}
            found = [_of_plan(PLAN_CREATED, plan_id, {}, payload, datasets)]
        case PlanResumed():
            datasets = list(dict.fromkeys(name.rpartition("/")[0] for name in fact.remaining))
            found = [_of_plan(PLAN_RESUMED, plan_id, {}, {"num_phases": len(fact.remaining)}, datasets)]
        case PlanFinished():
            payload = {"status": fact.status, "duration_s": round(fact.duration_s, 3)}
            found = [_of_plan(PLAN_FINISHED, plan_id, {STATUS: fact.status}, payload)]
        case PhaseFailed():
            payload = {"phase": fact.phase, "attempt": fact.attempt, "kind": fact.kind}
            names = (PHASE_FAILED, OUT_OF_MEMORY) if fact.kind in OOM_KINDS else (PHASE_FAILED,)
            found = [_of_dataset(name, fact.dataset, {KIND: fact.kind}, payload, plan_id) for name in names]
        case PackLimitChanged(reason=reason) if reason in OOM_KINDS:
            # The step was done with smaller packs: nothing is lost, yet too often is worth knowing.
            payload = {"phase": fact.phase, "model": fact.model, "kind": reason}
            found = [_of_dataset(OUT_OF_MEMORY, fact.dataset, {KIND: reason}, payload, plan_id)]
        case ModelSaved():
            payload = {"phase": fact.phase, "sha256": fact.sha256, "file": PurePath(fact.path).name}
            found = [_of_dataset(MODEL_SAVED, fact.dataset, {}, payload, plan_id)]
        case _:
            found = []
    return found


def regressed(plan_id: str, dataset: str, found: Sequence[Regression]) -> DomainEvent:
    """That new versions of a dataset's models are clearly worse than those before them."""
    payload = {
        "regressions": [
            {name: round(v, 4) if isinstance(v, float) else v for name, v in one._asdict().items()}
            for one in found
        ]
    }
    return _of_dataset(METRIC_REGRESSED, dataset, {}, payload, plan_id)


def captures_changed(dataset: str, data_digest: str, num_captures: int) -> DomainEvent:
    """That a dataset's captures are others than its models were trained on."""
    payload = {"data_digest": data_digest, "num_captures": num_captures}
    return _of_dataset(CAPTURES_CHANGED, dataset, {}, payload)


def drift_found(dataset: str, payload: Mapping[str, float | int | str]) -> DomainEvent:
    """That scores of recent traffic lie otherwise than they did on validation windows."""
    return _of_dataset(DRIFT_FOUND, dataset, {}, dict(payload))


def disk_low(host: str, free_mib: float, total_mib: float) -> DomainEvent:
    """That the disk of an output directory is nearly full."""
    resource = {"prefect.resource.id": f"{PREFIX}.disk.{host}", "prefect.resource.name": host, HOST: host}
    return DomainEvent(DISK_LOW, resource, [], {"free_mib": round(free_mib), "total_mib": round(total_mib)})


def tell(event: DomainEvent) -> None:
    """Queue an event for Prefect; that it cannot be told is logged, and nothing else.

    Related flow runs, deployments and tags are added by Prefect.
    """
    try:
        emit_event(event.name, event.resource, related=event.related, payload=event.payload)
    except Exception as error:  # noqa: BLE001 - whatever it is, training goes on
        LOG.warning("Prefect is not told of %s: %s", event.name, error, exc_info=True)


def tell_of(plan_id: str, fact: Fact) -> None:
    """Tell Prefect of a fact that others may want to react to."""
    for event in domain_events(plan_id, fact):
        tell(event)


def telling(output_dir: Path, plan_id: str) -> Listener:
    """A listener of a chain that tells Prefect of its facts, of a full disk, and of models that got worse.

    It is told new facts only, so a plan that is taken up again tells nothing twice.

    Args:
        output_dir: The plan's output directory.
        plan_id: The plan.
    """
    disk = DiskWatch(output_dir)

    def listen(fact: Fact) -> None:
        tell_of(plan_id, fact)
        disk.look()
        if isinstance(fact, ChainFinished) and fact.status == "completed":
            _tell_regressions(output_dir, plan_id, fact.dataset)

    return listen


class DiskWatch:
    """Tells when the disk of an output directory becomes nearly full; again only after there was room.

    Args:
        output_dir: The output directory.
        least_mib: Free space below which a disk is nearly full, MiB.
    """

    def __init__(self, output_dir: Path, least_mib: float = LEAST_DISK_MIB) -> None:
        self._output_dir, self._least_mib = output_dir, least_mib
        self._is_low = False

    def look(self) -> bool:
        """Look at the disk; says whether it is nearly full."""
        try:
            usage = shutil.disk_usage(self._output_dir)
        except OSError as error:
            LOG.debug("the disk cannot be looked at: %s", error)
            return self._is_low
        free_mib = usage.free / MIB
        was_low, self._is_low = (
            self._is_low,
            free_mib < self._least_mib * (_RELIEVED if self._is_low else 1.0),
        )
        if self._is_low and not was_low:
            tell(disk_low(socket.gethostname(), free_mib, usage.total / MIB))
        return self._is_low


def _tell_regressions(output_dir: Path, plan_id: str, dataset: str) -> None:
    try:
        log = open_log(Layout(output_dir))
        if found := find_regressions(map(log.read, log.streams()), plan_id, dataset):
            tell(regressed(plan_id, dataset, found))
    except Exception as error:  # noqa: BLE001 - as above: the models are saved, whatever is said of them
        LOG.warning("%s: its versions cannot be compared: %s", dataset, error, exc_info=True)


def _of_plan(
    name: str,
    plan_id: str,
    labels: Mapping[str, str],
    payload: dict[str, Any],
    datasets: list[str] | None = None,
) -> DomainEvent:
    related = [{**_dataset(dataset), "prefect.resource.role": "dataset"} for dataset in datasets or []]
    return DomainEvent(name, {**_plan(plan_id), **labels}, related[:_MOST_RELATED], payload)


def _of_dataset(
    name: str, dataset: str, labels: Mapping[str, str], payload: dict[str, Any], plan_id: str = ""
) -> DomainEvent:
    related = [{**_plan(plan_id), "prefect.resource.role": "plan"}] if plan_id else []
    return DomainEvent(name, {**_dataset(dataset), **labels}, related, payload)


def _resource(label: str, name: str) -> dict[str, str]:
    return {"prefect.resource.id": f"{label}.{name}", "prefect.resource.name": name, label: name}


_plan, _dataset = partial(_resource, PLAN), partial(_resource, DATASET)
