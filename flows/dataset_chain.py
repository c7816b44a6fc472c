"""The child flow: one dataset's chain, a task per phase, with resources sampled for its whole life."""

from functools import partial

from prefect import State, flow
from prefect.states import Cancelled

from core.errors import TrainingProcessError
from core.events.open import bind_storage
from core.planning.chain import Chain, at_once
from core.planning.coordinator import run_phase
from core.planning.live.progress import LOG
from flows.parameters import Dataset, File, PlanId
from flows.progress import shown_progress
from flows.sample_resources import sampling
from settings.app import flag_overrides, read_settings
from settings.layout import Layout
from tasks.admission import admitted, is_on_worker
from tasks.cancelling import heeding_cancel
from tasks.domain_events import telling
from tasks.fan_out import CancelledChainsError
from tasks.logs import run_logged
from tasks.outages import outlasting
from tasks.phases import phase_task


@flow(name="dataset-chain", flow_run_name="chain-{dataset}")
def dataset_chain(
    plan_id: PlanId,
    dataset: Dataset,
    output_dir: File = None,
    data_dir: File = None,
    config: File = None,
) -> State[None] | None:
    """Run what a plan has left to do for one dataset, phase by phase, while resources are sampled beside it.

    As a flow run of a deployment it shares its machine with others: each phase waits until there is room for
    it on a GPU, or on the processors.

    Args:
        plan_id: Id of a plan in the event log; the run `retrain-ID` has it in its name.
        dataset: One of the plan's datasets.
        output_dir: The plan's output directory. None: that of the settings on the machine that trains.
        data_dir: Where captures are on that machine. None: as its settings say, if the output directory is
            left to them too; else where the plan found them.
        config: Settings file (YAML) on that machine. None: the defaults and the environment variables of its
            worker.

    Returns:
        The state `Cancelled` where somebody cancelled it and no worker ends it.

    Raises:
        TrainingProcessError: A phase failed for good; the phases after it are marked as not reached.
        RetrainError: The plan is not in the log, or another process works on the dataset.
    """
    loaded = read_settings(config, **flag_overrides(data_dir, output_dir))
    settings, root = loaded.settings, bind_storage(loaded.settings).root
    is_moved = data_dir or (output_dir is None and "data.data_dir" in loaded.origins)
    found_in = settings.data.data_dir.absolute() if is_moved else None
    admit = partial(admitted, scheduling=settings.scheduling) if is_on_worker() else at_once
    with run_logged(Layout(root), plan_id):
        chain = Chain(root, plan_id, dataset, telling(root, plan_id), found_in, admit)
        if chain.is_over():  # begun by hand: what the log says of the chain stays as it is
            LOG.info("%s: nothing is left to do in plan %s", dataset, plan_id)
            return None
        try:
            with (
                heeding_cancel(plan_id),
                chain,
                sampling(root, plan_id, dataset, chain.settings.resources, chain.training_pids),
                shown_progress(root, plan_id, dataset),
            ):
                for phase in chain.remaining():
                    try:
                        task = partial(phase_task(phase, chain), chain)
                        outlasting(task, partial(run_phase, chain, phase), f"{dataset}: {phase}")
                    except TrainingProcessError:
                        chain.skip_descendants(phase)
                        raise
        except CancelledChainsError as error:
            return Cancelled(message=str(error))
    return None
