"""The sections of a dashboard page: tables and the places of charts."""

from collections.abc import Iterable, Mapping, Sequence

import yaml

from core.analytics import html
from core.analytics.charts import Key
from core.analytics.metrics import (
    BASELINES,
    HIGHER_IS_BETTER,
    best_models,
    folder_order,
    format_duration,
    format_memory,
    format_metric,
    format_number,
    fusion_verdict,
    metric_label,
    metric_order,
    model_order,
)
from core.analytics.results import DatasetResult, PhaseResult, RetrainingResults
from core.analytics.telemetry import TelemetrySummary

_TONES = {"completed": "good", "failed": "bad", "blocked": "warn", "running": "warn", "unfinished": "warn"}
_BOTTLENECK_TONES = {"compute_bound": "good", "idle": "bad", "unknown": ""}
_PATHS = {
    "circle": '<circle cx="7" cy="7" r="4.5"/>',
    "triangle-up": '<path d="M7 2 12 11.5H2Z"/>',
    "diamond": '<path d="M7 1.5 12 7 7 12.5 2 7Z"/>',
    "square": '<path d="M2.5 2.5h9v9h-9Z"/>',
    "cross": '<path d="M5 1.5h4V5h3.5v4H9v3.5H5V9H1.5V5H5Z"/>',
    "line": '<path d="M0 7h14" stroke-width="2.5"/>',
    "dashes": '<path d="M0 7h14" stroke-width="2.5" stroke-dasharray="4 2.5"/>',
}


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
        html.tile("Plan", results.status, resumed, _TONES.get(results.status, "")),
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


def legend(keys: Iterable[Key]) -> str:
    """What symbols and colours mean."""
    entries = "".join(
        f'<li><svg width="14" height="14" viewBox="0 0 14 14" aria-hidden="true" stroke="{key.ink}" '
        f'stroke-width="1.5" fill="{key.ink if key.filled else "none"}">{_PATHS[key.symbol]}</svg>'
        f"{html.text(key.name)}</li>"
        for key in keys
    )
    return f'<ul class="legend">{entries}</ul>'


def phase_matrix(results: RetrainingResults) -> str:
    """Every dataset's phases: how each ended, and why."""
    names = list(dict.fromkeys(name for d in results.datasets.values() for name in d.phases))
    rows = [
        html.row(dataset, (_phase_cell(result.phases.get(name)) for name in names))
        for dataset, result in results.datasets.items()
    ]
    return html.table("Phases", ["dataset", *names], rows, len(names) + 1, "matrix") if names else ""


def metric_tables(dataset: DatasetResult) -> str:
    """All metrics of one dataset, a group of rows per test folder, tinted where 1 is best."""
    columns = metric_order(dataset)
    rows = []
    for folder in folder_order(dataset):
        best = {metric: best_models(dataset, folder, metric) for metric in columns}
        rows.append(
            f'<tr class="group"><th scope="colgroup" colspan="{len(columns) + 1}"><span>{html.text(folder)}'
            "</span></th></tr>"
        )
        for model in model_order(dataset.metrics):
            metrics = dataset.metrics[model].get(folder)
            if metrics is None:
                continue
            cells = []
            for metric in columns:
                value = metrics.get(metric)
                heated = metric in HIGHER_IS_BETTER and value is not None
                css = "number undefined" if metrics.get(metric, 0) is None else "number"
                css += " best" if model in best[metric] else ""
                heat = min(1.0, max(0.0, value)) if heated and value is not None else None
                cells.append(html.cell(format_metric(metrics, metric), css, heat))
            rows.append(html.row(model, cells, "baseline" if model in BASELINES else ""))
    return html.table("Metrics per test folder and model", ["model", *map(metric_label, columns)], rows, 1)


def verdict(name: str, dataset: DatasetResult) -> str:
    """Whether fusion earns its place on one dataset."""
    found = fusion_verdict(dataset)
    tone = "good" if found.earned else "warn"
    word = "earned" if found.earned else "not earned" if found.num_folders else "no verdict"
    return f"<p>{html.chip(word, tone)} <strong>{html.text(name)}</strong>: {html.text(found.sentence())}</p>"


def data_quality(datasets: Mapping[str, DatasetResult]) -> str:
    """Frames, graphs, quarantined rows and refused or shared captures."""
    rows = []
    for name, dataset in datasets.items():
        graphs, quarantined = dataset.graphs, sum(q.num_rows for q in dataset.quarantine.values())
        splits = graphs.splits if graphs else {}
        attacks = f"{graphs.num_attack_graphs / max(1, graphs.num_graphs):.1%}" if graphs else "–"
        cells = [
            format_number(graphs.num_frames) if graphs else "–",
            format_number(graphs.num_graphs) if graphs else "–",
            attacks,
            *(format_number(splits[split]) if split in splits else "–" for split in ("train", "val", "test")),
            format_number(quarantined),
            format_number(len(dataset.refused_captures)),
            format_number(len(dataset.shared_captures)),
        ]
        rows.append(html.row(name, (html.cell(content, "number") for content in cells)))
    columns = [
        "dataset", "frames", "graphs", "attack graphs", "train", "validation", "test",
        "quarantined rows", "refused captures", "shared captures",
    ]  # fmt: skip
    parts = [html.table("Data quality", columns, rows, 1)] if rows else []
    if details := [line for name, dataset in datasets.items() for line in _data_problems(name, dataset)]:
        parts += [
            "<h3>What was put aside</h3>",
            html.table("Problems", ["dataset", "capture", "what"], details, 3),
        ]
    return "".join(parts)


def health(results: RetrainingResults, notes: Sequence[str]) -> str:
    """What kept each model from being trained faster and what to change; then notes on the machine."""
    rows = []
    for found in results.bottlenecks:
        tone = _BOTTLENECK_TONES.get(found.bottleneck, "warn")
        cells = [
            html.cell(found.phase),
            html.cell(found.model),
            f"<td>{html.chip(found.bottleneck.replace('_', ' '), tone)}</td>",
            html.cell(found.reason, "long"),
            html.cell(found.change or "–", "long"),
        ]
        rows.append(html.row(found.dataset, cells))
    columns = ["dataset", "phase", "model", "bottleneck", "measured", "what to change"]
    table = html.table("Bottlenecks", columns, rows, len(columns)) if rows else ""
    listed = "".join(f"<li>{html.text(note)}</li>" for note in notes)
    return table + (f'<ul class="reasons">{listed}</ul>' if listed else "")


def errors(results: RetrainingResults) -> str:
    """Failed attempts, and what became of them."""
    found = sorted(
        (
            (failure.occurred_at, name, phase_name, failure, phase)
            for name, dataset in results.datasets.items()
            for phase_name, phase in dataset.phases.items()
            for failure in phase.failures
        ),
        key=lambda item: item[:3],
    )
    rows = []
    for occurred_at, name, phase_name, failure, phase in found:
        outcome = _recovery(phase)
        rows.append(
            html.row(
                f"{occurred_at:%H:%M:%S}",
                [
                    html.cell(name),
                    html.cell(f"{phase_name}, attempt {failure.attempt}"),
                    html.cell(failure.kind),
                    html.cell(failure.message, "long"),
                    html.cell(outcome, _TONES.get(phase.status, "bad")),
                ],
            )
        )
    columns = ["time (UTC)", "dataset", "phase", "kind", "message", "outcome"]
    return html.table("Errors and recoveries", columns, rows, len(columns)) if rows else ""


def recommendation(results: RetrainingResults) -> str:
    """Settings for the next plan, and why."""
    found = results.recommendation
    if found is None:
        return ""
    reasons = "".join(f"<li>{html.text(reason)}</li>" for reason in found.reasons)
    content = yaml.safe_dump(found.settings, sort_keys=True, allow_unicode=True)
    return (
        f'<p>For <strong>{html.text(found.device_name)}</strong>:</p><ul class="reasons">{reasons}</ul>'
        f'<pre tabindex="0" aria-label="Settings">{html.text(content)}</pre>'
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
    return f"<td>{html.chip(word, _TONES.get(phase.status, ''))}{small}</td>"


def _recovery(phase: PhaseResult) -> str:
    if phase.status == "completed":
        return f"recovered in attempt {phase.attempts}, micro-batch {phase.micro_batch_size}"
    return "retry under way" if phase.status == "running" else "not recovered"


def _data_problems(name: str, dataset: DatasetResult) -> list[str]:
    lines = [
        (path, f"{format_number(q.num_rows)} rows quarantined: " + ", ".join(
            f"{reason} ({format_number(count)})" for reason, count in sorted(q.reasons.items())
        ))
        for path, q in sorted(dataset.quarantine.items())
    ]  # fmt: skip
    lines += [(path, f"refused: {reason}") for path, reason in sorted(dataset.refused_captures.items())]
    lines += [
        (
            str(c.get("path")),
            f"same bytes as {c.get('other_path')} of {c.get('other_dataset')}: not independent",
        )
        for c in dataset.shared_captures
    ]
    return [html.row(name, [html.cell(path, "long"), html.cell(what, "long")]) for path, what in lines]
