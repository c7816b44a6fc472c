"""Watching a plan from any process: each look reads only what is new.

::

    watch = Watch(output_dir)
    while not (view := watch.look()).is_over:
        ...

Nothing is written and nothing is started. A look costs a few milliseconds; the first one reads the whole log.
"""

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from core.analytics.histograms import Range
from core.analytics.history import PhaseKey, phase_history
from core.errors import DamagedLogError, EventLogError
from core.events.log import EventLog
from core.events.open import open_log
from core.events.telemetry import ResourceSample
from core.planning.live.followers import AllPlans, Follower
from core.planning.live.phases import Pulse, pulse_of, view_phase
from core.planning.live.remaining import NOTHING, one_after_the_other, share_done, weights
from core.planning.live.resources import resources_view
from core.planning.live.state import LIVE_STATE, LiveState
from core.planning.live.view import (
    Decision,
    ErrorView,
    LiveView,
    PhaseView,
    PlanLine,
    ProcessView,
    ResourcesView,
)
from core.planning.plan_state import PLAN_STATE, PhaseName, PlanState
from core.planning.shared.claims import holders
from core.planning.shared.lock import is_held
from core.planning.shared.plan_claims import is_carried_out
from core.resources.probes import Probe
from core.resources.process_state import ProcessStatus, read_process_statuses
from settings.layout import Layout

_NUM_MOMENTS = 150
_LEAST_WATCHED = 0.02
"""Share of an epoch that has to be watched before its pace is believed."""


class Watch:
    """Watches one plan, or whichever one is worked on.

    Used by one thread: each has its own count of how busy the CPUs were.

    Args:
        output_dir: The output directory; it may be missing or read-only.
        plan_id: The plan; None for the one that something happened in last.
        ignored: Plans that are not looked at: those from before, to wait for the next one.
    """

    def __init__(self, output_dir: Path, plan_id: str | None = None, ignored: Collection[str] = ()) -> None:
        self._layout = Layout(output_dir)
        self._log = open_log(self._layout)
        self._plan_id, self._ignored = plan_id, frozenset(ignored)
        self._plans = AllPlans(self._log)
        self._watched: _Watched | None = None
        self._pids: list[int] = []
        self._probe: Probe | None = None
        self._moments: deque[list[ResourceSample]] = deque(maxlen=_NUM_MOMENTS)

    def look(self, now: datetime | None = None) -> LiveView:
        """How the plan and the machine are now.

        Args:
            now: The time, if it is not now.

        Raises:
            EventLogError: The event log's folder cannot be read; a plan that cannot be read is told in
                ``LiveView.problem``.
        """
        now = now or datetime.now(UTC)
        followed = {self._watched.plan_id: self._watched.plan_state} if self._watched else {}
        states, problems = self._plans.states(followed)
        statuses = plan_statuses(states, problems, self._layout.root)
        seen = LiveView(looked_at=now.isoformat(), plans=_plan_lines(states, statuses))
        plan_id = self._chosen(states, problems)
        processes = self._processes(plan_id)
        seen = replace(seen, resources=self._resources(now), processes=_process_views(processes, plan_id))
        if plan_id is None:
            return seen
        seen = replace(seen, plan_id=plan_id, status=statuses.get(plan_id, "none"))
        if plan_id in problems:
            return replace(seen, problem=str(problems[plan_id]))
        if self._watched is None or self._watched.plan_id != plan_id:
            self._watched = _Watched(self._log, plan_id)
        try:
            return self._watched.view(seen, processes, states, now)
        except EventLogError as error:  # it was damaged a moment ago
            return replace(seen, problem=str(error))

    def _chosen(self, states: Mapping[str, PlanState], problems: Mapping[str, EventLogError]) -> str | None:
        if self._plan_id is not None:
            return self._plan_id
        heard = {name: state.last_event_at for name, state in states.items() if name not in self._ignored}
        if heard:
            return max(heard, key=lambda name: (str(heard[name]), name))
        return max((name for name in problems if name not in self._ignored), default=None)

    def _processes(self, plan_id: str | None) -> list[ProcessStatus]:
        found = read_process_statuses(self._layout.process_logs, f"{plan_id}-") if plan_id else []
        self._pids = [process.pid for process in found if process.pid is not None]
        return found

    def _resources(self, now: datetime) -> ResourcesView:
        if self._probe is None:
            self._probe = Probe(self._layout.root, lambda: self._pids)
            # A first sample knows of no time that the CPUs were busy in.
            self._moments.append([replace(sample, cpu_percent=None) for sample in self._probe.sample()])
        else:
            self._moments.append(self._probe.sample())
        return resources_view(self._moments, now)


class _Watched:
    """The plan that is watched."""

    def __init__(self, log: EventLog, plan_id: str) -> None:
        self.plan_id = plan_id
        self._log = log
        self._follower = Follower(log, plan_id, LIVE_STATE)
        self._past: dict[PhaseName, Range] | None = None
        self._reached: dict[tuple[PhaseName, int], float] = {}
        self._first_seen: dict[tuple[PhaseName, int, str], tuple[datetime, float]] = {}

    def plan_state(self) -> PlanState:
        """How far the plan is; errors as in ``EventLog.read``."""
        return self._follower.state().plan

    def view(
        self,
        seen: LiveView,
        processes: list[ProcessStatus],
        states: Mapping[str, PlanState],
        now: datetime,
    ) -> LiveView:
        """Add the plan to what was seen."""
        state = self._follower.state()
        plan = state.plan
        if self._past is None and plan.created is not None:
            self._past = self._learn(plan, states)
        pulses = {process.name.removeprefix(f"{self.plan_id}-"): pulse_of(process) for process in processes}
        # What was interrupted goes on from where it was: time does not pass for it.
        then = now if seen.status == "running" else plan.last_event_at or now
        phases = tuple(self._phase(name, state, pulses, then) for name in plan.phases)
        is_over = seen.status in ("completed", "failed")
        etas = [phase.eta for phase in phases if phase.eta is not None]
        return replace(
            seen,
            started_at=plan.started_at.isoformat() if plan.started_at else None,
            elapsed_s=_worked_s(plan, then, seen.status),
            fraction=self._fraction(phases),
            eta=None if is_over else one_after_the_other(etas) if etas else NOTHING,
            phases=tuple(replace(phase, eta=None) for phase in phases) if is_over else phases,
            decisions=tuple(
                Decision(at=d.at.isoformat(), tone=d.tone, where=d.where, text=d.text)
                for d in state.decisions
            ),
            last_error=_error_view(state),
        )

    def _learn(self, plan: PlanState, states: Mapping[str, PlanState]) -> dict[PhaseName, Range]:
        """What each phase took in other plans on such a device."""
        others = (self._log.read(name) for name in states if name != self.plan_id)
        history = phase_history(others)
        machine = plan.created.machine if plan.created else {}
        settings = plan.created.settings if plan.created else {}
        device, preset = machine.get("device_name", ""), settings.get("models", {}).get("preset", "")
        keys = {name: PhaseKey(*name, device, preset) for name in plan.phases}
        return {name: history[key].duration for name, key in keys.items() if key in history}

    def _phase(
        self, name: PhaseName, state: LiveState, pulses: Mapping[str, Pulse], now: datetime
    ) -> PhaseView:
        pulse = pulses.get(name[0], Pulse())
        attempt = (name, state.plan.phases[name].attempts)
        view = view_phase(
            name,
            state,
            pulse,
            (self._past or {}).get(name),
            self._paces_s(attempt, pulse, now),
            now,
            self._reached.get(attempt, 0.0),
        )
        self._reached[attempt] = view.fraction
        return view

    def _paces_s(self, attempt: tuple[PhaseName, int], pulse: Pulse, now: datetime) -> dict[str, float]:
        """Time per epoch of the model that is trained, as far as it was watched."""
        if pulse.model is None or pulse.epochs_done is None:
            return {}
        began, done = self._first_seen.setdefault((*attempt, pulse.model), (now, pulse.epochs_done))
        watched = pulse.epochs_done - done
        if watched < _LEAST_WATCHED:
            return {}
        return {pulse.model: (now - began).total_seconds() / watched}

    def _fraction(self, phases: tuple[PhaseView, ...]) -> float:
        done = {(phase.dataset, phase.phase): phase.fraction for phase in phases if phase.status != "skipped"}
        past_s = {name: past.middle for name, past in (self._past or {}).items()}
        return share_done(done, weights(list(done), past_s))


def plan_statuses(
    states: Mapping[str, PlanState], problems: Mapping[str, EventLogError], output_dir: Path | None
) -> dict[str, str]:
    """What each plan's state means now: one that nobody carries out is interrupted.

    Args:
        states: State by plan.
        problems: Plans that cannot be read.
        output_dir: Where they are; None where the states are of the past.
    """
    statuses = {name: state.status for name, state in states.items()}
    newest = max(states, key=lambda name: str(states[name].last_event_at), default=None)
    for name, status in statuses.items():
        if not output_dir or status != "running" or (name == newest and is_held(output_dir)):
            continue
        layout = Layout(output_dir)  # of this machine; who is asked for may be on any other
        if not is_carried_out(layout, name) and not holders(layout, name, states[name]):
            statuses[name] = "interrupted"
    for name, error in problems.items():
        statuses[name] = "damaged" if isinstance(error, DamagedLogError) else "unreadable"
    return statuses


def _plan_lines(states: Mapping[str, PlanState], statuses: Mapping[str, str]) -> tuple[PlanLine, ...]:
    lines = []
    for name, status in sorted(statuses.items()):
        state = states.get(name, PLAN_STATE.initial)
        started_at = state.started_at.isoformat() if state.started_at else None
        lines.append(
            PlanLine(plan_id=name, status=status, started_at=started_at, datasets=tuple(state.datasets))
        )
    return tuple(lines)


def _process_views(processes: list[ProcessStatus], plan_id: str | None) -> tuple[ProcessView, ...]:
    return tuple(
        ProcessView(
            dataset=process.name.removeprefix(f"{plan_id}-"),
            state=process.state,
            pid=process.pid,
            doing=process.doing,
            since_s=process.since_s,
            rss_mib=process.rss_mib,
            num_restarts=process.num_restarts,
            failure=process.failure.kind if process.failure else "",
        )
        for process in processes
    )


def _error_view(state: LiveState) -> ErrorView | None:
    if state.failure is None:
        return None
    failed, at = state.failure
    phase = state.plan.phases.get((failed.dataset, failed.phase))
    return ErrorView(
        at=at.isoformat(),
        where=f"{failed.dataset} {failed.phase}",
        kind=failed.kind,
        attempt=failed.attempt,
        message=failed.message,
        report=failed.report,
        now=phase.status if phase else "",
    )


def _worked_s(plan: PlanState, now: datetime, status: str) -> float:
    if status != "running" or plan.last_event_at is None:
        return plan.worked_s
    return plan.worked_s + max(0.0, (now - plan.last_event_at).total_seconds())
