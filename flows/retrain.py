"""Retrain what is missing or stale: the parent flow, and the command ``python -m flows.retrain``."""

import sys

if __name__ == "__main__":  # before Prefect is loaded, so that --dry-run and --help answer at once
    from flows.cli import retrain_command

    sys.exit(retrain_command())

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

from prefect import State, flow, tags
from prefect.states import Cancelled, Completed

from core.analytics.results import RetrainingResults, fold_results
from core.errors import ChainHeldError, ChainLostError
from core.events.catalogue import to_event
from core.logs import headline
from core.planning.analysis import analyze_plans
from core.planning.coordinator import RetrainingCoordinator, RunChains, one_by_one
from core.planning.interrupted import LATEST, newest_interrupted
from core.planning.plan_state import PlanState
from core.planning.shared.lock import hold
from flows.analyze import analyze
from flows.dataset_chain import dataset_chain
from flows.parameters import Cause, Datasets, EnvironmentChoice, File, PlanId, StartJitter
from flows.server import prefect_api
from settings.app import flag_overrides, load_settings
from settings.errors import RetrainError
from tasks.cancelling import heeding_cancel
from tasks.domain_events import tell_of, telling
from tasks.fan_out import CancelledChainsError, chain_deployments, run_on_workers
from tasks.logs import run_logged
from tasks.mlflow_process import live_curves
from tasks.naming import dataset_tag, label_flow_run, plan_tags
from tasks.outages import outlasting
from tasks.schedule import wait_for_turn

_WORKED_ON: ContextVar[list[str] | None] = ContextVar("worked_on", default=None)


@contextmanager
def noting_plans() -> Iterator[list[str]]:
    """Know which plans the flow begins or takes up in this context: others may, too, where storage is shared.

    Yields:
        Their ids, while and after the flow runs.
    """
    plans: list[str] = []
    before = _WORKED_ON.set(plans)
    try:
        yield plans
    finally:
        _WORKED_ON.reset(before)


@flow(name="retrain", flow_run_name="retrain")
def retrain(
    datasets: Datasets = (),
    priority_datasets: Datasets = (),
    force_retrain: bool = False,
    environment: EnvironmentChoice = None,
    resume: PlanId | None = None,
    config: File = None,
    data_dir: File = None,
    output_dir: File = None,
    start_jitter_s: StartJitter = 0,
    cause: Cause = None,
) -> str | State[str]:
    """Retrain every model that is missing or stale, then publish results, dashboard and recommendations.

    Every dataset has a chain of its own: graphs, teacher, student, fusion, evaluation. A chain that fails
    does not stop the others; what was out of memory, hung or killed goes on from its last checkpoint.

    Args:
        datasets: Names of datasets; only these are looked at: `hcrl_ch`, `hcrl_sa`, `set_01` to `set_04`,
            `demo`, or your own. Empty: all that are there, without `demo`.
        priority_datasets: Names of datasets to begin with, in this order.
        force_retrain: Retrain everything, even what is up to date.
        environment: What to fit settings to: `auto`, `gpu`, `cpu`, or `ci` for a quick run. None: as the
            settings of the machine say.
        resume: Id of an interrupted plan to go on with, instead of making a new one; the run `retrain-ID` has
            it in its name. `latest` is the newest, unless it got no further the last times.
        config: Settings file (YAML) on the machine that trains. None: the defaults and the environment
            variables of its worker.
        data_dir: Folder of the captures. Wins over the settings file and, with `resume`, over the plan.
        output_dir: Folder of models, event log and dashboards. Wins over the settings file.
        start_jitter_s: For schedules: most seconds that a run waits before it begins, so that a fleet does
            not begin at once; other runs never wait.
        cause: For automations: id of the event that the run was begun for; of several such runs one does the
            work.

    Returns:
        The plan's id; the state `Skipped` where another run does the work: a newer one of the same schedule,
        or the first for the same cause.

    Raises:
        RetrainError: Some phase failed; everything that could be done was done.
    """
    if skipped := wait_for_turn(start_jitter_s, cause):
        return skipped
    coordinator = RetrainingCoordinator(
        load_settings(config, **flag_overrides(data_dir, output_dir, environment)), tell_of
    )
    with hold(coordinator.layout.root):
        if resume:
            plan_id = newest_interrupted(coordinator.log) if resume == LATEST else resume
            begin = partial(coordinator.resume, plan_id, data_dir)
            to_do = coordinator.state(plan_id).unfinished_datasets
        else:
            plan = coordinator.create_retraining_plan(force_retrain, datasets, priority_datasets)
            plan_id, begin = plan.plan_id, partial(coordinator.begin, plan)
            to_do = list(dict.fromkeys(step.dataset for step in plan.steps if step.action == "run"))
        run_chains = _chains(coordinator, plan_id, to_do)
        with coordinator.carrying_out(plan_id), run_logged(coordinator.layout, plan_id):
            begin()
            if (worked_on := _WORKED_ON.get()) is not None:
                worked_on.append(plan_id)
            try:
                with heeding_cancel(plan_id):
                    state, analyzed = _carry_out(coordinator, plan_id, run_chains, config, environment)
            except CancelledChainsError as error:
                return Cancelled(message=str(error))
    if state.status != "completed":
        raise RetrainError(f"plan {plan_id} {state.status}: {failures(state)}")
    if not analyzed.is_completed():
        reason = headline(analyzed.message or "")
        raise RetrainError(
            f"plan {plan_id} is done, but not shown: {reason}; python -m flows.analyze tries again"
        )
    return plan_id


def _chains(coordinator: RetrainingCoordinator, plan_id: str, datasets: Sequence[str]) -> RunChains:
    """What carries out the chains of a plan: workers, all at once, or this process, one after the other."""
    root = coordinator.layout.root

    def run_by_prefect(dataset: str) -> None:
        with tags(dataset_tag(dataset)):
            ended = dataset_chain(plan_id, dataset, root, return_state=True)
        if ended.is_cancelled():
            raise CancelledChainsError(ended.message)
        error = ended.result(raise_on_failure=False)
        if isinstance(error, ChainHeldError | ChainLostError):
            raise error

    def run_here(dataset: str) -> None:
        without = partial(coordinator.run_chain, plan_id, dataset, telling(root, plan_id))
        outlasting(partial(run_by_prefect, dataset), without, dataset)

    name = coordinator.settings.scheduling.chain_deployment
    if not name:
        return one_by_one(run_here)
    return partial(run_on_workers, coordinator.layout, plan_id, chain_deployments(name, datasets))


def _carry_out(
    coordinator: RetrainingCoordinator,
    plan_id: str,
    run_chains: RunChains,
    config: File,
    environment: EnvironmentChoice,
) -> tuple[PlanState, State[str]]:
    """Run every chain that is not finished, end the plan, and analyze it."""
    root, tracking = coordinator.layout.root, coordinator.settings.tracking
    begun = coordinator.state(plan_id)
    found_by = plan_tags(plan_id, begun.created.machine["device_name"] if begun.created else "")
    label_flow_run(
        f"retrain-{plan_id} ({', '.join(begun.datasets)})", [*found_by, *map(dataset_tag, begun.datasets)]
    )
    with tags(*found_by):
        with live_curves(root, plan_id, tracking):
            state = coordinator.carry_out(plan_id, run_chains)
        analyzed = outlasting(
            lambda: analyze(config, environment, root, plan_id, return_state=True),
            lambda: Completed(data=plan_id, message=str(analyze_plans(root, plan_id))),
            "analysis",
        )
        return state, analyzed


def run_complete_retraining(
    force_retrain: bool = False, priority_datasets: list[str] | None = None, dry_run: bool = False
) -> RetrainingResults:
    """Retrain with the default settings (and environment), as the command without flags does.

    Args:
        force_retrain: Retrain everything.
        priority_datasets: These first.
        dry_run: Only plan; the results then hold what would run, and nothing is written.

    Returns:
        The plan's results; a phase that failed is in them, not raised.

    Raises:
        SettingsError: Bad settings, or no dataset to be found.
        RetrainError: No plan could be begun.
    """
    coordinator = RetrainingCoordinator(load_settings())
    if dry_run:
        plan = coordinator.create_retraining_plan(force_retrain, (), priority_datasets or ())
        return fold_results([to_event(plan.plan_id, plan.created())])
    with prefect_api(coordinator.layout.root), noting_plans() as begun:
        state = retrain(
            force_retrain=force_retrain, priority_datasets=priority_datasets or (), return_state=True
        )
    if not begun:
        state.result()
    return fold_results(coordinator.log.read(begun[0]))


def failures(state: PlanState) -> str:
    """The phases that failed, with their reasons, and the datasets that came to nothing, on one line."""
    failed = [
        f"{dataset}/{phase}: {headline(phase_state.reason)}"
        for (dataset, phase), phase_state in state.phases.items()
        if phase_state.status == "failed"
    ]
    left = [name for name in state.datasets if _is_left(state, name)]
    return "; ".join([*failed, *(f"{name}: not done, see the log" for name in left)])


def _is_left(state: PlanState, dataset: str) -> bool:
    """Whether phases of a dataset neither ended nor were given up."""
    return bool(
        {state.phases[dataset, phase].status for phase in state.remaining(dataset)} & {"pending", "running"}
    )
