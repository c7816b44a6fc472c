"""The page of one run: what ran when, how it learned, what it used."""

from core.analytics import html
from core.analytics.board import Dashboard
from core.analytics.charts.keys import loss_keys, phase_keys
from core.analytics.charts.losses import loss_curve
from core.analytics.charts.phases import phase_timeline
from core.analytics.charts.resources import resource_curve
from core.analytics.metrics import format_duration, format_memory, format_number
from core.analytics.pages.parts import TONES, Place, legend
from core.analytics.results import PhaseResult, RetrainingResults
from core.analytics.telemetry import MEASURED, TelemetrySummary


def render(dashboard: Dashboard, place: Place) -> str:
    """The page's sections."""
    results = dashboard.results
    return "\n".join(
        [
            header(results, dashboard.telemetry.summary),
            html.section("Phases", _timeline(dashboard, place), phase_matrix(results)),
            html.section("Learning", _losses(dashboard, place)),
            _resources(dashboard, place),
        ]
    )


def header(results: RetrainingResults, telemetry: TelemetrySummary) -> str:
    """The plan's name and its key figures."""
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
    if not dashboard.datasets:
        return ""
    chart = phase_timeline(dashboard.spans, dashboard.datasets, "container")
    return legend(phase_keys(failures=True)) + place(chart, "", "Phases of each dataset over time")


def _losses(dashboard: Dashboard, place: Place) -> str:
    parts = []
    for dataset in dashboard.datasets:
        figures = [
            place(loss_curve(points, "container"), model, f"Loss of {model} on {dataset} per epoch")
            for model, points in dashboard.losses(dataset)
        ]
        if figures:
            parts.append(f'<h3>{html.text(dataset)}</h3><div class="grid">{"".join(figures)}</div>')
    return legend(loss_keys()) + "".join(parts) if parts else ""


def _resources(dashboard: Dashboard, place: Place) -> str:
    figures = [
        place(
            resource_curve(dashboard.telemetry, metric, dashboard.spans, dashboard.datasets, "container"),
            quantity.name,
            f"{quantity.name} over time in {quantity.unit}",
        )
        for metric, quantity in MEASURED.items()
    ]
    if not any(figures):
        return ""
    lanes = "Tinted lanes are the phases of each dataset, in the order of the timeline."
    return html.section(
        "Resources",
        legend(phase_keys(failures=False)),
        f'<div class="grid wide">{"".join(figures)}</div>',
        lead=lanes,
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
