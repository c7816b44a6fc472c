"""Progress artifacts: bars in the Prefect UI that move while a dataset is trained."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from core.analytics.markdown import plain
from core.logs import headline
from core.planning.live.decisions import duration
from core.planning.live.progress import LOG
from core.planning.live.remaining import share_done, weights
from core.planning.live.view import PhaseView
from core.planning.live.watching import Watch
from core.resources.sampler import beside
from flows.watch_words import eta_words, model_words, now_words
from tasks.naming import artifact_key

_INTERVAL_S = 3.0
_PATIENCE_S = 5.0
"""How long the end of a chain waits for an API that does not answer."""


@contextmanager
def shown_progress(output_dir: Path, plan_id: str, dataset: str) -> Iterator[None]:
    """Keep a dataset's progress artifact up to date for as long as the context lasts, and say how it ended.

    It is done in a thread beside the chain, from the event log: whatever becomes of it, training goes on.

    Args:
        output_dir: The plan's output directory.
        plan_id: The plan.
        dataset: The chain's dataset.
    """
    ended = threading.Event()
    with beside(
        partial(_show, output_dir, plan_id, dataset, ended), ended, f"progress-{dataset}", _PATIENCE_S
    ):
        yield


def progress_percent(phases: list[PhaseView]) -> float:
    """How much of a dataset's chain is done, percent; what was up to date is no part of it."""
    done = {(phase.dataset, phase.phase): phase.fraction for phase in phases if phase.status != "skipped"}
    return round(100 * share_done(done, weights(list(done), {})), 1)


def progress_words(plan_id: str, phases: list[PhaseView], is_over: bool) -> str:
    """What a dataset's chain does, or how it ended, as markdown.

    Args:
        plan_id: The plan.
        phases: The chain's phases, in order.
        is_over: Whether the chain has come to its end, whichever that is.
    """
    to_do = [phase for phase in phases if phase.status != "skipped"]
    of_plan = f"Plan {plain(plan_id)}."
    number, phase = next(
        ((i, phase) for i, phase in enumerate(to_do, 1) if phase.status != "completed"), (0, None)
    )
    if phase is None:
        return f"All phases done in {duration(sum(phase.elapsed_s for phase in to_do))}. {of_plan}"
    if is_over and phase.status == "failed":
        left = ", ".join(later.phase for later in to_do[number:])
        rest = f" Not reached: {left}." if left else ""
        return f"**{phase.phase} failed**: {plain(headline(phase.reason))}.{rest} {of_plan}"
    if is_over:
        return f"**Interrupted** in {phase.phase}: `python -m flows.retrain --resume {plan_id}` goes on."
    said = [", ".join([*now_words(phase), *model_words(phase)]), eta_words(phase)]
    words = "; ".join(plain(words) for words in said if words)
    return f"**{phase.phase}** ({number} of {len(to_do)}): {words}. {of_plan}"


def _show(output_dir: Path, plan_id: str, dataset: str, ended: threading.Event) -> None:
    watch, artifact = Watch(output_dir, plan_id), _Artifact(artifact_key("progress", dataset))
    has_failed = is_over = False
    while True:
        try:
            phases = [phase for phase in watch.look().phases if phase.dataset == dataset]
            artifact.tell(progress_percent(phases), progress_words(plan_id, phases, is_over))
        except Exception as error:  # noqa: BLE001 - whatever it is, training goes on
            if not has_failed:
                LOG.warning(
                    "%s: its progress is not shown in the Prefect UI: %s", dataset, error, exc_info=True
                )
            has_failed = True
        if is_over:
            return
        is_over = ended.wait(_INTERVAL_S)


class _Artifact:
    """One artifact, made when there is first something to tell."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._id: UUID | None = None
        self._told: tuple[float, str] | None = None

    def tell(self, percent: float, words: str) -> None:
        if (percent, words) == self._told:
            return
        if self._id is None:
            # It would be a coroutine within one, and this is a thread.
            self._id = cast(UUID, create_progress_artifact(percent, key=self._key, description=words))
        else:
            update_progress_artifact(self._id, percent, description=words)
        self._told = percent, words
