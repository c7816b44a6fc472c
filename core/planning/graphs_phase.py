"""The first phase of a chain: captures to graphs, the same ones whenever a plan builds them."""

from collections.abc import Sequence

from core.can.digest import find_shared_captures
from core.can.registry import Capture, find_captures
from core.errors import GraphStoreError
from core.events.catalogue import CaptureRefused, CapturesDigested, Emit, Fact, GraphsBuilt
from core.events.event import Event
from core.planning.captures import captures_digested, captures_of_graphs, require_same_captures
from core.planning.plan_state import PLAN_STATE
from core.planning.registry_view import RegistryView
from core.resources.process import TrainingProcess
from settings.app import Settings
from settings.layout import Layout


def build_graphs(
    dataset: str,
    settings: Settings,
    layout: Layout,
    events: Sequence[Event],
    view: RegistryView,
    process: TrainingProcess,
    emit: Emit,
) -> None:
    """Hash a dataset's captures, and build its graphs of them in the training process.

    Args:
        dataset: The dataset.
        settings: Of the plan, with the captures where they are on this machine.
        layout: The plan's output directory.
        events: The plan's; where it built graphs before, captures and graphs have to be the same.
        view: What the log knows of captures.
        process: Builds them.
        emit: Told every fact.

    Raises:
        CaptureError: Captures are missing, cannot be used, or are not those that the plan began with.
        GraphStoreError: The graphs are not those that the plan began with.
        TrainingProcessError: The process failed.
    """
    built = PLAN_STATE.fold(events).graphs.get(dataset)
    digested = captures_digested(dataset, settings, view)
    if before := captures_of_graphs(events).get(dataset):
        require_same_captures(before, digested)
    emit(digested)
    all_rows = {name: known.captures for name, known in view.captures.items()}
    for shared in find_shared_captures({**all_rows, dataset: digested.captures}):
        if shared.dataset == dataset:
            emit(shared)
    captures, refused = _without_copies(dataset, find_captures(dataset, settings.data), digested)
    for fact in refused:
        emit(fact)

    def emit_the_same(fact: Fact) -> None:
        if built and isinstance(fact, GraphsBuilt):
            _require_same_graphs(built, fact)
        emit(fact)

    process.run(
        "core.can.graphs:build_graph_store",
        dataset,
        captures,
        digested.data_digest,
        settings,
        layout.graphs,
        on_fact=emit_the_same,
        timeout_s=settings.resources.hang_timeout_s,
    )


def _without_copies(
    dataset: str, captures: Sequence[Capture], digested: CapturesDigested
) -> tuple[list[Capture], list[CaptureRefused]]:
    """Leave out copies of training captures: their frames would be on both sides of a split."""
    sha256 = {row["path"]: row["sha256"] for row in digested.captures}
    first: dict[str, Capture] = {}
    kept, refused = [], []
    for capture in captures:
        original = first.setdefault(sha256[capture.path.as_posix()], capture)
        if original is capture or "test" in (capture.role, original.role):
            kept.append(capture)
        else:
            reason = f"same bytes as {original.path}"
            refused.append(CaptureRefused(dataset=dataset, path=str(capture.path), reason=reason))
    return kept, refused


def _require_same_graphs(before: GraphsBuilt, now: GraphsBuilt) -> None:
    if (before.graphs_digest, before.split_digest) != (now.graphs_digest, now.split_digest):
        raise GraphStoreError(
            f"{now.dataset}: the graphs built again are not those that the plan began with (graphs "
            f"{before.graphs_digest[:8]} -> {now.graphs_digest[:8]}, split {before.split_digest[:8]} -> "
            f"{now.split_digest[:8]}): a capture cannot be read as before, or this software is another "
            "release; make a new plan (without --resume)"
        )
