"""All plans of an output directory, as they were when one of them was last worked on."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from core.analytics.plan_summary import AFTERWARDS, PlanSummary, summarize_plan
from core.analytics.versions import DECIDED_BY, Versions, fold_versions
from core.errors import EventLogError
from core.events.event import Event
from core.events.past import Past

MAX_COLUMNS = 40
MAX_PERIODS = 110


@dataclass(frozen=True)
class Fleet:
    """All plans.

    Attributes:
        plans: In order of their beginning.
        unreadable: Plans that are left out because their events cannot be read, by name.
    """

    plans: Sequence[PlanSummary] = ()
    unreadable: Sequence[str] = ()


class FleetHistory:
    """Any plan's view of all plans; each plan is folded once for every length it is seen with.

    Args:
        streams: The events of all plans; they may grow.
        unreadable: Plans whose events cannot be read; they may become more.
    """

    def __init__(self, streams: Mapping[str, Sequence[Event]], unreadable: Mapping[str, object] = {}) -> None:
        self._streams, self._unreadable, self._past = streams, unreadable, Past(streams)
        self._summaries: dict[tuple[str, int], PlanSummary | None] = {}
        self._decisive: dict[tuple[str, int], list[Event]] = {}

    def seen_from(self, plan_id: str) -> Fleet:
        """All plans as they were when a plan was last worked on.

        So the same plan sees the same, however many plans come after it, and however late it is analyzed. An
        unfinished plan counts as interrupted once another one has begun: one at a time works in an output
        directory.
        """
        broken = set(self._unreadable)
        found = []
        for name, length in self._lengths(plan_id).items():
            try:
                summary = self._summary(name, length)
            except EventLogError:
                broken.add(name)
                continue
            if summary:
                found.append(summary)
        plans = sorted(found, key=lambda plan: (plan.began_at, plan.plan_id))
        newest = max((plan.began_at for plan in plans), default=datetime.min.replace(tzinfo=UTC))
        plans = [
            replace(plan, status="interrupted")
            if plan.status == "unfinished" and plan.plan_id != plan_id and plan.ended_at < newest
            else plan
            for plan in plans
        ]
        return Fleet(plans, sorted(broken))

    def versions_seen_from(self, plan_id: str, fleet: Fleet) -> Versions:
        """Versions of models at the same moment.

        Args:
            plan_id: The plan.
            fleet: What it sees of all plans: those that cannot be read are left out.
        """
        lengths = self._lengths(plan_id).items()
        return fold_versions(
            self._deciding(name, num) for name, num in lengths if name not in fleet.unreadable
        )

    def _lengths(self, plan_id: str) -> Mapping[str, int]:
        """How many events of each plan there were when one was last worked on, but all of its own."""
        events = self._streams.get(plan_id)
        if not events:
            return {}
        worked = [place for place, event in enumerate(events) if event.type not in AFTERWARDS]
        return self._past.lengths(plan_id, worked[-1] if worked else -1) | {plan_id: len(events)}

    def _deciding(self, plan_id: str, length: int) -> Sequence[Event]:
        key = plan_id, length
        if key not in self._decisive:
            events = self._streams[plan_id][:length]
            self._decisive[key] = [event for event in events if event.type in DECIDED_BY]
        return self._decisive[key]

    def _summary(self, plan_id: str, length: int) -> PlanSummary | None:
        key = plan_id, length
        if key not in self._summaries:
            self._summaries[key] = summarize_plan(self._streams[plan_id][:length])
        return self._summaries[key]


@dataclass(frozen=True)
class Column:
    """Some plans, side by side with others: a single one, or those of a day, week or month.

    Attributes:
        name: What stands below it.
        plans: In order; there may be none.
    """

    name: str
    plans: Sequence[PlanSummary]

    @property
    def hours(self) -> float:
        """Time worked."""
        return sum(plan.worked_s for plan in self.plans) / 3600

    @property
    def cost(self) -> float:
        """What that cost, as far as a price is set."""
        return sum(plan.cost or 0.0 for plan in self.plans)

    @property
    def failures(self) -> Mapping[str, int]:
        """Failed attempts by class."""
        return sum((Counter(plan.failures) for plan in self.plans), Counter[str]())


@dataclass(frozen=True)
class Columns:
    """All plans in order, in few enough columns to be drawn.

    Attributes:
        each: ``plan``, ``day``, ``week`` or ``month``.
        columns: In order, without gaps.
    """

    each: str
    columns: Sequence[Column]


def columns_of(plans: Sequence[PlanSummary]) -> Columns:
    """Put plans in columns: one each while they are few, then by the shortest period that is few enough."""
    if len(plans) <= MAX_COLUMNS:
        one_day = len({plan.began_at.date() for plan in plans}) == 1
        pattern = "%H:%M" if one_day else "%d %b %H:%M"
        return Columns("plan", _told_apart([(f"{plan.began_at:{pattern}}", plan) for plan in plans]))
    first, last = plans[0].began_at.date(), plans[-1].began_at.date()
    each, starts = _period(first, last)
    start_of = _PERIODS[each]
    inside: dict[date, list[PlanSummary]] = {start: [] for start in starts}
    for plan in plans:
        inside[start_of(plan.began_at.date())].append(plan)
    pattern = "%b %Y" if each == "month" else "%d %b %Y" if first.year != last.year else "%d %b"
    return Columns(each, [Column(f"{start:{pattern}}", found) for start, found in inside.items()])


@dataclass(frozen=True)
class Device:
    """Plans on one device, in a few numbers; None is what was not measured.

    Attributes:
        name: The device, told apart from others of its name.
        plans: In order.
        gpu_percent: Mean GPU utilisation in training, by time worked.
        peak_memory_mib: Highest peak of a training process.
        memory_total_mib: Memory there is.
        graphs_per_s: Median throughput of the model that is compared.
    """

    name: str
    plans: Sequence[PlanSummary]
    gpu_percent: float | None
    peak_memory_mib: float | None
    memory_total_mib: float | None
    graphs_per_s: float | None

    @property
    def cost_per_plan(self) -> float | None:
        """Mean cost of a plan; None where no price is set."""
        costs = [plan.cost for plan in self.plans if plan.cost is not None]
        return statistics.fmean(costs) if costs else None


@dataclass(frozen=True)
class Devices:
    """Devices side by side.

    Attributes:
        preset: Preset of the model whose throughput is compared; empty where none can be.
        model: That model.
        devices: The one with most time worked first.
    """

    preset: str
    model: str
    devices: Sequence[Device]


def devices_of(plans: Sequence[PlanSummary]) -> Devices:
    """Compare devices; throughput is that of the one model of one preset that most of them trained."""
    machines: dict[tuple[object, ...], list[PlanSummary]] = defaultdict(list)
    for plan in plans:
        machines[_machine(plan)].append(plan)
    trained = Counter(
        (plan_preset, model)
        for found in machines.values()
        for plan_preset, model in {(plan.preset, model) for plan in found for model in plan.graphs_per_s}
    )
    num = Counter((plan.preset, model) for plan in plans for model in plan.graphs_per_s)
    preset, model = max(
        trained, key=lambda key: (trained[key], num[key], key[1] == "student_gat", key), default=("", "")
    )
    names = Counter(key[0] for key in machines)
    found = [
        _device(str(key[0]) if names[key[0]] == 1 else _in_full(key), group, preset, model)
        for key, group in machines.items()
    ]
    return Devices(preset, model, sorted(found, key=lambda d: (-sum(p.worked_s for p in d.plans), d.name)))


def models_current(plans: Sequence[PlanSummary]) -> tuple[int, int]:
    """Datasets whose newest plan left all models up to date, and all datasets."""
    newest = {dataset: status for plan in plans for dataset, status in plan.datasets.items()}
    return sum(status in ("completed", "up_to_date") for status in newest.values()), len(newest)


def _device(name: str, plans: Sequence[PlanSummary], preset: str, model: str) -> Device:
    busy = [(plan.gpu_percent, plan.worked_s) for plan in plans if plan.gpu_percent is not None]
    weight_s = sum(seconds for _, seconds in busy)
    peaks = [plan.peak_memory_mib for plan in plans if plan.peak_memory_mib is not None]
    speeds = [
        plan.graphs_per_s[model] for plan in plans if plan.preset == preset and model in plan.graphs_per_s
    ]
    return Device(
        name=name,
        plans=plans,
        gpu_percent=sum(percent * seconds for percent, seconds in busy) / weight_s if weight_s else None,
        peak_memory_mib=max(peaks, default=None),
        memory_total_mib=plans[-1].memory_total_mib,
        graphs_per_s=statistics.median(speeds) if speeds else None,
    )


def _machine(plan: PlanSummary) -> tuple[object, ...]:
    """What tells machines apart as far as plans name them: a device's name first."""
    machine = plan.machine
    ram_gib = round(float(machine.get("ram_total_mib") or 0.0) / 1024)
    return plan.device_name, len(machine.get("gpus") or ()), machine.get("num_cpus") or 0, ram_gib


def _in_full(machine: tuple[object, ...]) -> str:
    name, num_gpus, num_cpus, ram_gib = machine
    gpus = f"{num_gpus} GPU{'s' * (num_gpus != 1)}, " if num_gpus else ""
    return f"{name} ({gpus}{num_cpus} CPUs, {ram_gib} GiB RAM)"


def _told_apart(named: Sequence[tuple[str, PlanSummary]]) -> list[Column]:
    """One column per plan; those of one name are numbered."""
    seen: Counter[str] = Counter()
    columns = []
    for name, plan in named:
        seen[name] += 1
        columns.append(Column(name if seen[name] == 1 else f"{name} ({seen[name]})", [plan]))
    return columns


def _period(first: date, last: date) -> tuple[str, list[date]]:
    """The shortest period that is few enough, or a month; and the beginnings of all of them."""
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    starts: dict[str, list[date]] = {}
    for each, start_of in _PERIODS.items():
        starts[each] = list(dict.fromkeys(map(start_of, days)))
        if len(starts[each]) <= MAX_PERIODS:
            return each, starts[each]
    return "month", starts["month"]


_PERIODS: Mapping[str, Callable[[date], date]] = {
    "day": lambda day: day,
    "week": lambda day: day - timedelta(days=day.weekday()),
    "month": lambda day: day.replace(day=1),
}
