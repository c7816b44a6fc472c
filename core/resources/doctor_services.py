"""What is wrong with the services that a machine works with: pure judgements of what they answered."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from core.resources.doctor import Check

GOOD_CLOCK_S, BAD_CLOCK_S = 5.0, 60.0
QUEUES = ("priority", "default")
_APPLY = "python -m deployments.apply"


@dataclass(frozen=True)
class Pool:
    """A work pool.

    Attributes:
        kind: Its type.
        is_paused: Whether it hands out no runs.
        queues: Names of its queues.
        num_online: Workers that were heard of lately.
    """

    kind: str
    is_paused: bool = False
    queues: tuple[str, ...] = QUEUES
    num_online: int = 0


@dataclass(frozen=True)
class PrefectFacts:
    """What a Prefect API answered.

    Attributes:
        url: Its address; empty where none is configured.
        problem: Why it gave no answer that can be used; empty if it did.
        remedy: What to do about that.
        version: Its version.
        own_version: Version of the library here.
        is_loopback: Whether only this machine reaches it.
        asks_for_auth: Whether it refuses who says no password.
        lease_storage: Module that keeps leases of concurrency slots; empty if it does not tell.
        has_scheduler: Whether it makes runs of schedules; None if it does not tell.
        pools: Work pools by name.
        limits: Slots by name of concurrency limit.
        deployments: Names, as ``flow/deployment``.
    """

    url: str = ""
    problem: str = ""
    remedy: str = ""
    version: str = ""
    own_version: str = ""
    is_loopback: bool = True
    asks_for_auth: bool = True
    lease_storage: str = ""
    has_scheduler: bool | None = None
    pools: Mapping[str, Pool] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    deployments: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Wanted:
    """What the server should have.

    Attributes:
        pools: Names of the work pools that the deployments use.
        limits: Slots by name of this machine's concurrency limits.
        deployments: Names, as ``flow/deployment``.
    """

    pools: tuple[str, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)
    deployments: frozenset[str] = frozenset()


def judge_prefect(facts: PrefectFacts, wanted: Wanted) -> Iterator[Check]:
    """The server, and what deployments need of it."""
    if not facts.url:
        yield Check(
            "Prefect server", "not applicable", "none is configured: each command starts one of its own",
            "for schedules and several machines: export PREFECT_API_URL=http://HOST:4200/api",
        )  # fmt: skip
        return
    if facts.problem:
        yield Check("Prefect server", "wrong", f"{facts.url}: {facts.problem}", facts.remedy)
        return
    yield Check("Prefect server", "ok", f"{facts.url} answers")
    ours, theirs = facts.own_version.split(".")[:2], facts.version.split(".")[:2]
    if ours != theirs:
        yield Check(
            "Prefect version", "wrong", f"the server has {facts.version}, this machine {facts.own_version}",
            "install the same release on both, the server first",
        )  # fmt: skip
    else:
        yield Check("Prefect version", "ok", f"{facts.version}, here {facts.own_version}")
    yield _judge_auth(facts)
    yield from _judge_server(facts)
    yield from _judge_pools(facts, wanted)
    yield _judge_limits(facts, wanted)
    missing = sorted(wanted.deployments - facts.deployments)
    if missing:
        yield Check(
            "deployments", "warning", f"missing: {', '.join(missing)}", "prefect --no-prompt deploy --all"
        )
    else:
        yield Check("deployments", "ok", f"{len(facts.deployments)} are there")


def _judge_auth(facts: PrefectFacts) -> Check:
    if facts.asks_for_auth:
        return Check("Prefect password", "ok", "the server asks for it, and takes ours")
    if facts.is_loopback:
        return Check("Prefect password", "ok", "none is asked for, and only this machine reaches the server")
    return Check(
        "Prefect password", "wrong", "whoever reaches the server may run code on every worker",
        "set PREFECT_SERVER_API_AUTH_STRING for the server and PREFECT_API_AUTH_STRING for all who use it",
    )  # fmt: skip


def _judge_server(facts: PrefectFacts) -> Iterator[Check]:
    if not facts.lease_storage:
        yield Check("lease storage", "not applicable", "the server does not tell")
    elif facts.lease_storage.endswith(".memory"):
        yield Check(
            "lease storage", "wrong", "leases are in memory: a server that is killed leaks slots for ever",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=prefect.server.concurrency.lease_storage.filesystem",
        )  # fmt: skip
    else:
        yield Check("lease storage", "ok", facts.lease_storage.rpartition(".")[2])
    if facts.has_scheduler is None:
        yield Check("schedules", "not applicable", "the server does not tell")
    elif not facts.has_scheduler:
        yield Check(
            "schedules", "wrong", "the server's scheduler is off: nothing runs at night",
            "unset PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED",
        )  # fmt: skip
    else:
        yield Check("schedules", "ok", "the scheduler is on")


def _judge_pools(facts: PrefectFacts, wanted: Wanted) -> Iterator[Check]:
    for name in wanted.pools:
        pool, what = facts.pools.get(name), f"work pool {name}"
        if pool is None:
            yield Check(what, "warning", "it is not there", _APPLY)
            continue
        lacking = [queue for queue in QUEUES if queue not in pool.queues]
        if lacking:
            yield Check(what, "warning", f"it has no queue {' and no queue '.join(lacking)}", _APPLY)
        elif pool.is_paused:
            yield Check(what, "warning", "it is paused", f"prefect work-pool resume {name}")
        elif not pool.num_online:
            yield Check(what, "warning", "no worker is online", f"prefect worker start --pool {name}")
        else:
            yield Check(what, "ok", f"{pool.kind}, workers online: {pool.num_online}")


def _judge_limits(facts: PrefectFacts, wanted: Wanted) -> Check:
    missing = [name for name in wanted.limits if name not in facts.limits]
    if missing:
        return Check(
            "concurrency limits",
            "warning",
            f"this machine's are missing: {', '.join(missing)}",
            f"{_APPLY} --machine",
        )
    other = [f"{name} has {facts.limits[name]} slots, not {slots}" for name, slots in wanted.limits.items()
             if facts.limits[name] > slots]  # fmt: skip
    if other:
        return Check("concurrency limits", "warning", "; ".join(other), f"{_APPLY} --machine --reset")
    return Check("concurrency limits", "ok", f"{len(wanted.limits)} of this machine are there")


def judge_mlflow(is_on: bool, place: str, problem: str) -> Check:
    """MLflow.

    Args:
        is_on: Whether plans are projected there.
        place: Where it is, without a password.
        problem: Why it cannot be used; empty if it can.
    """
    if not is_on:
        return Check("MLflow", "not applicable", "tracking.mlflow is false")
    if problem:
        return Check(
            "MLflow", "wrong", f"{place}: {problem}",
            "start it, or correct CAN_RETRAIN__TRACKING__MLFLOW_URI; training goes on without, and "
            "python -m flows.analyze catches up",
        )  # fmt: skip
    return Check("MLflow", "ok", f"{place} answers")


def judge_storage(place: str, problem: str) -> Check:
    """Shared storage.

    Args:
        place: Where it is; empty for none.
        problem: What it cannot do; empty if it can do all that the event log needs.
    """
    if not place:
        return Check(
            "shared storage", "not applicable", "storage.url is empty: outputs are on this machine only"
        )
    if problem:
        return Check(
            "shared storage", "wrong", f"{place}: {problem}",
            "mount it, or check AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and the bucket's policy",
        )  # fmt: skip
    return Check("shared storage", "ok", f"{place}: reading, listing, conditional writes and deleting work")


def judge_clock(offsets_s: Mapping[str, float]) -> Check:
    """The clock against those of services.

    Args:
        offsets_s: Their time less ours, by name, seconds.
    """
    if not offsets_s:
        return Check("clock", "not applicable", "no service to compare it with")
    name, offset_s = max(offsets_s.items(), key=lambda entry: abs(entry[1]))
    behind = "behind" if offset_s > 0 else "ahead of"
    found = f"this machine is {abs(offset_s):.0f} s {behind} {name}"
    remedy = "synchronise all machines: systemctl enable --now systemd-timesyncd (or chrony)"
    if abs(offset_s) > BAD_CLOCK_S:
        return Check("clock", "wrong", found, remedy)
    if abs(offset_s) > GOOD_CLOCK_S:
        return Check("clock", "warning", found, remedy)
    return Check("clock", "ok", f"within {GOOD_CLOCK_S:g} s of {', '.join(sorted(offsets_s))}")


def judge_production(is_served: bool, chain_heartbeat: bool, max_disk_gib: float) -> Iterator[Check]:
    """What works for one person and not for a fleet.

    Args:
        is_served: Whether a server is configured that other machines use, too.
        chain_heartbeat: Whether flow runs say that they live.
        max_disk_gib: The disk budget; 0 is none.
    """
    if not is_served:
        return
    if not chain_heartbeat:
        yield Check(
            "heartbeats", "warning", "flow runs begun here do not say that they live: lost ones stay Running",
            "export PREFECT_FLOWS_HEARTBEAT_FREQUENCY=30 (deployments of prefect.yaml have it)",
        )  # fmt: skip
    if not max_disk_gib:
        yield Check(
            "disk budget", "warning", "outputs may grow until the disk is full",
            "set retention.max_disk_gib: maintenance (maintain/maintenance) keeps to it",
        )  # fmt: skip
