"""The resource-sampling subflow: runs beside a dataset's chain and ends with it, whatever happens to it."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from prefect import flow

from core.logs import identified
from core.resources.sampler import beside, sample_chain, sample_chain_or_warn
from settings.layout import Layout
from settings.resources import ResourceSettings
from tasks.logs import run_identified
from tasks.outages import outlasting


@dataclass(frozen=True)
class _Chain:
    """What the sampler knows of the chain beside it."""

    ended: threading.Event = field(default_factory=threading.Event)
    training_pids: Callable[[], Sequence[int]] = tuple


_CHAIN: ContextVar[_Chain] = ContextVar("sampled_chain")


@flow(name="sample-resources", flow_run_name="sample-resources-{dataset}", validate_parameters=False)
def sample_resources(output_dir: Path, plan_id: str, dataset: str, resources: ResourceSettings) -> None:
    """Sample the machine, its GPUs and the training processes until the chain beside this run has ended.

    Args:
        output_dir: The plan's output directory.
        plan_id: The plan.
        dataset: The chain's dataset.
        resources: How often to sample and to write.
    """
    chain = _CHAIN.get()
    with run_identified(), identified(dataset=dataset):
        sample_chain(Layout(output_dir), plan_id, dataset, resources, chain.training_pids, chain.ended)


@contextmanager
def sampling(
    output_dir: Path,
    plan_id: str,
    dataset: str,
    resources: ResourceSettings,
    training_pids: Callable[[], Sequence[int]],
) -> Iterator[None]:
    """Run the subflow in a thread of this flow run for as long as the context lasts.

    Where Prefect's server is away, samples are taken without it.
    """
    chain = _Chain(training_pids=training_pids)
    context = copy_context()
    context.run(_CHAIN.set, chain)
    sample = partial(sample_resources, output_dir, plan_id, dataset, resources, return_state=True)
    without = partial(
        sample_chain_or_warn, Layout(output_dir), plan_id, dataset, resources, training_pids, chain.ended
    )
    run = partial(context.run, outlasting, sample, without, f"{dataset}: sampling")
    with beside(run, chain.ended, f"sample-resources-{dataset}"):
        yield
