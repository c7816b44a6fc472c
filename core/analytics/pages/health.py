"""The page of health: what needs attention, what was slow, what failed, what the machine says."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from core.analytics import html
from core.analytics.board import Dashboard
from core.analytics.charts.memory import headroom_chart
from core.analytics.charts.resources import Backdrop, resource_curve
from core.analytics.health import NOT_MEASURED, DiskOutlook, Overall, disk_outlook, overall
from core.analytics.metrics import format_duration, format_memory, format_number
from core.analytics.pages import advice
from core.analytics.pages.parts import TONES, Place
from core.analytics.results import ModelBottleneck, PhaseResult, RetrainingResults
from core.analytics.watchdog import Watch

_TONES = {"compute_bound": "good", "idle": "bad", "unknown": ""}
_FINE = frozenset({"compute_bound", "unknown"})
_MANY = 6
"""Models of a card above which the others are folded away."""


def render(dashboard: Dashboard, place: Place) -> str:
    """The page's sections."""
    if dashboard.window is None:
        return ""
    results = dashboard.results
    return "\n".join(
        [
            findings(overall(dashboard)),
            html.section("Bottlenecks", bottlenecks(results.bottlenecks)),
            html.section("Recommended settings for the next plan", advice.recommendation(results)),
            _memory(dashboard, place),
            html.section("Errors and recoveries", errors(results)),
            html.section("Watchdog", watchdog(dashboard.watch)),
            _disk(dashboard, place),
            html.section("The machine", machine(dashboard.telemetry.notes)),
        ]
    )


def findings(verdict: Overall) -> str:
    """How the plan is, in one line; then everything that was found, the most important first."""
    words = {"bad": "problem", "warn": "look", "note": "note"}
    listed = "".join(
        f"<li>{html.chip(words[found.level], found.level)} <strong>{html.text(found.title)}</strong>"
        f"<span>{html.text(found.text)}</span></li>"
        for found in verdict.findings
    )
    return (
        f'<section class="verdict {verdict.level}"><h2>{html.text(verdict.sentence)}</h2>'
        + (f'<ul class="findings">{listed}</ul>' if listed else "")
        + "</section>"
    )


def bottlenecks(found: Sequence[ModelBottleneck]) -> str:
    """What kept models from being trained faster, and what to change: a card for all that want the same."""
    alike: dict[tuple[str, str, str], list[ModelBottleneck]] = {}
    for one in found:
        alike.setdefault((one.bottleneck, one.cause, one.change), []).append(one)
    ordered = sorted(alike.values(), key=len, reverse=True)
    held = [models for models in ordered if models[0].bottleneck not in _FINE]
    fine = [models for models in ordered if models[0].bottleneck in _FINE]
    parts = [_cards(held)] if held else []
    if fine:
        words = f"{sum(map(len, fine))} that could not be faster, or of which nothing is known"
        parts.append(f"<details{'' if held else ' open'}><summary>{words}</summary>{_cards(fine)}</details>")
    return "".join(parts)


def _cards(groups: Iterable[Sequence[ModelBottleneck]]) -> str:
    return f'<div class="grid halves cards">{"".join(map(_card, groups))}</div>'


def _card(models: Sequence[ModelBottleneck]) -> str:
    first = models[0]
    chip = html.chip(first.bottleneck.replace("_", " "), _TONES.get(first.bottleneck, "warn"))
    change = f"<p><strong>Change:</strong> {html.text(first.change)}</p>" if first.change else ""
    lines = [
        f'<li data-dataset="{html.text(one.dataset)}" data-phase="{html.text(one.phase)}">'
        f"<strong>{html.text(one.model)}</strong> <small>{html.text(one.dataset)}</small> "
        f"{html.text(one.reason)}</li>"
        for one in models
    ]
    more = (
        f"<details><summary>{len(lines) - _MANY} more</summary>"
        f'<ul class="reasons">{"".join(lines[_MANY:])}</ul></details>'
        if len(lines) > _MANY
        else ""
    )
    return (
        f'<article class="card"><p>{chip}</p>{change}<ul class="reasons">{"".join(lines[:_MANY])}</ul>{more}'
        "</article>"
    )


def _memory(dashboard: Dashboard, place: Place) -> str:
    top_mib = max((use.total_mib or use.peak_mib for use in dashboard.memory), default=0.0)
    figures = [
        f'<div data-dataset="{html.text(dataset)}">'
        + place(
            headroom_chart(list(uses), top_mib, "container"),
            f"{dataset} (GiB)",
            f"Peak memory of each phase of {dataset} against the memory there was",
        )
        + "</div>"
        for dataset, uses in groupby(
            sorted(dashboard.memory, key=lambda use: use.dataset), lambda use: use.dataset
        )
    ]
    return html.section(
        "Memory headroom",
        f'<div class="grid wide">{"".join(figures)}</div>' if figures else "",
        lead="What each phase took at most, within all there was; a tick is what was free for packs.",
    )


def errors(results: RetrainingResults) -> str:
    """Failed attempts in order of time, and what became of them."""
    found = sorted(
        (
            (failure.occurred_at, name, phase_name, failure, phase)
            for name, dataset in results.datasets.items()
            for phase_name, phase in dataset.phases.items()
            for failure in phase.failures
        ),
        key=lambda item: item[:3],
    )
    entries = [
        f'<li data-dataset="{html.text(name)}" data-phase="{html.text(phase_name)}">'
        f"<p>{html.chip(failure.kind, 'bad')} <strong>{html.text(f'{name} · {phase_name}')}</strong> "
        f'<span class="muted">attempt {failure.attempt}, {occurred_at:%H:%M:%S} UTC</span> '
        f'<span class="{TONES.get(phase.status, "bad")}">{html.text(_recovery(phase))}</span></p>'
        f"<p>{html.text(failure.message)}</p></li>"
        for occurred_at, name, phase_name, failure, phase in found
    ]
    return f'<ol class="entries">{"".join(entries)}</ol>' if entries else ""


def watchdog(watch: Watch) -> str:
    """Hangs, restarts, silence, and where reports lie."""
    silence = watch.longest
    limit = f"stopped after {format_duration(watch.hang_timeout_s)}" if watch.hang_timeout_s else ""
    tiles = [
        html.tile("Hangs", str(watch.num_hangs), limit, "bad" if watch.num_hangs else ""),
        html.tile("Retries", str(watch.num_restarts), f"{watch.num_continued} from a checkpoint"),
        html.tile("Resumes", str(watch.num_resumes), "of the whole plan"),
        html.tile("Damaged checkpoints", str(watch.num_refused), "", "bad" if watch.num_refused else ""),
    ]
    if silence:
        where = f"{silence.dataset} {silence.phase}, {silence.began_at:%H:%M:%S} UTC"
        tiles.append(html.tile("Longest silence", format_duration(silence.duration_s), where))
    reports = "".join(
        f"<li>{html.text(f'{dataset} · {phase}, attempt {attempt}')}: <code>{html.text(report)}</code></li>"
        for dataset, phase, attempt, report in watch.reports
    )
    listed = f'<h3>Reports in process_logs</h3><ul class="reasons">{reports}</ul>' if reports else ""
    return f'<dl class="tiles flat">{"".join(tiles)}</dl>{listed}'


def _disk(dashboard: Dashboard, place: Place) -> str:
    outlook = disk_outlook(dashboard.telemetry.curves.get("disk_free_mib"))
    if outlook is None or dashboard.window is None:
        return ""
    backdrop = Backdrop(dashboard.spans, dashboard.marks, dashboard.datasets, dashboard.window)
    chart = resource_curve(dashboard.telemetry, "disk_free_mib", backdrop, "container")
    lead = f"{format_memory(outlook.free_mib)} free at the end"
    if outlook.used_mib > 0:
        lead += f"; {format_memory(outlook.used_mib)} went while the plan ran{_room(outlook)}"
    figure = place(chart, "Disk free (GiB)", "Free disk space over time in GiB")
    return html.section("Disk", figure, lead=f"{lead}.")


def _room(outlook: DiskOutlook) -> str:
    return "" if outlook.num_more is None else f": room for {format_number(int(outlook.num_more))} more such"


def machine(notes: Sequence[str]) -> str:
    """What the machine says of itself, and what it could not be asked."""
    own = [note for note in notes if not note.startswith(NOT_MEASURED)]
    missing = [note.removeprefix(NOT_MEASURED).strip() for note in notes if note.startswith(NOT_MEASURED)]
    parts = [
        f'<h3>{title}</h3><ul class="reasons">'
        + "".join(f"<li>{html.text(n)}</li>" for n in listed)
        + "</ul>"
        for title, listed in (("GPU health", own), ("Not measured", missing))
        if listed
    ]
    return "".join(parts)


def _recovery(phase: PhaseResult) -> str:
    if phase.status == "completed":
        return f"recovered in attempt {phase.attempts}, micro-batch {phase.micro_batch_size}"
    return "retry under way" if phase.status == "running" else "not recovered"
