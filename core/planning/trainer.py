"""One dataset's whole chain from a script, without Prefect."""

from core.analytics.results import DatasetResult, fold_results
from core.planning.chain import Listener
from core.planning.coordinator import RetrainingCoordinator
from settings.app import Settings
from settings.errors import SettingsError
from settings.tree import merge

MOST_IDS = 2**29
"""Arbitration ids there are: 29 bits."""


class Trainer:
    """Trains the models of one dataset after another, whether or not they are up to date.

    What it does is a plan like any other: in the event log, resumable, and shown by ``flows.status``.

    Args:
        settings: As loaded, or those of ``create_optimized_config()``.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def train_complete_pipeline(
        self, dataset: str, num_ids: int, listener: Listener = lambda fact: None
    ) -> DatasetResult:
        """Train teacher, student and fusion of a dataset, and evaluate them.

        Args:
            dataset: A built-in dataset, ``demo``, or one of ``data.datasets``.
            num_ids: Arbitration ids that the vehicle may send, at most: the id embeddings get the next power
                of two of rows, whatever the settings say. Ids are hashed, so more of them still train, with
                more collisions; an id that training never saw needs no row of its own.
            listener: Told every fact after it is in the log.

        Returns:
            What it came to; a phase that failed is in it, with its error, not raised.

        Raises:
            SettingsError: An unknown dataset, or no possible number of ids.
            RetrainError: Another process is carrying out a plan in this output directory.
        """
        coordinator = RetrainingCoordinator(with_buckets_for(num_ids, self.settings))
        plan = coordinator.create_retraining_plan(force_retrain=True, datasets=[dataset])
        coordinator.execute_retraining_plan(plan, listener)
        return fold_results(coordinator.log.read(plan.plan_id)).datasets[dataset]


def with_buckets_for(num_ids: int, settings: Settings) -> Settings:
    """Settings whose id embeddings have a row for every id, rounded up to a power of two.

    Args:
        num_ids: Arbitration ids, at most.
        settings: Settings; what they leave open stays open.

    Raises:
        SettingsError: No possible number of arbitration ids.
    """
    if not 0 < num_ids <= MOST_IDS:
        raise SettingsError(f"num_ids is {num_ids}: give a number of arbitration ids, 1 to {MOST_IDS}")
    ids = {"ids": {"num_buckets": max(2, 1 << (num_ids - 1).bit_length())}}
    sizes = {"models": {"teacher": ids, "student": ids}}
    return Settings.model_validate(merge(settings.model_dump(exclude_unset=True), sizes))
