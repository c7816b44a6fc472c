"""One dataset's chain: its phases, run one by one in the training process, every step an event."""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from core.analytics.history import PhaseEstimate, phase_history
from core.can.graph_store import open_graph_store
from core.errors import ArtifactError, ChainLostError, GraphStoreError, TrainingError, TrainingProcessError
from core.events.catalogue import (
    ChainFinished,
    ChainStarted,
    ChainStopped,
    CheckpointWritten,
    Fact,
    GraphsBuilt,
    GraphsLost,
    ModelSaved,
    PhaseFailed,
    PhaseFinished,
    PhaseSkipped,
    PhaseStarted,
)
from core.events.open import open_log
from core.events.projection import Following
from core.logs import headline, identified, without_secrets
from core.planning.admission import Placement
from core.planning.attempt import Attempt, choose_attempt, may_retry
from core.planning.graphs_phase import build_graphs
from core.planning.live.progress import LOG, ProgressLog
from core.planning.machine import describe_machine
from core.planning.pack_limits import fold_pack_limits
from core.planning.phases import GRAPHS, PARENT, PHASES, settings_digest
from core.planning.plan import model_damage
from core.planning.plan_state import PLAN_STATE, PhaseState, PlanState
from core.planning.registry_view import REGISTRY_VIEW, RegistryView, registry_view
from core.planning.shared.claims import Claim, claimed
from core.planning.shared.files import shared_files
from core.resources.failures import classify
from core.resources.machine import probe_machine
from core.resources.process import TrainingProcess
from core.training.job import PhaseJob
from settings.errors import RetrainError
from settings.layout import Layout
from settings.names import is_dataset_name

Listener = Callable[[Fact], None]
Admit = Callable[["Chain", str], AbstractContextManager[Placement | None]]
"""Waits for room for a phase, and gives it back when the context ends; None where there is no need to ask."""


def at_once(chain: "Chain", phase: str) -> AbstractContextManager[None]:
    """Admit a phase without asking anybody."""
    del chain, phase
    return nullcontext()


class Chain:
    """Teacher, student, fusion and evaluation of one dataset within one plan.

    Everything it needs it folds from the log, so it may be begun anew at any time by anyone who knows the two
    names. Used as a context manager: the dataset is held, and the training process lives, as long as the
    context. An interrupt (Ctrl-C, a signal's exception) makes training write a checkpoint first.

    Args:
        output_dir: The plan's output directory.
        plan_id: The plan.
        dataset: The dataset.
        listener: Told every fact after it is in the log.
        data_dir: Where captures are on this machine; None where the plan says.
        admit: Entered for each attempt of a phase: waits until there is room for it.

    Attributes:
        layout: Where the plan's outputs are.
        settings: The plan's settings.
        is_priority: Whether the plan has this dataset done before others.

    Raises:
        RetrainError: The plan is not in the log, or asks for a GPU where there is none.
    """

    def __init__(
        self,
        output_dir: Path,
        plan_id: str,
        dataset: str,
        listener: Listener = lambda fact: None,
        data_dir: Path | None = None,
        admit: Admit = at_once,
    ) -> None:
        self.plan_id, self.dataset = plan_id, dataset
        self._log = open_log(Layout(output_dir))
        self._plan = Following(self._log, plan_id, PLAN_STATE)
        self._listener, self._say = listener, ProgressLog()
        state = self._state()
        if state.created is None:
            raise RetrainError(f"plan {plan_id} is not in {self._log.location}")
        if dataset not in state.datasets or not is_dataset_name(dataset):
            raise RetrainError(f"plan {plan_id} has no dataset {dataset!r}")
        self.settings = state.settings_in(output_dir, data_dir)
        self.is_priority = dataset in state.created.priority
        self._admit, self._probed = admit, probe_machine()
        self._machine = describe_machine(self._probed, self.settings.training)
        self.layout = Layout(output_dir)
        self._files = shared_files(self.layout)
        self._hang_timeout_s = self.settings.resources.hang_timeout_s
        resources = self.settings.resources
        self._process = TrainingProcess(
            f"{plan_id}-{dataset}", self.layout.process_logs, resources.stop_grace_s
        )
        self._claim: Claim
        self._ending = ExitStack()
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        """Hold the dataset, and say that work on it begins, and whether its graphs, a cache, are gone.

        Raises:
            ChainHeldError: Another process works on the dataset, for whatever plan.
            EventLogError: The storage cannot be read or written.
        """
        with ExitStack() as ending:
            self._claim = ending.enter_context(
                claimed(
                    self.dataset,
                    self.plan_id,
                    self._plan,
                    self._log,
                    self.layout,
                    self._process,
                    self.settings.resources.lease_s,
                )
            )
            self.emit(ChainStarted(dataset=self.dataset, holder=self._claim.holder))
            if built := self._lost_graphs():
                self.emit(GraphsLost(dataset=self.dataset, path=built.path))
            self._ending = ending.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the training process, say how the chain ended, and give the dataset back."""
        with self._ending:
            self._process.stop()
            if isinstance(error, ChainLostError):
                return  # another has the say
            if error is None or isinstance(error, Exception):
                duration_s = time.monotonic() - self._began
                status = "failed" if self.remaining() else "completed"
                self.emit(ChainFinished(dataset=self.dataset, status=status, duration_s=duration_s))
            else:
                self._say_stopped(error)

    def _say_stopped(self, by: BaseException) -> None:
        reason = f"{type(by).__name__} {by}".strip()
        try:
            self.emit(ChainStopped(dataset=self.dataset, holder=self._claim.holder, reason=reason))
        except RetrainError as error:  # what ends the chain counts, and the plan can be resumed as it is
            LOG.warning("%s: broken off (%s), which the log does not know: %s", self.dataset, reason, error)

    def emit(self, fact: Fact) -> None:
        """Append a fact to the plan's stream, then log it for people and tell the listener.

        Raises:
            ChainLostError: Another process works on the dataset by now.
        """
        keep = self.settings.training.keep_checkpoints
        with self._files.sharing(self.plan_id, fact, keep) if self._files else nullcontext():
            self._claim.append(fact)
        self._say(fact)
        self._listener(fact)

    def training_pids(self) -> list[int]:
        """Process id of the training process while there is one."""
        pid = self._process.pid
        return [] if pid is None else [pid]

    def remaining(self) -> list[str]:
        """Phases still to do, in order."""
        return self._state().remaining(self.dataset)

    def is_over(self) -> bool:
        """Whether nothing is left to do, and the log says so."""
        return self.dataset not in self._state().unfinished_datasets

    def skip_descendants(self, failed: str) -> None:
        """Say of every phase after a failed one that it was not reached."""
        for phase in self.remaining():
            if PHASES.index(phase) > PHASES.index(failed):
                self.emit(PhaseSkipped(dataset=self.dataset, phase=phase, reason=f"{failed} failed"))

    def run_phase(self, phase: str) -> None:
        """Run one attempt of a phase; the log decides with which settings.

        Raises:
            TrainingProcessError: The attempt failed; `may_retry` says whether another can cure it.
        """
        attempt = self.next_attempt(phase)
        time.sleep(attempt.wait_s)
        ids = {"plan": self.plan_id, "dataset": self.dataset, "phase": phase, "attempt": attempt.number}
        with identified(**ids), self._admit(self, phase) as placement:
            try:
                self._run_attempt(phase, attempt, placement)
            finally:
                if placement and placement.request.gpu:  # its memory is free before others get it
                    self._process.stop()

    def stop_training(self) -> None:
        """Kill the training process; the attempt under way fails as ``killed`` and may be tried again."""
        self._process.stop()

    def estimates(self, phase: str) -> dict[str, PhaseEstimate]:
        """What a phase of this dataset took in past plans, by device name."""
        history = phase_history(self._log.read(plan_id) for plan_id in self._log.streams())
        wanted = (self.dataset, phase, self.settings.models.preset)
        return {
            key.device_name: estimate
            for key, estimate in history.items()
            if (key.dataset, key.phase, key.preset) == wanted
        }

    def _run_attempt(self, phase: str, attempt: Attempt, placement: Placement | None) -> None:
        machine = self._machine
        if placement:
            if placement.request.gpu:
                machine = describe_machine(
                    self._probed.with_gpu(placement.request.gpu), self.settings.training
                )
            self.emit(placement.admitted(self.dataset, phase, machine))
        self.emit(
            PhaseStarted(
                dataset=self.dataset,
                phase=phase,
                attempt=attempt.number,
                device=machine["device"],
                precision=machine["precision"],
                micro_batch_size=attempt.micro_batch_size,
                num_workers=attempt.num_workers,
                prefetch_factor=attempt.prefetch_factor,
                choices=list(attempt.choices),
            )
        )
        self._process.environment = attempt.environment(os.environ) | (
            placement.environment() if placement else {}
        )
        began = time.monotonic()
        try:
            if phase == GRAPHS:
                events, view = self._log.read(self.plan_id), self._view()
                build_graphs(self.dataset, self.settings, self.layout, events, view, self._process, self.emit)
            else:
                job = self.job(phase, attempt)
                if placement:
                    settings = placement.settings(job.settings)
                    job = replace(job, settings=settings, device_name=machine["device_name"])
                self._require_models(phase)
                self._fetch_checkpoints(phase)
                self._process.run(
                    f"core.training.phases:{job.target}",
                    job,
                    on_fact=self.emit,
                    timeout_s=self._hang_timeout_s,
                )
        except Exception as error:
            expected, kind = isinstance(error, RetrainError | OSError), classify(error)
            message = without_secrets(str(error))
            if isinstance(error, OSError) and kind == "bug":
                kind = "data_error"  # a disk that is full or away, or a file that may not be read
            self.emit(
                PhaseFailed(
                    dataset=self.dataset,
                    phase=phase,
                    attempt=attempt.number,
                    kind=kind,
                    message=self._with_memory_hint(kind, message),
                    micro_batch_size=attempt.micro_batch_size,
                    report=getattr(error, "report", None),
                )
            )
            if expected:
                raise TrainingProcessError(kind, message) from error
            raise
        self.emit(
            PhaseFinished(
                dataset=self.dataset,
                phase=phase,
                attempt=attempt.number,
                duration_s=time.monotonic() - began,
                peak_memory_mib=self._process.peak_memory_mib or 0.0,
            )
        )

    def _with_memory_hint(self, kind: str, message: str) -> str:
        limit_mib = self.settings.resources.memory_limit_mib
        if kind != "host_oom" or not limit_mib:
            return message
        hint = f"resources.memory_limit_mib allows {limit_mib} MiB: raise it, or set it to 0"
        return message.replace(headline(message), f"{headline(message)}; {hint}", 1)

    def job(self, phase: str, attempt: Attempt) -> PhaseJob:
        """What the training process is told about an attempt of a phase.

        Raises:
            TrainingError: The plan has no graphs of the dataset.
        """
        built = self._built()
        if built is None:
            raise TrainingError(f"{self.dataset} has no graphs in plan {self.plan_id}: make a new plan")
        events = self._log.read(self.plan_id)
        own = REGISTRY_VIEW.fold(events)
        parent = self._models().get(PARENT.get(phase, ""))
        limits = fold_pack_limits(self._log.read(stream) for stream in self._log.streams())
        return PhaseJob(
            plan_id=self.plan_id,
            dataset=self.dataset,
            phase=phase,
            store=self._store(built),
            settings=attempt.settings(self.settings),
            models_dir=self.layout.saved_models,
            checkpoints_dir=self.layout.checkpoints,
            data_digest=own.captures[self.dataset].data_digest,
            settings_digest=settings_digest(self.settings, self.dataset, phase),
            parent_sha256=parent.sha256 if parent else "",
            micro_batch_size=attempt.micro_batch_size,
            device_name=self._machine["device_name"],
            known_limits=limits.known(self.plan_id, self.dataset, phase),
            known_checkpoints=frozenset(
                event.payload["sha256"] for event in events if event.type == CheckpointWritten.TYPE
            ),
        )

    def next_attempt(self, phase: str) -> Attempt:
        """Settings of a phase's next attempt, chosen from the log."""
        return choose_attempt(phase, self.phase_state(phase), self.settings, self._num_train())

    def may_retry(self, phase: str) -> bool:
        """Whether a phase that failed is to be tried again, by the log."""
        return may_retry(phase, self.phase_state(phase), self.settings, self._num_train())

    def phase_state(self, phase: str) -> PhaseState:
        """How a phase fared so far."""
        return self._state().phases[self.dataset, phase]

    def _num_train(self) -> int | None:
        built = self._built()
        return built.splits["train"] if built else None

    def _require_models(self, phase: str) -> None:
        """Refuse to go on from models that are not the saved ones; only a new plan trains those again."""
        models = self._models()
        while phase := PARENT.get(phase, ""):
            if not (model := models.get(phase)):
                continue
            if damage := model_damage(self.layout, model, self._files):
                raise ArtifactError(
                    f"{self.dataset}: the {phase} model is needed, but {damage}: bring the file back, or "
                    "make a new plan (without --resume), which trains it again"
                )
            if self._files:
                self._files.share_model(model)  # whoever takes the chain over needs it too

    def _fetch_checkpoints(self, phase: str) -> None:
        """Have the checkpoints here that another machine may have left."""
        if self._files:
            events = self._log.read(self.plan_id)
            for refused in self._files.fetch_checkpoints(events, self.dataset, phase):
                self.emit(refused)

    def _models(self) -> dict[str, ModelSaved]:
        """The dataset's last saved model of each phase.

        What this plan trained itself comes first: others may have seen newer captures since.
        """
        own = REGISTRY_VIEW.fold(self._log.read(self.plan_id))
        models = {**self._view().models, **own.models}
        return {phase: model for (dataset, phase), model in models.items() if dataset == self.dataset}

    def _lost_graphs(self) -> GraphsBuilt | None:
        """The graphs that the phases still to do would read and cannot."""
        state, built = self._state(), self._built()
        graphs = state.phases.get((self.dataset, GRAPHS))
        if not built or not graphs or graphs.status != "completed" or not state.remaining(self.dataset):
            return None
        try:
            open_graph_store(self._store(built))
        except GraphStoreError:
            return built
        return None

    def _store(self, built: GraphsBuilt) -> Path:
        return self.layout.graphs / Path(built.path).name

    def _built(self) -> GraphsBuilt | None:
        """The graphs this plan built or found for the dataset."""
        return self._state().graphs.get(self.dataset)

    def _state(self) -> PlanState:
        return self._plan.state()

    def _view(self) -> RegistryView:
        return registry_view(self._log)
