"""The child flow: one dataset's chain, a task per phase, with resources sampled for its whole life."""

from pathlib import Path

from prefect import flow

from core.errors import TrainingProcessError
from core.planning.chain import Chain
from flows.progress import shown_progress
from flows.sample_resources import sampling
from tasks.logs import run_identified
from tasks.phases import phase_task


@flow(name="dataset-chain", flow_run_name="chain-{dataset}")
def dataset_chain(output_dir: Path, plan_id: str, dataset: str) -> None:
    """Run what a plan has left to do for one dataset, phase by phase, while resources are sampled beside it.

    Args:
        output_dir: The plan's output directory.
        plan_id: A plan in its event log.
        dataset: One of the plan's datasets.

    Raises:
        TrainingProcessError: A phase failed for good; the phases after it are marked as not reached.
    """
    with (
        run_identified(),
        Chain(output_dir, plan_id, dataset) as chain,
        sampling(output_dir, plan_id, dataset, chain.settings.resources, chain.training_pids),
        shown_progress(output_dir, plan_id, dataset),
    ):
        for phase in chain.remaining():
            try:
                phase_task(phase, chain)(chain)
            except TrainingProcessError:
                chain.skip_descendants(phase)
                raise
