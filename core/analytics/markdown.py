"""Results, recommendations and pictures as markdown, for whoever shows markdown."""

import base64
import re
from collections.abc import Sequence

from core.analytics.advice.bars import bars_svg, data_uri
from core.analytics.advice.reading import Bar, read
from core.analytics.metrics import (
    BASELINES,
    best_models,
    folder_order,
    format_duration,
    format_memory,
    format_metric,
    fusion_verdict,
    metric_label,
    model_order,
)
from core.analytics.results import DatasetResult, RetrainingResults
from core.events.resource_facts import ConfigRecommended, RecommendationJudged
from core.logs import headline

_COLUMNS = ("f1", "mcc", "false_alarms_per_hour", "false_positive_rate", "auroc", "precision", "recall")
"""The first ones are seen without scrolling."""


def results_markdown(results: RetrainingResults) -> str:
    """A plan's outcome: phases, then a metrics table per dataset with the best values in bold."""
    device = results.machine.get("device_name", "an unknown device")
    parts = [
        f"# Plan {plain(results.plan_id)}: {results.status}",
        f"Took {format_duration(results.duration_s)} on {plain(device)}.",
    ]
    for name, dataset in results.datasets.items():
        parts.append(f"## {plain(name)}: {dataset.status}")
        if dataset.metrics:
            parts.append(fusion_verdict(dataset).sentence())
        parts.append(_phases_table(dataset))
        if dataset.metrics:
            parts.append(_metrics_table(dataset))
    return "\n\n".join(parts) + "\n"


def metrics_rows(results: RetrainingResults) -> list[dict[str, str]]:
    """Every model on every test folder as rows of text, for table artifacts."""
    return [
        {"dataset": name, "test folder": folder, "model": model}
        | {metric_label(metric): format_metric(metrics, metric) for metric in _COLUMNS}
        for name, dataset in results.datasets.items()
        for folder in folder_order(dataset)
        for model in model_order(dataset.metrics)
        if (metrics := dataset.metrics[model].get(folder)) is not None
    ]


def recommendation_markdown(fact: ConfigRecommended, judged: Sequence[RecommendationJudged] = ()) -> str:
    """A recommendation: each setting to change with its evidence, what earlier ones came to, the file.

    Args:
        fact: The recommendation.
        judged: Effects of earlier recommendations that its plan went by.
    """
    reading = read(fact, judged)
    parts = [f"# Recommended settings for {plain(reading.device_name)}", plain(reading.summary)]
    for number, piece in enumerate(reading.changes, 1):
        parts += [f"## {number}. {plain(piece.headline)}", plain(piece.finding)]
        parts += _bars(piece.bars_title, piece.bars)
        facts = {
            "Expected": piece.gain,
            "Rests on": piece.rests_on,
            "Confidence": piece.confidence,
            "Before": piece.record,
        }
        parts.append("\n".join(f"- **{name}:** {plain(said)}" for name, said in facts.items() if said))
        parts.append(f"```yaml\n{piece.change}```")
    if reading.verdicts:
        parts.append("## What earlier advice came to")
    for verdict in reading.verdicts:
        parts += [f"**{plain(verdict.headline)}.** {plain(verdict.detail)}", *_bars("", verdict.bars)]
    if reading.kept:
        title = "What else was looked at" if reading.changes else "What was found"
        parts += [f"## {title}", "\n".join(f"- {plain(reason)}" for reason in reading.kept)]
    parts += ["## The whole settings file", f"```yaml\n{reading.settings}```"]
    return "\n\n".join(filter(None, parts)) + "\n"


def dashboard_markdown(png: bytes) -> str:
    """A dashboard's picture inside markdown."""
    return f"![Dashboard](data:image/png;base64,{base64.b64encode(png).decode()})\n"


def _bars(title: str, bars: Sequence[Bar]) -> list[str]:
    """Evidence as a picture that says the same in words to whoever cannot see it."""
    if not bars:
        return []
    words = ", ".join(f"{bar.label}: {bar.shown}" for bar in bars)
    picture = f"![{plain(words)}]({data_uri(bars_svg(bars))})"
    return [f"{plain(title)}:", picture] if title else [picture]


def _phases_table(dataset: DatasetResult) -> str:
    rows = [
        [
            name,
            phase.status,
            str(phase.attempts),
            format_duration(phase.duration_s),
            format_memory(phase.peak_memory_mib),
            headline(phase.error or phase.reason or ""),
        ]
        for name, phase in dataset.phases.items()
    ]
    return table(["phase", "status", "attempts", "time", "peak memory", "why"], rows)


def _metrics_table(dataset: DatasetResult) -> str:
    rows = []
    for folder in folder_order(dataset):
        for model in model_order(dataset.metrics):
            metrics = dataset.metrics[model].get(folder)
            if metrics is None:
                continue
            cells = [
                f"**{format_metric(metrics, metric)}**"
                if model in best_models(dataset, folder, metric)
                else format_metric(metrics, metric)
                for metric in _COLUMNS
            ]
            rows.append([folder, f"{model} (baseline)" if model in BASELINES else model, *cells])
    return table(["test folder", "model", *map(metric_label, _COLUMNS)], rows)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table, with everything in it shown as it is but for ``**``."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(plain(cell, keep="*") for cell in line) + " |" for line in lines)


def plain(text: str, keep: str = "") -> str:
    """Text that markdown shows as it is: nothing in it is markup, a link or the end of a table cell."""
    one_line = " ".join(text.split())
    return re.sub(r"[\\`*\[\]<>|!#]", lambda m: m[0] if m[0] in keep else "\\" + m[0], one_line)
