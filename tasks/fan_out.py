"""Chains as flow runs of their own, all at once: submitted, watched, and submitted again when lost."""

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

import httpx
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun, State, WorkerStatus
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Crashed

from core.errors import EventLogError
from core.events.log import EventLog
from core.events.open import is_shared, open_log, open_store
from core.logs import headline
from core.planning.live.progress import LOG
from core.planning.plan_state import PLAN_STATE, PlanState
from core.planning.shared.chain_runs import Heard, LeaseWatch, Run, hear, next_step
from settings.errors import RetrainError, SettingsError
from settings.layout import Layout
from tasks.naming import dataset_tag, plan_tags
from tasks.slots import is_away

PRIORITY_QUEUE, DEFAULT_QUEUE = "priority", "default"
_POLL_S = 3.0
_LONG_S, _SAY_AGAIN_S = 60.0, 300.0


class CancelledChainsError(RetrainError):
    """Somebody cancelled chains of a plan; what is left of it can be resumed."""


def chain_deployments(chain_deployment: str, datasets: Collection[str]) -> dict[str, DeploymentResponse]:
    """The deployment of each dataset's chain, by dataset; warns where nobody would carry chains out.

    Args:
        chain_deployment: The setting.
        datasets: The datasets.

    Raises:
        SettingsError: The Prefect API has no such deployment.
    """
    with get_client(sync_client=True) as client:
        found = {
            dataset: _deployment(client, chain_deployment.replace("{dataset}", dataset))
            for dataset in datasets
        }
        for pool in dict.fromkeys(d.work_pool_name for d in found.values()):
            if pool and (problem := _pool_problem(client, pool)):
                LOG.warning("%s", problem)
    return found


def run_on_workers(
    layout: Layout, plan_id: str, deployments: Mapping[str, DeploymentResponse], datasets: Sequence[str]
) -> None:
    """Have chains carried out by the workers of their deployments, all at once, until each is over.

    A chain that comes to nothing though it is submitted again is left as it is.
    Chains of this plan that still run, as of a parent that was lost, are watched and not submitted again.

    Args:
        layout: The plan's output directory.
        plan_id: The plan.
        deployments: By dataset.
        datasets: Those whose chains are not finished, in order.

    Raises:
        CancelledChainsError: Somebody cancelled a chain; the others are over.
    """
    with get_client(sync_client=True) as client:
        _FanOut(client, layout, plan_id, deployments).carry_out(datasets)


@dataclass
class _Chain:
    """A chain and its last flow run."""

    dataset: str
    deployment: DeploymentResponse
    watch: LeaseWatch
    run_id: UUID | None = None
    num_runs: int = 0
    submitted_at: float = field(default_factory=time.monotonic)
    heard: Heard = field(default_factory=Heard)
    num_fruitless: int = 0


class _FanOut:
    """The chains of one plan."""

    def __init__(
        self,
        client: SyncPrefectClient,
        layout: Layout,
        plan_id: str,
        deployments: Mapping[str, DeploymentResponse],
    ) -> None:
        self._client, self._layout, self._plan_id, self._deployments = client, layout, plan_id, deployments
        self._log: EventLog = open_log(layout)
        events = self._log.read(plan_id)
        self._position = events[-1].position
        self._plan: PlanState = PLAN_STATE.fold(events)
        self._cancelled: list[str] = []
        self._say_at = 0.0

    def carry_out(self, datasets: Sequence[str]) -> None:
        leases = open_store(self._layout, "leases")
        open_chains = [_Chain(name, self._deployments[name], LeaseWatch(leases, name)) for name in datasets]
        try:
            while open_chains:
                for chain in tuple(open_chains):
                    try:
                        self._listen(open_chains)
                        if self._is_over(chain):
                            open_chains.remove(chain)
                    except (httpx.HTTPError, OSError, EventLogError) as error:
                        if isinstance(error, httpx.HTTPError) and not is_away(error):
                            LOG.error("%s: the Prefect API refuses its chain: %s", chain.dataset, error)
                            open_chains.remove(chain)
                        else:
                            self._say("chains go on, but cannot be seen at the moment: %s", error)
                if open_chains:
                    time.sleep(_POLL_S)
        except BaseException as error:
            if not isinstance(error, Exception) and self._is_wanted(error):
                self._cancel(open_chains)
            raise
        if self._cancelled:
            raise CancelledChainsError(
                f"the chains of {', '.join(self._cancelled)} were cancelled: go on with "
                f"python -m flows.retrain --resume {self._plan_id}"
            )

    def _listen(self, chains: Sequence[_Chain]) -> None:
        events = self._log.read(self._plan_id, after=self._position)
        if events:
            self._position = events[-1].position
            for chain in chains:
                chain.heard = hear(chain.heard, chain.dataset, events)

    def _is_over(self, chain: _Chain) -> bool:
        if chain.run_id is None:
            self._attach(chain)
        if chain.run_id is None:
            self._submit(chain)
            return False
        try:
            run = self._client.read_flow_run(chain.run_id)
        except ObjectNotFound:  # somebody deleted it
            chain.run_id = None
            return False
        is_lost = chain.watch.is_lost(chain.heard, _is_waiting(run))
        max_fruitless = self._plan.settings_in(self._layout.root).training.max_retries
        step = next_step(_what(run), chain.heard, is_lost, chain.num_fruitless, max_fruitless)
        message = headline((run.state and run.state.message) or "")
        if step == "again":
            self._submit_again(chain, run, is_lost, message)
        elif step == "wait" and _is_waiting(run):
            self._warn_of_pool(chain)
        elif step == "give_up":
            LOG.error(
                "%s: its chain came to nothing %d times, the last time: %s; see flow run %s (%s)",
                chain.dataset,
                chain.num_fruitless + 1,
                message or "it was lost",
                run.name,
                run.id,
            )
        elif step == "cancelled":
            LOG.warning("%s: its chain was cancelled, and is not begun again", chain.dataset)
            self._cancelled.append(chain.dataset)
        return step in ("over", "give_up", "cancelled")

    def _attach(self, chain: _Chain) -> None:
        """Find the chain's runs of a parent before this one; the last of them may still be going."""
        runs = self._client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                deployment_id=FlowRunFilterDeploymentId(any_=[chain.deployment.id]),
                tags=FlowRunFilterTags(all_=[*self._tags(chain)]),
            ),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        )
        chain.num_runs = len(runs)
        if runs and _what(runs[0]) == "going":
            chain.run_id = runs[0].id
            chain.heard = Heard(has_started=chain.dataset in self._plan.open_chains)
            LOG.info("%s: its chain goes on in flow run %s", chain.dataset, runs[0].name)

    def _submit(self, chain: _Chain) -> None:
        is_first = chain.dataset in (self._plan.created.priority if self._plan.created else ())
        queue = PRIORITY_QUEUE if is_first else DEFAULT_QUEUE
        run = cast(
            FlowRun,  # it would be a coroutine within one
            run_deployment(
                chain.deployment.id,
                parameters=self._parameters(chain),
                timeout=0,
                flow_run_name=f"chain-{chain.dataset}",
                idempotency_key=f"{self._plan_id}/{chain.dataset}/{chain.num_runs}",
                tags=self._tags(chain),
                work_queue_name=queue if chain.deployment.work_pool_name else None,
            ),
        )
        chain.run_id, chain.num_runs, chain.submitted_at = run.id, chain.num_runs + 1, time.monotonic()
        LOG.info("%s: its chain is flow run %s, in queue %s", chain.dataset, run.name, queue)

    def _submit_again(self, chain: _Chain, run: FlowRun, is_lost: bool, message: str) -> None:
        reason = "it was lost: its process gives no sign of life" if is_lost else f"it ended: {message}"
        LOG.warning("%s: its chain is begun again from its last checkpoint; %s", chain.dataset, reason)
        if is_lost:  # else it would count as running for ever, and hold its deployment's place
            given_up: State[None] = Crashed(message=f"Given up by its parent: {reason}")
            self._client.set_flow_run_state(run.id, given_up, force=True)
        chain.num_fruitless = 0 if chain.heard.has_progressed else chain.num_fruitless + 1
        chain.heard = Heard()
        chain.watch = LeaseWatch(open_store(self._layout, "leases"), chain.dataset)
        self._submit(chain)

    def _parameters(self, chain: _Chain) -> dict[str, Any]:
        """Hosts that share storage have folders of their own; else the plan is only in this very folder."""
        parameters = {"plan_id": self._plan_id, "dataset": chain.dataset}
        if not is_shared(self._layout):
            parameters["output_dir"] = str(self._layout.root.absolute())
        return parameters

    def _tags(self, chain: _Chain) -> list[str]:
        device_name = self._plan.created.machine["device_name"] if self._plan.created else ""
        return [*plan_tags(self._plan_id, device_name), dataset_tag(chain.dataset)]

    def _warn_of_pool(self, chain: _Chain) -> None:
        pool = chain.deployment.work_pool_name
        if not pool or time.monotonic() < self._say_at:
            return
        if problem := _pool_problem(self._client, pool):
            self._say("%s", problem)
        elif time.monotonic() - chain.submitted_at > _LONG_S:
            self._say(
                "chains wait for a free place of the workers of the work pool %s: see their --limit and the "
                "limits of the pool; a run of `retrain` takes a place, too",
                pool,
            )

    def _say(self, text: str, *arguments: object) -> None:
        if time.monotonic() >= self._say_at:
            LOG.warning(text, *arguments)
            self._say_at = time.monotonic() + _SAY_AGAIN_S

    def _is_wanted(self, error: BaseException) -> bool:
        """Whether somebody wants the plan to end, and not only this process to."""
        context = FlowRunContext.get()
        if isinstance(error, KeyboardInterrupt) or context is None or context.flow_run is None:
            return True
        with suppress(httpx.HTTPError):
            state = self._client.read_flow_run(context.flow_run.id).state
            return bool(state and (state.is_cancelling() or state.is_cancelled()))
        return False

    def _cancel(self, chains: Sequence[_Chain]) -> None:
        for chain in chains:
            if chain.run_id is None:
                continue
            try:
                self._client.set_flow_run_state(chain.run_id, Cancelling(message="Its parent was cancelled."))
            except httpx.HTTPError as error:
                LOG.warning("%s: its chain goes on, it cannot be cancelled: %s", chain.dataset, error)


def _what(run: FlowRun) -> Run:
    if run.state is None or not run.state.is_final():
        return "going"
    return "cancelled" if run.state.is_cancelled() else "ended"


def _is_waiting(run: FlowRun) -> bool:
    """Whether no worker has taken a run yet, or somebody paused it."""
    return bool(run.state and (run.state.is_scheduled() or run.state.is_paused()))


def _deployment(client: SyncPrefectClient, name: str) -> DeploymentResponse:
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound as error:
        raise SettingsError(
            f"the Prefect API at {client.api_url} has no deployment {name} (setting "
            "scheduling.chain_deployment): make those of this project with `prefect deploy --all`, name one "
            "that it has, as dataset-chain/any, or leave the setting empty to train in this process"
        ) from error


def _pool_problem(client: SyncPrefectClient, pool: str) -> str:
    """Why nobody takes runs from a pool; empty where somebody does."""
    try:
        is_paused = client.read_work_pool(pool).is_paused
    except ObjectNotFound:
        return f"there is no work pool {pool}: chains wait for ever; python -m deployments.apply makes it"
    if is_paused:
        return f"the work pool {pool} is paused: chains wait until it is resumed"
    workers = client.read_workers_for_work_pool(pool)
    if any(worker.status == WorkerStatus.ONLINE for worker in workers):
        return ""
    return (
        f"no worker of the work pool {pool} is online: chains wait until one is started with "
        f"`prefect worker start --pool {pool}`"
    )
