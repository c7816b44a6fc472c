"""What a dashboard shows, on a page or in a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from core.analytics.bottlenecks import fold_bottlenecks
from core.analytics.detection import FolderScores, fold_scores
from core.analytics.fleet import Fleet, FleetHistory
from core.analytics.metrics import model_order
from core.analytics.results import RetrainingResults, fold_results
from core.analytics.telemetry import Telemetry, view_telemetry
from core.analytics.timeline import (
    EpochPoint,
    LimitPoint,
    Mark,
    Span,
    fold_epochs,
    fold_limits,
    fold_marks,
    fold_spans,
)
from core.analytics.versions import Versions
from core.analytics.watchdog import MemoryUse, Watch, fold_memory, fold_watch
from core.events.event import Event
from core.events.telemetry import Samples

DOT_METRICS = ("f1", "mcc", "false_positive_rate")


@dataclass(frozen=True)
class Dashboard:
    """What a dashboard shows.

    Attributes:
        results: The plan's results.
        spans: Its attempts of phases.
        epochs: Its epochs.
        marks: What befell it.
        limits: How large packs might be, by dataset and model, where that changed.
        window: Its first and its last moment, UTC; None where there is no event.
        memory: What its phases took of it.
        watch: What supervision did for it.
        telemetry: Its resource samples, reduced.
        fleet: All plans as they were when the plan's last event was appended.
        scores: How scores of its models lie, by dataset and test folder.
        versions: All versions of models there were then.
    """

    results: RetrainingResults
    spans: Sequence[Span]
    epochs: Sequence[EpochPoint]
    marks: Sequence[Mark]
    limits: Mapping[tuple[str, str], Sequence[LimitPoint]]
    window: tuple[datetime, datetime] | None
    memory: Sequence[MemoryUse]
    watch: Watch
    telemetry: Telemetry
    fleet: Fleet
    scores: Mapping[str, Mapping[str, FolderScores]]
    versions: Versions

    @property
    def datasets(self) -> list[str]:
        """Datasets with work to show, in plan order."""
        worked = {span.dataset for span in self.spans}
        return [name for name in self.results.datasets if name in worked]

    @property
    def evaluated(self) -> list[str]:
        """Datasets with metrics, in plan order."""
        return [name for name, dataset in self.results.datasets.items() if dataset.metrics]

    @property
    def models(self) -> list[str]:
        """Evaluated models, in the order of the chain."""
        datasets = self.results.datasets.values()
        return model_order({model: None for dataset in datasets for model in dataset.metrics})

    def losses(self, dataset: str) -> list[tuple[str, list[EpochPoint]]]:
        """Models of a dataset with their epochs, in the order of the chain."""
        points = {
            model: list(group)
            for (name, model), group in groupby(self.epochs, lambda p: (p.dataset, p.model))
            if name == dataset
        }
        return [(model, points[model]) for model in model_order(points)]

    def dot_metrics(self, dataset: str) -> list[str]:
        """Which metrics of a dataset are drawn."""
        folders = [m for models in self.results.datasets[dataset].metrics.values() for m in models.values()]
        return [name for name in DOT_METRICS if any(name in metrics for metrics in folders)]


def fold_dashboard(
    plan_id: str,
    streams: Mapping[str, Sequence[Event]],
    samples: Samples,
    history: FleetHistory | None = None,
) -> Dashboard:
    """Fold a plan's events into what its dashboard shows; an empty or unfinished plan is fine.

    Args:
        plan_id: The plan.
        streams: The events of each plan, in order; what happened after the plan's last event is not shown.
        samples: Its resource samples in any order, perhaps too many to collect.
        history: All plans, where dashboards of several are folded; None to fold them for this one.
    """
    events = streams.get(plan_id, ())
    results = fold_results(events).model_copy(
        update={"plan_id": plan_id, "bottlenecks": fold_bottlenecks(events, samples)}
    )
    history = history or FleetHistory(streams)
    fleet = history.seen_from(plan_id)
    times = [event.occurred_at for event in events]
    return Dashboard(
        results,
        fold_spans(events),
        fold_epochs(events),
        fold_marks(events),
        fold_limits(events),
        (min(times), max(times)) if times else None,
        fold_memory(events),
        fold_watch(events),
        view_telemetry(samples),
        fleet,
        fold_scores(events),
        history.versions_seen_from(plan_id, fleet),
    )
