"""The page of the fleet: all plans of an output directory, what they came to, and on which devices."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from core.analytics import html
from core.analytics.board import Dashboard
from core.analytics.charts.base import milliseconds
from core.analytics.charts.fleet import (
    amount_bars,
    dashboard_link,
    failure_bars,
    kind_keys,
    metric_trend,
    plan_dots,
    status_bars,
    status_keys,
)
from core.analytics.fleet import Columns, Device, Fleet, columns_of, devices_of, models_current
from core.analytics.metrics import format_duration, format_memory, format_number
from core.analytics.pages.parts import TONES, Place, legend
from core.analytics.plan_summary import PlanSummary

MAX_DOTS = 200
NUM_LISTED = 50
NUM_OPEN = 12
_MAX_DATASETS = 12
_CONTAINER = "container"


def render(dashboard: Dashboard, place: Place) -> str:
    """The page's sections."""
    fleet, this = dashboard.fleet, dashboard.results.plan_id
    if not fleet.plans:
        return _left_out(fleet)
    columns = columns_of(fleet.plans)
    return "\n".join(
        filter(
            None,
            [
                header(fleet),
                html.section("Plans", *_plans(fleet, columns, this, place)),
                html.section("Failed attempts", *_failures(fleet, columns, place)),
                html.section("Detection over time", *_trends(fleet, columns, place), lead=_TREND),
                devices(fleet.plans),
                html.section("Newest plans", *listed(fleet.plans, this)),
            ],
        )
    )


_TREND = "MCC of the best student or fusion model, mean over labelled test folders."


def header(fleet: Fleet) -> str:
    """Key figures of all plans."""
    plans = fleet.plans
    status = Counter(plan.status for plan in plans)
    ended = status["completed"] + status["failed"] + status["interrupted"]
    rate = f"{status['completed'] / ended:.0%}" if ended else "–"
    others = ", ".join(
        f"{status[name]} {name}" for name in ("failed", "interrupted", "unfinished") if status[name]
    )
    recovered, lost = (
        sum(sum(found.values()) for found in (getattr(plan, name) for plan in plans))
        for name in ("recovered", "lost")
    )
    shortages = sum(plan.num_shortages for plan in plans)
    within = f"; {shortages} memory shortages cured within a step" if shortages else ""
    current, datasets = models_current(plans)
    judged, helped = (sum(getattr(plan, name) for plan in plans) for name in ("num_judged", "num_helped"))
    costs = [plan.cost for plan in plans if plan.cost is not None]
    worked_s = sum(plan.worked_s for plan in plans)
    tiles = [
        html.tile("Plans", str(len(plans)), f"since {plans[0].began_at:%Y-%m-%d}"),
        html.tile("Completed", rate, others, _tone(status["completed"], ended)),
        html.tile(
            "Time worked", format_duration(worked_s), f"{format_duration(worked_s / len(plans))} a plan"
        ),
        html.tile("Cost", format_cost(sum(costs)), f"{format_cost(sum(costs) / len(costs))} a plan")
        if costs
        else "",
        html.tile(
            "Failed attempts",
            f"{recovered + lost}",
            f"{recovered} got over, {lost} lost{within}",
            "bad" if lost else "",
        ),
        html.tile("Datasets current", f"{current} of {datasets}", "by the newest plan of each"),
        html.tile("Advice that helped", f"{helped} of {judged}", "that was followed and judged")
        if judged
        else "",
    ]
    return (
        f'<header><h1>All plans</h1><p class="muted">As they were when this plan was last worked on.</p>'
        f'{_left_out(fleet)}<dl class="tiles">{"".join(tiles)}</dl></header>'
    )


def devices(plans: Sequence[PlanSummary]) -> str:
    """Devices side by side; what none of them measured has no column."""
    compared = devices_of(plans)
    fastest = max((device.graphs_per_s or 0.0 for device in compared.devices), default=0.0)
    cells = [_device(device, fastest) for device in compared.devices]
    columns = [name for name in cells[0] if any(found[name] for found in cells)]
    rows = [
        html.row(device.name, (found[name] or html.cell("–", "number") for name in columns))
        for device, found in zip(compared.devices, cells, strict=True)
    ]
    lead = (
        f"graphs/s: median of {compared.model} ({compared.preset or 'default'} models)."
        if compared.model
        else ""
    )
    return html.section("Devices", html.table("Devices", ["device", *columns], rows, 1), lead=lead)


def listed(plans: Sequence[PlanSummary], this: str) -> list[str]:
    """Tables of the newest plans, each with a link to its own dashboard; all but a few are folded away."""
    newest = list(reversed(plans))[:NUM_LISTED]
    several = len({plan.device_name for plan in plans}) > 1
    costs = any(plan.cost is not None for plan in newest)
    columns = ["plan", "status", "began (UTC)", "datasets", "phases", "failed attempts"]
    heads = [*columns, *["device"][: int(several)], "time", *["cost"][: int(costs)]]
    numeric = heads.index("time")
    rows = [_plan_row(plan, this, cost=costs, device=several) for plan in newest]
    shown, rest = rows[:NUM_OPEN], rows[NUM_OPEN:]
    parts = [html.table("Newest plans", heads, shown, numeric, "plans")]
    if rest:
        table = html.table("Plans before them", heads, rest, numeric, "plans")
        parts.append(f"<details><summary>{len(rest)} plans before them</summary>{table}</details>")
    return parts


def _plan_row(plan: PlanSummary, this: str, *, cost: bool, device: bool) -> str:
    name = html.text(plan.plan_id)
    link = f'<a href="{html.text(dashboard_link(plan.plan_id))}">{name}</a>'
    resumed = f", resumed {plan.num_resumes} ×" if plan.num_resumes else ""
    cells = [
        f"<td>{html.chip(plan.status, TONES.get(plan.status, 'warn'))}</td>",
        html.cell(f"{plan.began_at:%Y-%m-%d %H:%M}"),
        html.cell(_datasets(plan)),
        html.cell(f"{plan.num_done} of {plan.num_phases}{resumed}" if plan.num_phases else "–"),
        _failure_cell(plan),
        html.cell(plan.device_name) if device else "",
        html.cell(format_duration(plan.worked_s), "number"),
        html.cell("–" if plan.cost is None else format_cost(plan.cost), "number") if cost else "",
    ]
    head = f"{name} <small>(this one)</small>" if plan.plan_id == this else link
    return f'<tr><th scope="row">{head}</th>{"".join(cells)}</tr>'


def format_cost(cost: float) -> str:
    """A price in the user's currency, which nobody names."""
    return f"{cost:,.2f}".replace(",", "\u202f")


def _tone(completed: int, ended: int) -> str:
    if completed == ended:
        return ""
    return "warn" if completed else "bad"


def _long(seconds: float) -> str:
    """A time of perhaps many plans."""
    return f"{format_number(round(seconds / 3600))} h" if seconds >= 360_000 else format_duration(seconds)


def _left_out(fleet: Fleet) -> str:
    if not fleet.unreadable:
        return ""
    named = ", ".join(fleet.unreadable[:5])
    more = f" and {len(fleet.unreadable) - 5} more" if len(fleet.unreadable) > 5 else ""
    return (
        f'<p class="warn">Left out, because their events cannot be read: {html.text(named + more)}. '
        "python -m flows.verify says why.</p>"
    )


def _plans(fleet: Fleet, columns: Columns, this: str, place: Place) -> list[str]:
    plans = fleet.plans
    every = f"per {columns.each}"
    if len(plans) == 1:
        return ['<p class="muted">Trends are drawn from the second plan on.</p>']
    if len(plans) <= MAX_DOTS:
        chart, caption = plan_dots(plans, this, _CONTAINER), "Time worked on each plan"
        description = "When each plan began, how long it took and how it ended; a click opens its dashboard"
    else:
        chart, caption = status_bars(columns, _CONTAINER), f"Plans {every}"
        description = f"Number of plans {every}, by how they ended"
    cost = any(plan.cost is not None for plan in plans)
    name = f"{'Cost' if cost else 'Hours worked'} {every}"
    bars = amount_bars(columns, _CONTAINER, cost=cost) if cost or len(plans) > MAX_DOTS else None
    figures = place(chart, caption, description) + place(bars, name, name)
    return [legend(status_keys(plans)), f'<div class="grid halves">{figures}</div>' if bars else figures]


def _failures(fleet: Fleet, columns: Columns, place: Place) -> list[str]:
    kinds = sum((Counter(plan.failures) for plan in fleet.plans), Counter[str]())
    if not kinds:
        return []
    chart = failure_bars(columns, _CONTAINER) if len(fleet.plans) > 1 else None
    lost = sum((Counter(plan.lost) for plan in fleet.plans), Counter[str]())
    cured = f"{kinds.total() - lost.total()} of {kinds.total()} were made good by a later attempt."
    description = f"Failed attempts per {columns.each}, by class"
    return [f'<p class="muted">{cured}</p>', legend(kind_keys(kinds)), place(chart, "", description)]


def _trends(fleet: Fleet, columns: Columns, place: Place) -> list[str]:
    datasets = sorted({name for plan in fleet.plans for name in plan.mcc})
    scores = [score for plan in fleet.plans for score in plan.mcc.values()]
    if len(fleet.plans) < 2 or not datasets:
        return []
    lowest = min(0.9, int(10 * min(scores) - (min(scores) < 0)) / 10)
    figures = []
    for name in datasets[:_MAX_DATASETS]:
        points = _points(fleet.plans, columns, name)
        chart = metric_trend(points, lowest, _CONTAINER)
        last, change = points[-1]["mcc"], points[-1]["mcc"] - points[0]["mcc"]
        since = f" ({change:+.3f} since the first)" if len(points) > 1 else ""
        figures.append(
            place(chart, f"{name} · {last:.3f}{since}", f"MCC on {name} over plans, {last:.3f} last")
        )
    more = f'<p class="muted">{len(datasets) - _MAX_DATASETS} more datasets are not drawn.</p>'
    return [f'<div class="grid wide">{"".join(figures)}</div>', more if len(datasets) > _MAX_DATASETS else ""]


def _points(plans: Sequence[PlanSummary], columns: Columns, dataset: str) -> list[dict[str, Any]]:
    """A point per plan, or the mean of a period where there are many."""
    if len(plans) <= MAX_DOTS:
        return [
            _point(plan.began_at, plan.mcc[dataset], plan.plan_id, dashboard_link(plan.plan_id))
            for plan in plans
            if dataset in plan.mcc
        ]
    points = []
    for column in columns.columns:
        scored = [plan for plan in column.plans if dataset in plan.mcc]
        if scored:
            mean = sum(plan.mcc[dataset] for plan in scored) / len(scored)
            points.append(_point(scored[0].began_at, mean, f"mean of {len(scored)}", ""))
    return points


def _point(began_at: datetime, mcc: float, plan: str, link: str) -> dict[str, Any]:
    return {"began": milliseconds(began_at), "mcc": round(mcc, 4), "plan": plan, "link": link}


def _device(device: Device, fastest: float) -> dict[str, str]:
    """Cells by column; empty where nothing was measured."""
    completed = sum(plan.status == "completed" for plan in device.plans)
    total, peak = device.memory_total_mib, device.peak_memory_mib
    percent, speed, each = device.gpu_percent, device.graphs_per_s, device.cost_per_plan
    memory = format_memory(peak) + (f" of {format_memory(total)}" if total else "")
    return {
        "plans": html.cell(len(device.plans), "number"),
        "completed": _meter(f"{completed / len(device.plans):.0%}", completed / len(device.plans)),
        "time": html.cell(_long(sum(plan.worked_s for plan in device.plans)), "number"),
        "GPU utilisation": "" if percent is None else _meter(f"{percent:.0f} %", percent / 100),
        "peak memory": "" if peak is None else _meter(memory, peak / total if total else None),
        "graphs/s": ""
        if speed is None
        else _meter(format_number(speed), speed / fastest if fastest else None),
        "cost a plan": "" if each is None else html.cell(format_cost(each), "number"),
    }


def _meter(value: str, share: float | None) -> str:
    """A number above a bar of its share."""
    bar = f'<span class="meter" style="--share:{min(1.0, share):.3f}"></span>' if share is not None else ""
    return f'<td class="number">{html.text(value)}{bar}</td>'


def _datasets(plan: PlanSummary) -> str:
    names = [name for name, status in plan.datasets.items() if status != "up_to_date"]
    if not names:
        return "nothing was due"
    return ", ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} more"


def _failure_cell(plan: PlanSummary) -> str:
    parts = [
        f"{sum(found.values())} {word} ({', '.join(found)})"
        for found, word in ((plan.lost, "lost"), (plan.recovered, "got over"))
        if found
    ]
    return html.cell(", ".join(parts) or "none", "bad" if plan.lost else "" if parts else "muted")
