"""Plans from beginning to end, without Prefect: what the flows use and what scripts call directly."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from core.analytics.history import PhaseEstimate, PhaseKey, phase_history
from core.errors import ChainHeldError, ChainLostError, TrainingProcessError
from core.events.catalogue import Fact, PlanFinished, PlanResumed, to_event
from core.events.open import bind_storage, open_log
from core.interrupts import interrupted_by
from core.planning.attempt import MAX_RETRIES
from core.planning.audit import unnamed_heads
from core.planning.captures import captures_digested, captures_of_graphs, require_same_captures
from core.planning.chain import Chain, Listener
from core.planning.live.progress import LOG, log_progress, plan_logged
from core.planning.machine import describe_machine
from core.planning.plan import Plan, choose_datasets, create_plan
from core.planning.plan_state import PLAN_STATE, PlanState
from core.planning.registry_view import registry_view
from core.planning.shared.lock import hold
from core.planning.shared.plan_claims import plan_claimed
from core.planning.upkeep.disk import require_room
from core.resources.cautions import warnings_for
from core.resources.machine import probe_machine
from core.resources.profiles import fit_to_machine
from core.resources.sampler import beside, sample_chain_or_warn
from settings.app import Settings
from settings.errors import RetrainError, SettingsError

RunChains = Callable[[Sequence[str]], object]
"""Carries out the chains of datasets."""


class RetrainingCoordinator:
    """Makes plans, carries them out, and says how they stand.

    Args:
        settings: Settings as loaded; fitted to this machine here, with absolute folders of captures.
        listener: Told of every fact about a plan itself, with the plan's id, after it is in the log.

    Raises:
        SettingsError: The output directory is bound to other storage.
        StorageError: Shared storage cannot be reached.
    """

    def __init__(
        self, settings: Settings, listener: Callable[[str, Fact], None] = lambda plan_id, fact: None
    ) -> None:
        self.machine = probe_machine()
        fitted = fit_to_machine(settings, self.machine)
        self.settings = fitted.model_copy(update={"data": fitted.data.absolute()})
        self.layout = bind_storage(settings)
        self.log = open_log(self.layout)
        self._listener = listener
        self._require_claim: Callable[[], None] = lambda: None

    def create_retraining_plan(
        self,
        force_retrain: bool = False,
        datasets: Sequence[str] = (),
        priority_datasets: Sequence[str] = (),
    ) -> Plan:
        """Decide what to retrain; nothing is written.

        Args:
            force_retrain: Retrain everything, whatever the log says.
            datasets: Only these; empty for all that are found.
            priority_datasets: These first.

        Raises:
            SettingsError: An unknown dataset, or none to be found.
        """
        return create_plan(
            self.settings,
            registry_view(self.log),
            describe_machine(self.machine, self.settings.training),
            datasets=datasets,
            priority=priority_datasets,
            force=force_retrain,
        )

    def check(self, datasets: Sequence[str], priority_datasets: Sequence[str]) -> None:
        """Say at once what would keep a plan from being made, without reading captures.

        Raises:
            SettingsError: An unknown dataset, none to be found, or no GPU where one is asked for.
            RetrainError: The disk is nearly full.
        """
        require_room(self.settings)
        describe_machine(self.machine, self.settings.training)
        choose_datasets(self.settings, datasets, priority_datasets)

    def estimates(self, plan: Plan) -> dict[tuple[str, str], PhaseEstimate]:
        """What each phase of a plan took before on this kind of device, by (dataset, phase)."""
        history = phase_history(self.log.read(plan_id) for plan_id in self.log.streams())
        device, preset = plan.machine["device_name"], plan.settings.models.preset
        keys = [PhaseKey(step.dataset, step.phase, device, preset) for step in plan.steps]
        return {(key.dataset, key.phase): history[key] for key in keys if key in history}

    def warn(self) -> None:
        """Log what is unwise about the settings on this machine."""
        for caution in warnings_for(self.settings, self.machine):
            LOG.warning("%s", caution)

    @contextmanager
    def carrying_out(self, plan_id: str) -> Iterator[None]:
        """Be the one process that carries out a plan, on all machines that share its storage.

        Raises:
            LeaseHeldError: Another process carries it out.
            EventLogError: The storage cannot be read or written.
        """
        with plan_claimed(self.layout, plan_id, self.settings.resources.lease_s) as require:
            self._require_claim = require
            yield

    def begin(self, plan: Plan) -> None:
        """Put the plan into the log, with where other plans stand: see ``core.planning.audit``.

        Raises:
            RetrainError: The disk is nearly full.
        """
        require_room(self.settings)
        self.warn()
        self._emit(plan.plan_id, plan.created(unnamed_heads(self.log)))

    def resume(self, plan_id: str, data_dir: Path | None = None) -> None:
        """Take up an interrupted plan.

        Args:
            plan_id: The plan.
            data_dir: Where its captures are now; None where they were.

        Raises:
            SettingsError: No such plan, it has nothing left to do, or no GPU where the plan asks for one.
            CaptureError: The captures in ``data_dir`` are not those that the plan's graphs were built from.
        """
        moved = str(data_dir.absolute()) if data_dir else None
        resumed = PlanResumed(remaining=self.resumable(plan_id), data_dir=moved)
        if data_dir:
            self._check_captures(plan_id, resumed)
        self._emit(plan_id, resumed)

    def resumable(self, plan_id: str) -> list[str]:
        """What an interrupted plan has left to do, as ``dataset/phase``; only its end, where it is empty.

        Raises:
            SettingsError: No such plan, it has nothing left to do, or no GPU where the plan asks for one.
            RetrainError: The disk is nearly full.
        """
        state = self.state(plan_id)
        if state.created is None:
            known = ", ".join(self.log.streams()) or "none"
            raise SettingsError(f"no plan {plan_id} in {self.log.location}; known plans: {known}")
        if state.status == "completed":
            raise SettingsError(f"plan {plan_id} has nothing left to do; python -m flows.analyze shows it")
        require_room(self.settings)
        describe_machine(self.machine, state.settings_in(self.layout.root).training)
        return [f"{d}/{p}" for d in state.datasets for p in state.remaining(d)]

    def _check_captures(self, plan_id: str, resumed: PlanResumed) -> None:
        events = self.log.read(plan_id)
        state = PLAN_STATE.fold([*events, to_event(plan_id, resumed)])
        settings, view = state.settings_in(self.layout.root), registry_view(self.log)
        for dataset, before in captures_of_graphs(events).items():
            if state.remaining(dataset):
                require_same_captures(before, captures_digested(dataset, settings, view))

    def finish(self, plan_id: str) -> PlanState:
        """Say how the plan ended, and compact its stream."""
        state = self.state(plan_id)
        status = "failed" if any(map(state.remaining, state.datasets)) else "completed"
        self._emit(plan_id, PlanFinished(status=status, duration_s=state.worked_s))
        self.log.compact(plan_id)
        return self.state(plan_id)

    def execute_retraining_plan(self, plan: Plan, listener: Listener = lambda fact: None) -> PlanState:
        """Carry out a plan in this process, dataset by dataset; a failed one does not stop the others.

        Args:
            plan: From ``create_retraining_plan``.
            listener: Told every fact after it is in the log.

        Returns:
            The plan's final state.

        Raises:
            RetrainError: Another process is carrying out a plan in this output directory.
            LeaseLostError: Another process took it over.
            ChainHeldError: Another process works on a dataset; the others are done.
            ChainLostError: Another process took a dataset over; the others are done.
        """
        plan_id = plan.plan_id
        with hold(self.layout.root), self.carrying_out(plan_id), plan_logged(self.layout, plan_id):
            self.begin(plan)
            return self._carry_out(plan_id, listener)

    def resume_retraining_plan(
        self, plan_id: str, data_dir: Path | None = None, listener: Listener = lambda fact: None
    ) -> PlanState:
        """Take up an interrupted plan in this process, as it was planned.

        Args:
            plan_id: The plan.
            data_dir: Where its captures are now; None where they were.
            listener: Told every fact after it is in the log.

        Returns:
            The plan's final state.

        Raises:
            SettingsError: No such plan, it has nothing left to do, or no GPU where the plan asks for one.
            CaptureError: The captures in ``data_dir`` are not those that the plan's graphs were built from.
            RetrainError: Another process is carrying out a plan in this output directory.
            ChainHeldError: Another process works on a dataset; the others are done.
            ChainLostError: Another process took a dataset over; the others are done.
        """
        with hold(self.layout.root), self.carrying_out(plan_id), plan_logged(self.layout, plan_id):
            self.resume(plan_id, data_dir)
            return self._carry_out(plan_id, listener)

    def _carry_out(self, plan_id: str, listener: Listener) -> PlanState:
        with interrupted_by(signal.SIGTERM):
            return self.carry_out(plan_id, one_by_one(partial(self.run_chain, plan_id, listener=listener)))

    def run_chain(self, plan_id: str, dataset: str, listener: Listener = lambda fact: None) -> None:
        """Run what a dataset's chain has left to do in this process; a phase that fails for good ends it.

        Args:
            plan_id: A plan in the log.
            dataset: One of its datasets.
            listener: Told every fact after it is in the log.

        Raises:
            ChainHeldError: Another process works on the dataset.
            ChainLostError: Another process took it over.
        """
        if dataset not in self.state(plan_id).unfinished_datasets:
            return
        with Chain(self.layout.root, plan_id, dataset, listener) as chain, _sampling(chain):
            for phase in chain.remaining():
                try:
                    run_phase(chain, phase)
                except TrainingProcessError:
                    chain.skip_descendants(phase)
                    return

    def carry_out(self, plan_id: str, run_chains: RunChains) -> PlanState:
        """Have every chain carried out that is not finished, and end the plan.

        Args:
            plan_id: The plan.
            run_chains: Carries out the chains of datasets, as ``one_by_one`` does; what it raises leaves the
                plan as it is, to be taken up again.

        Returns:
            The plan's final state.
        """
        run_chains(self.state(plan_id).unfinished_datasets)
        return self.finish(plan_id)

    def state(self, plan_id: str) -> PlanState:
        """How a plan stands."""
        return PLAN_STATE.fold(self.log.read(plan_id))

    def get_training_status(self) -> dict[str, PlanState]:
        """How every plan stands, oldest first."""
        return {plan_id: self.state(plan_id) for plan_id in self.log.streams()}

    def _emit(self, plan_id: str, fact: Fact) -> None:
        self._require_claim()
        self.log.append([to_event(plan_id, fact)])
        log_progress(fact)
        self._listener(plan_id, fact)


def one_by_one(run_chain: Callable[[str], object]) -> RunChains:
    """Carry out chains one after the other; one that another process holds does not stop those after it.

    Args:
        run_chain: Carries out the chain of a dataset.

    Returns:
        Does so for several datasets; raises ``ChainHeldError`` or ``ChainLostError`` where others are at one:
        the plan is not over, or to be taken up again when they are done.
    """

    def run_chains(datasets: Sequence[str]) -> None:
        held: list[RetrainError] = []
        for dataset in datasets:
            try:
                run_chain(dataset)
            except (ChainHeldError, ChainLostError) as error:
                LOG.error("%s", error)
                held.append(error)
        if held:
            raise held[0]

    return run_chains


@contextmanager
def _sampling(chain: Chain) -> Iterator[None]:
    """Sample resources beside a chain; training goes on without samples if they cannot be kept."""
    ended = threading.Event()
    sample = partial(
        sample_chain_or_warn,
        chain.layout,
        chain.plan_id,
        chain.dataset,
        chain.settings.resources,
        chain.training_pids,
        ended,
    )
    with beside(sample, ended, f"sample-resources-{chain.dataset}"):
        yield


def run_phase(chain: Chain, phase: str) -> None:
    """Run a phase, unless it is done, as often as the log says that another attempt may help.

    Raises:
        TrainingProcessError: It failed for good.
    """
    for retries_left in range(MAX_RETRIES, -1, -1):
        try:
            if phase in chain.remaining():
                chain.run_phase(phase)
        except TrainingProcessError:
            if not retries_left or not chain.may_retry(phase):
                raise
        else:
            return
