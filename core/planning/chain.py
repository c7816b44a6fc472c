"""One dataset's chain: its phases, run one by one in the training process, every step an event."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from core.can.digest import find_shared_captures
from core.can.registry import Capture, find_captures
from core.errors import TrainingError, TrainingProcessError
from core.events.catalogue import (
    CaptureRefused,
    CapturesDigested,
    ChainFinished,
    ChainStarted,
    Fact,
    GraphsBuilt,
    PhaseFailed,
    PhaseFinished,
    PhaseSkipped,
    PhaseStarted,
    to_event,
    to_fact,
)
from core.events.log import EventLog
from core.planning.phases import GRAPHS, PARENT, PHASES, settings_digest
from core.planning.plan import captures_digested
from core.planning.plan_state import PLAN_STATE, PlanState
from core.planning.registry_view import REGISTRY_VIEW, RegistryView, registry_view
from core.resources.process import TrainingProcess
from core.training.batch_plan import num_steps
from core.training.job import PhaseJob
from settings.app import Settings
from settings.errors import RetrainError
from settings.layout import Layout

Listener = Callable[[Fact], None]


class Chain:
    """Teacher, student, fusion and evaluation of one dataset within one plan.

    Everything it needs it folds from the log, so it may be begun anew at any time by anyone who knows the two
    names. Used as a context manager: the training process lives as long as the context.

    Args:
        output_dir: The plan's output directory.
        plan_id: The plan.
        dataset: The dataset.
        listener: Told every fact after it is in the log.

    Raises:
        RetrainError: The plan is not in the log.
    """

    def __init__(
        self, output_dir: Path, plan_id: str, dataset: str, listener: Listener = lambda fact: None
    ) -> None:
        self.plan_id, self.dataset = plan_id, dataset
        self._log = EventLog(Layout(output_dir).events)
        self._listener = listener
        created = self._state().created
        if created is None:
            raise RetrainError(f"plan {plan_id} is not in {self._log.root}")
        self.settings = Settings(**{**created.settings, "output_dir": output_dir})
        self._machine = created.machine
        self._layout = Layout(output_dir)
        self._hang_timeout_s = self.settings.resources.hang_timeout_s
        self._process = TrainingProcess(f"{plan_id}-{dataset}", self._layout.process_logs)
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        """Say that work on the dataset begins."""
        self.emit(ChainStarted(dataset=self.dataset))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the training process and say how the chain ended; an interrupted chain says nothing."""
        self._process.stop()
        if kind is None or issubclass(kind, Exception):
            duration_s = time.monotonic() - self._began
            status = "failed" if self.remaining() else "completed"
            self.emit(ChainFinished(dataset=self.dataset, status=status, duration_s=duration_s))

    def emit(self, fact: Fact) -> None:
        """Append a fact to the plan's stream, then tell the listener."""
        self._log.append([to_event(self.plan_id, fact)])
        self._listener(fact)

    def training_pids(self) -> list[int]:
        """Process id of the training process while there is one."""
        pid = self._process.pid
        return [] if pid is None else [pid]

    def remaining(self) -> list[str]:
        """Phases still to do, in order."""
        return self._state().remaining(self.dataset)

    def skip_descendants(self, failed: str) -> None:
        """Say of every phase after a failed one that it was not reached."""
        for phase in self.remaining():
            if PHASES.index(phase) > PHASES.index(failed):
                self.emit(PhaseSkipped(dataset=self.dataset, phase=phase, reason=f"{failed} failed"))

    def run_phase(self, phase: str) -> None:
        """Run one attempt of a phase; the log decides with which settings.

        Raises:
            TrainingProcessError: The attempt failed; its kind says whether another can cure it.
        """
        state = self._state().phases[self.dataset, phase]
        micro_batch_size = self.micro_batch_size(phase)
        attempt = state.attempts + 1
        self.emit(
            PhaseStarted(
                dataset=self.dataset,
                phase=phase,
                attempt=attempt,
                device=self._machine["device"],
                precision=self._machine["precision"],
                micro_batch_size=micro_batch_size,
            )
        )
        began = time.monotonic()
        try:
            if phase == GRAPHS:
                self._build_graphs()
            else:
                job = self.job(phase, micro_batch_size, attempt)
                self._process.run(
                    f"core.training.phases:{job.target}",
                    job,
                    on_fact=self.emit,
                    timeout_s=self._hang_timeout_s,
                )
        except Exception as error:
            expected = isinstance(error, RetrainError | OSError)
            kind = getattr(error, "kind", "data_error" if expected else "bug")
            self.emit(
                PhaseFailed(
                    dataset=self.dataset,
                    phase=phase,
                    attempt=attempt,
                    kind=kind,
                    message=str(error),
                    micro_batch_size=micro_batch_size,
                )
            )
            if expected:
                raise TrainingProcessError(kind, str(error)) from error
            raise
        self.emit(
            PhaseFinished(
                dataset=self.dataset,
                phase=phase,
                attempt=attempt,
                duration_s=time.monotonic() - began,
                peak_memory_mib=self._process.peak_memory_mib or 0.0,
            )
        )

    def _build_graphs(self) -> None:
        view = self._view()
        digested = captures_digested(self.dataset, self.settings, view)
        self.emit(digested)
        all_rows = {name: known.captures for name, known in view.captures.items()}
        for shared in find_shared_captures({**all_rows, self.dataset: digested.captures}):
            if shared.dataset == self.dataset:
                self.emit(shared)
        captures = self._without_copies(find_captures(self.dataset, self.settings.data), digested)
        self._process.run(
            "core.can.graphs:build_graph_store",
            self.dataset,
            captures,
            digested.data_digest,
            self.settings,
            self._layout.graphs,
            on_fact=self.emit,
            timeout_s=self._hang_timeout_s,
        )

    def _without_copies(self, captures: list[Capture], digested: CapturesDigested) -> list[Capture]:
        """Leave out copies of training captures: their frames would be on both sides of a split."""
        sha256 = {row["path"]: row["sha256"] for row in digested.captures}
        first: dict[str, Capture] = {}
        kept = []
        for capture in captures:
            original = first.setdefault(sha256[capture.path.as_posix()], capture)
            if original is capture or "test" in (capture.role, original.role):
                kept.append(capture)
            else:
                reason = f"same bytes as {original.path}"
                self.emit(CaptureRefused(dataset=self.dataset, path=str(capture.path), reason=reason))
        return kept

    def job(self, phase: str, micro_batch_size: int, attempt: int) -> PhaseJob:
        """What the training process is told about an attempt of a phase.

        Raises:
            TrainingError: The plan has no graphs of the dataset.
        """
        built = self._built()
        if built is None:
            raise TrainingError(f"{self.dataset} has no graphs in plan {self.plan_id}: make a new plan")
        # What this plan read and trained itself comes first: others may have seen newer captures since.
        own = REGISTRY_VIEW.fold(self._log.read(self.plan_id))
        parent_key = (self.dataset, PARENT.get(phase, ""))
        parent = own.models.get(parent_key) or self._view().models.get(parent_key)
        return PhaseJob(
            dataset=self.dataset,
            phase=phase,
            store=self._layout.graphs / Path(built.path).name,
            settings=self.settings,
            models_dir=self._layout.saved_models,
            checkpoints_dir=self._layout.checkpoints,
            data_digest=own.captures[self.dataset].data_digest,
            settings_digest=settings_digest(self.settings, self.dataset, phase),
            parent_sha256=parent.sha256 if parent else "",
            micro_batch_size=micro_batch_size,
            attempt=attempt,
        )

    def micro_batch_size(self, phase: str) -> int:
        """What the settings say; after a lack of memory, half of what a step really held, each time."""
        training = self.settings.training
        asked = training.micro_batch_size or training.batch_size
        num_ooms = self._state().phases[self.dataset, phase].num_ooms
        built = self._built()
        if not num_ooms or built is None:
            return asked
        num_train = built.splits["train"]
        steps = num_steps(num_train, training.batch_size, training.min_steps_per_epoch)
        return max(1, min(asked, math.ceil(num_train / steps)) >> num_ooms)

    def _built(self) -> GraphsBuilt | None:
        """The graphs this plan built or found for the dataset."""
        facts = (to_fact(event) for event in reversed(self._log.read(self.plan_id)))
        return next((f for f in facts if isinstance(f, GraphsBuilt) and f.dataset == self.dataset), None)

    def _state(self) -> PlanState:
        return PLAN_STATE.fold(self._log.read(self.plan_id))

    def _view(self) -> RegistryView:
        return registry_view(self._log)
