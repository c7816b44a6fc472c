"""The page of health: what was slow, what failed, what the machine says."""

from collections.abc import Sequence

from core.analytics import html
from core.analytics.board import Dashboard
from core.analytics.pages import advice
from core.analytics.pages.parts import TONES, Place
from core.analytics.results import PhaseResult, RetrainingResults

_BOTTLENECK_TONES = {"compute_bound": "good", "idle": "bad", "unknown": ""}


def render(dashboard: Dashboard, place: Place) -> str:
    """The page's sections."""
    results = dashboard.results
    return "\n".join(
        [
            html.section("Health", health(results, dashboard.telemetry.notes)),
            html.section("Recommended settings for the next plan", advice.recommendation(results)),
            html.section("Errors and recoveries", errors(results)),
        ]
    )


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
                    html.cell(outcome, TONES.get(phase.status, "bad")),
                ],
            )
        )
    columns = ["time (UTC)", "dataset", "phase", "kind", "message", "outcome"]
    return html.table("Errors and recoveries", columns, rows, len(columns)) if rows else ""


def _recovery(phase: PhaseResult) -> str:
    if phase.status == "completed":
        return f"recovered in attempt {phase.attempts}, micro-batch {phase.micro_batch_size}"
    return "retry under way" if phase.status == "running" else "not recovered"
