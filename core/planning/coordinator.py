"""Plans from beginning to end, without Prefect: what the flows use and what scripts call directly."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from core.analytics.history import PhaseEstimate, PhaseKey, phase_history
from core.errors import TrainingProcessError
from core.events.catalogue import Fact, PlanFinished, PlanResumed, to_event
from core.events.log import EventLog
from core.planning.chain import Chain, Listener
from core.planning.lock import hold
from core.planning.plan import Plan, choose_datasets, create_plan
from core.planning.plan_state import PLAN_STATE, PlanState
from core.planning.progress import logged_to
from core.planning.registry_view import registry_view
from core.resources.probes import probe_machine
from core.resources.process import retryable
from core.resources.profiles import fit_to_machine
from settings.app import Settings
from settings.errors import SettingsError
from settings.layout import Layout


class RetrainingCoordinator:
    """Makes plans, carries them out, and says how they stand.

    Args:
        settings: Settings as loaded; fitted to this machine here.
    """

    def __init__(self, settings: Settings) -> None:
        self.machine = probe_machine()
        self.settings = fit_to_machine(settings, self.machine)
        self.layout = Layout(settings.output_dir)
        self.log = EventLog(self.layout.events)

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
            self._machine_facts(),
            datasets=datasets,
            priority=priority_datasets,
            force=force_retrain,
        )

    def check(self, datasets: Sequence[str], priority_datasets: Sequence[str]) -> None:
        """Say at once what would keep a plan from being made, without reading captures.

        Raises:
            SettingsError: An unknown dataset, none to be found, or no GPU where one is asked for.
        """
        self._machine_facts()
        choose_datasets(self.settings, datasets, priority_datasets)

    def estimates(self, plan: Plan) -> dict[tuple[str, str], PhaseEstimate]:
        """What each phase of a plan took before on this kind of device, by (dataset, phase)."""
        history = phase_history(self.log.read(plan_id) for plan_id in self.log.streams())
        device, preset = plan.machine["device_name"], plan.settings.models.preset
        keys = [PhaseKey(step.dataset, step.phase, device, preset) for step in plan.steps]
        return {(key.dataset, key.phase): history[key] for key in keys if key in history}

    def _machine_facts(self) -> dict[str, Any]:
        device = (
            self.machine.device if self.settings.training.device == "auto" else self.settings.training.device
        )
        if device == "cuda" and self.machine.device != "cuda":
            raise SettingsError(
                "training.device is cuda, but this machine has no GPU that torch "
                f"{self.machine.torch_version} can use: set it to auto, or install a CUDA build of torch"
            )
        name = self.machine.gpus[0].name if device == "cuda" else self.machine.cpu_model
        precision = self.machine.precision if self.settings.training.mixed_precision else "fp32"
        return {
            **asdict(self.machine),
            "device": device,
            "device_name": name,
            "precision": precision if device == "cuda" else "fp32",
        }

    def begin(self, plan: Plan) -> None:
        """Put the plan into the log."""
        self._emit(plan.plan_id, plan.created())

    def resume(self, plan_id: str) -> None:
        """Take up an interrupted plan.

        Raises:
            SettingsError: No such plan, or it has nothing left to do.
        """
        self._emit(plan_id, PlanResumed(remaining=self.resumable(plan_id), data_dir=None))

    def resumable(self, plan_id: str) -> list[str]:
        """What an interrupted plan has left to do, as ``dataset/phase``.

        Raises:
            SettingsError: No such plan, or it has nothing left to do.
        """
        state = self.state(plan_id)
        if state.created is None:
            known = ", ".join(self.log.streams()) or "none"
            raise SettingsError(f"no plan {plan_id} in {self.log.root}; known plans: {known}")
        remaining = [f"{d}/{p}" for d in state.unfinished_datasets for p in state.remaining(d)]
        if not remaining:
            raise SettingsError(f"plan {plan_id} has nothing left to do")
        return remaining

    def finish(self, plan_id: str) -> PlanState:
        """Say how the plan ended, and compact its stream."""
        state = self.state(plan_id)
        status = "failed" if state.unfinished_datasets else "completed"
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
        """
        with hold(self.layout.root), logged_to(self.layout.coordinator_logs / f"{plan.plan_id}.log"):
            self.begin(plan)
            for dataset in self.state(plan.plan_id).unfinished_datasets:
                with Chain(self.settings.output_dir, plan.plan_id, dataset, listener) as chain:
                    _run_chain(chain)
            return self.finish(plan.plan_id)

    def state(self, plan_id: str) -> PlanState:
        """How a plan stands."""
        return PLAN_STATE.fold(self.log.read(plan_id))

    def get_training_status(self) -> dict[str, PlanState]:
        """How every plan stands, oldest first."""
        return {plan_id: self.state(plan_id) for plan_id in self.log.streams()}

    def _emit(self, plan_id: str, fact: Fact) -> None:
        self.log.append([to_event(plan_id, fact)])


def _run_chain(chain: Chain) -> None:
    for phase in chain.remaining():
        for retries_left in range(chain.settings.training.max_retries, -1, -1):
            try:
                chain.run_phase(phase)
                break
            except TrainingProcessError as error:
                if not retryable(error.kind) or not retries_left:
                    chain.skip_descendants(phase)
                    return
