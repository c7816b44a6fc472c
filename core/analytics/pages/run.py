"""The page of one run: what ran when, how it learned, what it used."""

from collections.abc import Iterable

from core.analytics import html
from core.analytics.board import Dashboard
from core.analytics.charts.keys import line_keys, loss_keys, mark_keys, phase_keys, use_keys
from core.analytics.charts.learning import loss_curve, metric_curves, throughput_curves
from core.analytics.charts.phases import phase_timeline
from core.analytics.charts.resources import Backdrop, limit_curve, resource_curve
from core.analytics.charts.time_use import time_use_chart
from core.analytics.epochs import TimeUse, time_use, total_use
from core.analytics.health import overall
from core.analytics.metrics import format_duration, format_memory, format_number
from core.analytics.pages.parts import TONES, Place, legend
from core.analytics.results import PhaseResult, RetrainingResults
from core.analytics.telemetry import MEASURED, TelemetrySummary

_MANY = 2
"""Datasets above which each one's charts are folded away."""
_ON_HEALTH = frozenset({"disk_free_mib"})


def render(dashboard: Dashboard, place: Place) -> str:
    """The page's sections."""
    if dashboard.window is None:
        return ""
    results = dashboard.results
    return "\n".join(
        [
            header(results, dashboard.telemetry.summary, overall(dashboard).sentence),
            html.section("Phases", _timeline(dashboard, place), phase_matrix(results)),
            _time_use(dashboard, place),
            html.section("Learning", _learning(dashboard, place)),
            _resources(dashboard, place),
        ]
    )


def header(results: RetrainingResults, telemetry: TelemetrySummary, verdict: str) -> str:
    """The plan's name, how it is, and its key figures."""
    machine = results.machine
    phases = [phase for dataset in results.datasets.values() for phase in dataset.phases.values()]
    due = [phase for phase in phases if phase.status != "skipped"]
    done = sum(phase.status == "completed" for phase in due)
    failures = sum(len(phase.failures) for phase in phases)
    cured = sum(len(phase.failures) for phase in phases if phase.status == "completed")
    peak = max((p.peak_memory_mib for p in phases if p.peak_memory_mib is not None), default=None)
    ended = sum(d.status in ("completed", "up_to_date") for d in results.datasets.values())
    bad_rows = sum(q.num_rows for d in results.datasets.values() for q in d.quarantine.values())
    frames = sum(d.graphs.num_frames for d in results.datasets.values() if d.graphs)
    resumed = f"resumed {results.num_resumes} ×" if results.num_resumes else ""
    skipped = f"{len(phases) - len(due)} up to date" if len(due) < len(phases) else ""
    tiles = [
        html.tile("Plan", results.status, resumed, TONES.get(results.status, "")),
        html.tile("Duration", format_duration(results.duration_s)),
        html.tile("Datasets done", f"{ended} of {len(results.datasets)}"),
        html.tile("Phases done", f"{done} of {len(due)}", skipped),
        html.tile(
            "Failed attempts",
            str(failures),
            f"{cured} cured by a retry" if failures else "",
            "bad" if failures > cured else "warn" if failures else "",
        ),
        html.tile("Frames read", format_number(frames), f"{format_number(bad_rows)} rows quarantined"),
        html.tile("Peak memory", format_memory(peak), "of one training process"),
    ]
    if telemetry.gpu_utilization_percent is not None:
        tiles.append(
            html.tile("GPU utilisation", f"{telemetry.gpu_utilization_percent:.0f} %", "mean over the plan")
        )
    elif telemetry.cpu_percent is not None:
        tiles.append(html.tile("CPU use", f"{telemetry.cpu_percent:.0f} %", "mean over the plan"))
    started = f"{results.started_at:%Y-%m-%d %H:%M:%S} UTC" if results.started_at else "not started"
    facts = [started, str(machine.get("device_name", "")), str(machine.get("precision", ""))]
    return (
        f"<header><h1>Retraining plan {html.text(results.plan_id)}</h1>"
        f'<p class="muted">{html.text(" · ".join(fact for fact in facts if fact))}</p>'
        f'<p><a href="#health">{html.text(verdict)}</a></p>'
        f'<dl class="tiles">{"".join(tiles)}</dl></header>'
    )


def phase_matrix(results: RetrainingResults) -> str:
    """Every dataset's phases: how each ended, and why."""
    names = list(dict.fromkeys(name for d in results.datasets.values() for name in d.phases))
    rows = [
        html.row(dataset, (_phase_cell(result.phases.get(name)) for name in names))
        for dataset, result in results.datasets.items()
    ]
    return html.table("Phases", ["dataset", *names], rows, len(names) + 1, "matrix") if names else ""


def _timeline(dashboard: Dashboard, place: Place) -> str:
    if not dashboard.datasets or dashboard.window is None:
        return ""
    chart = phase_timeline(
        dashboard.spans, dashboard.marks, dashboard.datasets, dashboard.window, "container"
    )
    keys = [*phase_keys(failures=True), *mark_keys(m.kind for m in dashboard.marks if m.kind != "failure")]
    hint = (
        '<p class="muted hint">Times are UTC. Drag over a chart to look closer at a time: all charts '
        "over time follow. Click a bar to follow one phase.</p>"
    )
    return hint + legend(keys) + place(chart, "", "Phases of each dataset over time")


def _time_use(dashboard: Dashboard, place: Place) -> str:
    slices = time_use(dashboard.epochs)
    if not slices or dashboard.window is None:
        return ""
    trained = {use.dataset for use in slices}
    datasets = [name for name in dashboard.datasets if name in trained]
    slices = [use for use in slices if use.dataset in datasets]
    chart = time_use_chart(slices, datasets, dashboard.window, "container")
    described = "Shares of waiting for data, computing and validating of each epoch over time"
    return html.section(
        "Waiting and computing",
        legend(use_keys()),
        place(chart, "", described),
        f"<details><summary>Seconds per model</summary>{_use_table(total_use(dashboard.epochs))}</details>",
        lead="Each epoch from 0 to 100 % of its time, on the time axis of the phases.",
    )


def _use_table(totals: Iterable[TimeUse]) -> str:
    rows = [
        html.row(
            f"{use.dataset} · {use.model}",
            [
                html.cell(use.last_epoch - use.first_epoch + 1, "number"),
                *(
                    html.cell(f"{format_duration(seconds)} ({seconds / use.total_s:.1%})", "number")
                    for seconds in (use.waiting_s, use.computing_s, use.validating_s)
                ),
                html.cell(f"{use.most_waiting:.1%}", "number"),
            ],
        )
        for use in totals
    ]
    columns = ["model", "epochs", "waiting", "computing", "validating", "most waiting in an epoch"]
    return html.table("Waiting and computing per model", columns, rows, 1)


def _learning(dashboard: Dashboard, place: Place) -> str:
    parts, trained = [], dict[str, None]()
    for dataset in dashboard.datasets:
        models = dashboard.losses(dataset)
        trained |= dict.fromkeys(model for model, _ in models)
        overlays = [
            ("Validation MCC", metric_curves(models, "container"), "MCC on validation of all models"),
            (
                "Graphs per second",
                throughput_curves(models, "container"),
                "Training throughput of all models",
            ),
        ]
        figures = [
            *(
                _phased(
                    points[0].phase,
                    place(loss_curve(points, "container"), model, f"Loss of {model} on {dataset} per epoch"),
                )
                for model, points in models
            ),
            *(
                f"<div>{place(chart, caption, f'{described} on {dataset} per epoch')}</div>"
                for caption, chart, described in overlays
                if chart
            ),
        ]
        if figures:
            parts.append(_folded(dashboard, dataset, f'<div class="grid quarters">{"".join(figures)}</div>'))
    if not parts:
        return ""
    lines = "".join(
        f'<div class="keys"><span>{title}</span>{legend(keys)}</div>'
        for title, keys in (("Loss", loss_keys()), ("All models", line_keys(trained)))
    )
    return lines + "".join(parts)


def _phased(phase: str, figure: str) -> str:
    return f'<div data-phase="{html.text(phase)}">{figure}</div>'


def _folded(dashboard: Dashboard, dataset: str, content: str) -> str:
    name = html.text(dataset)
    if len(dashboard.datasets) <= _MANY:
        return f'<div data-dataset="{name}"><h3>{name}</h3>{content}</div>'
    opened = " open" if dataset == dashboard.datasets[0] else ""
    return f'<details data-dataset="{name}"{opened}><summary>{name}</summary>{content}</details>'


def _resources(dashboard: Dashboard, place: Place) -> str:
    if dashboard.window is None:
        return ""
    backdrop = Backdrop(dashboard.spans, dashboard.marks, dashboard.datasets, dashboard.window)
    figures = [
        place(
            resource_curve(dashboard.telemetry, metric, backdrop, "container"),
            f"{quantity.name} ({quantity.unit})",
            f"{quantity.name} over time in {quantity.unit}",
        )
        for metric, quantity in MEASURED.items()
        if metric not in _ON_HEALTH
    ]
    figures += [
        place(
            limit_curve(limits, backdrop, "container"),
            f"Graphs per pack · {model} · {dataset}",
            f"Most graphs in one forward and backward pass of {model} on {dataset} over time",
        )
        for (dataset, model), limits in dashboard.limits.items()
    ]
    if not any(figures):
        return ""
    keys = [*phase_keys(failures=False), *mark_keys(mark.kind for mark in dashboard.marks)]
    return html.section(
        "Resources",
        legend(keys),
        f'<div class="grid wide">{"".join(figures)}</div>',
        lead="Tinted lanes are the phases of each dataset, in the order of the timeline; lines are means, "
        "with the range from lowest to highest around them.",
    )


def _phase_cell(phase: PhaseResult | None) -> str:
    if phase is None:
        return "<td>–</td>"
    notes = []
    if phase.duration_s is not None:
        notes.append(format_duration(phase.duration_s))
    if phase.attempts > 1:
        notes.append(f"{phase.attempts} attempts")
    if phase.peak_memory_mib:
        notes.append(f"peak {format_memory(phase.peak_memory_mib)}")
    if phase.status in ("skipped", "blocked", "pending") and phase.reason:
        notes.append(phase.reason)
    if phase.status == "failed" and phase.failures:
        notes.append(phase.failures[-1].kind)
    small = f"<small>{html.text(' · '.join(notes))}</small>" if notes else ""
    word = "up to date" if phase.status == "skipped" else phase.status
    return f"<td>{html.chip(word, TONES.get(phase.status, ''))}{small}</td>"
