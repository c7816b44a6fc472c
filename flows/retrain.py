"""Retrain what is missing or stale: the parent flow, and the command ``python -m flows.retrain``."""

import sys

if __name__ == "__main__":  # before Prefect is loaded, so that --dry-run and --help answer at once
    from flows.cli import retrain_command

    sys.exit(retrain_command())

from pathlib import Path

from prefect import flow

from core.analytics.results import RetrainingResults, fold_results
from core.events.catalogue import to_event
from core.planning.coordinator import RetrainingCoordinator
from core.planning.lock import hold
from core.planning.plan_state import PlanState
from core.planning.progress import logged_to
from flows.analyze import analyze
from flows.dataset_chain import dataset_chain
from flows.server import prefect_api
from settings.app import flag_overrides, load_settings
from settings.errors import RetrainError
from tasks.mlflow_process import live_curves


@flow(name="retrain")
def retrain(
    config: Path | None = None,
    data_dir: Path | None = None,
    output_dir: Path | None = None,
    environment: str | None = None,
    datasets: list[str] | None = None,
    priority_datasets: list[str] | None = None,
    force_retrain: bool = False,
    resume: str | None = None,
) -> str:
    """Plan, run every dataset's chain, analyze.

    Args:
        config: Settings file.
        data_dir: Where captures are; wins over the settings file and, with `resume`, over the plan.
        output_dir: Where outputs go; wins over the settings file.
        environment: What to fit settings to; wins over the settings file.
        datasets: Only these.
        priority_datasets: These first.
        force_retrain: Retrain everything.
        resume: Take up this plan instead of making one.

    Returns:
        The plan's id.

    Raises:
        RetrainError: Some phase failed; everything that could be done was done.
    """
    coordinator = RetrainingCoordinator(
        load_settings(config, **flag_overrides(data_dir, output_dir, environment))
    )
    with hold(coordinator.layout.root):
        if resume:
            coordinator.resume(resume, data_dir)
            plan_id = resume
        else:
            plan = coordinator.create_retraining_plan(force_retrain, datasets or (), priority_datasets or ())
            coordinator.begin(plan)
            plan_id = plan.plan_id
        root = coordinator.layout.root
        with (
            logged_to(coordinator.layout.coordinator_logs / f"{plan_id}.log"),
            live_curves(root, plan_id, coordinator.settings.tracking),
        ):
            for dataset in coordinator.state(plan_id).unfinished_datasets:
                dataset_chain(root, plan_id, dataset, return_state=True)
            state = coordinator.finish(plan_id)
        analyzed = analyze(root, plan_id, coordinator.settings.tracking, return_state=True)
    if state.status != "completed":
        raise RetrainError(f"plan {plan_id} {state.status}: {failures(state)}")
    if not analyzed.is_completed():
        raise RetrainError(
            f"plan {plan_id} is done, but not shown: {analyzed.message}; python -m flows.analyze tries again"
        )
    return plan_id


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
    before = set(coordinator.log.streams())
    with prefect_api(coordinator.layout.root):
        state = retrain(force_retrain=force_retrain, priority_datasets=priority_datasets, return_state=True)
    begun = set(coordinator.log.streams()) - before
    if not begun:
        state.result()
    return fold_results(coordinator.log.read(max(begun)))


def failures(state: PlanState) -> str:
    """The phases that failed, with their reasons, on one line."""
    return "; ".join(
        f"{dataset}/{phase}: {phase_state.reason}"
        for (dataset, phase), phase_state in state.phases.items()
        if phase_state.status == "failed"
    )
