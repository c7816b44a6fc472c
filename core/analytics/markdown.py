"""Results, recommendations and pictures as markdown, for whoever shows markdown."""

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from core.analytics.metrics import (
    BASELINES,
    best_models,
    folder_order,
    format_duration,
    format_memory,
    format_metric,
    format_number,
    fusion_verdict,
    metric_label,
    model_order,
)
from core.analytics.results import DatasetResult, RetrainingResults
from core.events.resource_facts import ConfigRecommended, RecommendationJudged

_COLUMNS = ("f1", "precision", "recall", "mcc", "auroc", "false_positive_rate", "false_alarms_per_hour")


def results_markdown(results: RetrainingResults) -> str:
    """A plan's outcome: phases, then a metrics table per dataset with the best values in bold."""
    device = results.machine.get("device_name", "an unknown device")
    parts = [
        f"# Plan {plain(results.plan_id)}: {results.status}",
        f"Took {format_duration(results.duration_s)} on {plain(device)}.",
    ]
    for name, dataset in results.datasets.items():
        parts += [f"## {plain(name)}: {dataset.status}", _phases_table(dataset)]
        if dataset.metrics:
            parts += [_metrics_table(dataset), fusion_verdict(dataset).sentence()]
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
    """A recommendation: its reasons, what each change rests on, what earlier ones came to, the settings file.

    Args:
        fact: The recommendation.
        judged: Effects of earlier recommendations that its plan went by.
    """
    parts = [f"# Recommended settings for {plain(fact.device_name)}"]
    if fact.reasons:
        parts.append("\n".join(f"- {plain(reason)}" for reason in fact.reasons))
    if fact.advice:
        parts += ["## Changes", _advice_table(fact.advice)]
    if judged:
        parts += ["## Earlier recommendations", _judged_table(judged)]
    content = yaml.safe_dump(fact.settings, sort_keys=True, allow_unicode=True)
    return "\n\n".join([*parts, f"```yaml\n{content}```"]) + "\n"


def dashboard_markdown(png: bytes) -> str:
    """A dashboard's picture inside markdown."""
    return f"![Dashboard](data:image/png;base64,{base64.b64encode(png).decode()})\n"


def _advice_table(advice: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            str(item["setting"]),
            _change(item["before"], item["value"]),
            str(item["phase"] or "all"),
            _promise(item),
            str(item["rests_on"]),
            f"{item['confidence']:.0%}",
        ]
        for item in advice
    ]
    return table(["setting", "change", "phase", "expected", "based on", "confidence"], rows)


def _change(before: object, value: object) -> str:
    return f"{value} (unchanged)" if value == before else f"{before} → {value}"


def _promise(item: Mapping[str, Any]) -> str:
    if item["expected"] is None:
        return "–"
    low, expected, high = (format_number(item[name]) for name in ("low", "expected", "high"))
    return f"{item['metric']} {format_number(item['current'])} → {expected} ({low} to {high})"


def _judged_table(judged: Sequence[RecommendationJudged]) -> str:
    rows = [
        [
            fact.setting,
            f"{fact.instead_of} → {fact.value}",
            fact.recommended_by,
            f"{fact.metric} {format_number(fact.before)} → {format_number(fact.after)}",
            "helped" if fact.helped else "worse" if fact.high < 0 else "no clear difference",
        ]
        for fact in judged
    ]
    return table(["setting", "change", "after plan", "measured", "verdict"], rows)


def _phases_table(dataset: DatasetResult) -> str:
    rows = [
        [
            name,
            phase.status,
            str(phase.attempts),
            format_duration(phase.duration_s),
            format_memory(phase.peak_memory_mib),
            phase.error or phase.reason or "",
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
