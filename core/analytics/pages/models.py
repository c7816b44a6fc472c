"""The page of models: how well each tells attacks apart, and whether it got better."""

from collections.abc import Mapping, Sequence

from core.analytics import html
from core.analytics.board import Dashboard
from core.analytics.charts.curves import precision_recall_chart, roc_chart, score_chart
from core.analytics.charts.detection import metric_dots, trend_chart
from core.analytics.charts.keys import Key, model_dash, model_keys, phase_keys
from core.analytics.detection import (
    Confusion,
    FolderScores,
    Standing,
    compare,
    confusion,
    confusion_of_scores,
    folders_of,
    models_of,
    standing,
    trend,
)
from core.analytics.metrics import (
    BASELINES,
    HIGHER_IS_BETTER,
    best_models,
    folder_order,
    format_change,
    format_metric,
    format_number,
    metric_label,
    metric_order,
    model_order,
)
from core.analytics.pages.data_quality import data_quality
from core.analytics.pages.parts import Place, legend, line_symbol
from core.analytics.pages.verdicts import verdict_cards
from core.analytics.results import DatasetResult
from core.analytics.theme import colour

_DOTS = ("mcc", "f1", "false_alarms_per_hour", "time_to_alarm_mean_s")
_TRENDS = ("mcc", "f1", "false_alarms_per_hour")
_WORTH_TELLING = 0.0005
"""Smaller changes are noise."""
_MOST_OPEN = 2
"""Datasets of which all is shown at once; of more only the first one's charts are."""


def render(dashboard: Dashboard, place: Place) -> str:
    """The page's sections."""
    names = dashboard.evaluated
    return "\n".join(
        [
            html.section("Which model to use", verdict_cards(dashboard)),
            *(
                _dataset(dashboard, name, place, opened=number == 0 or len(names) <= _MOST_OPEN)
                for number, name in enumerate(names)
            ),
            html.section("Data", data_quality(dashboard.results.datasets)),
        ]
    )


def _dataset(dashboard: Dashboard, name: str, place: Place, *, opened: bool) -> str:
    """All about the models of one dataset."""
    dataset, scores = dashboard.results.datasets[name], dashboard.scores.get(name, {})
    standings = {
        model: found
        for model in dataset.metrics
        if (found := standing(dashboard.versions, dashboard.results.plan_id, name, model))
    }
    parts = [
        _dots(name, dataset, place),
        _by_folder(name, dataset, scores, place),
        _trends(dashboard, name, place),
        f"<details><summary>All metrics of {html.text(name)}</summary>"
        f"{metric_tables(dataset, standings)}</details>",
    ]
    head = f'<details class="block"{" open" * opened}><summary><h2>{html.text(name)}</h2></summary>'
    return f'<section data-dataset="{html.text(name)}">{head}{"".join(parts)}</details></section>'


def _dots(name: str, dataset: DatasetResult, place: Place) -> str:
    measured = {metric for models in dataset.metrics.values() for m in models.values() for metric in m}
    figures = "".join(
        place(
            metric_dots(dataset, metric, "container"),
            metric_label(metric),
            f"{metric_label(metric)} of every model and test folder of {name}",
        )
        for metric in _DOTS
        if metric in measured
    )
    return f'{legend(model_keys(model_order(dataset.metrics)))}<div class="grid quarters">{figures}</div>'


def _by_folder(name: str, dataset: DatasetResult, scores: Mapping[str, FolderScores], place: Place) -> str:
    """What is seen of one test folder at a time: the page's script shows the one that is chosen."""
    folders, models = folders_of(dataset, scores), models_of(dataset, scores)
    options = "".join(f'<option value="{n}">{html.text(folder)}</option>' for n, folder in enumerate(folders))
    buttons = "".join(
        f'<button type="button" value="{number}" aria-pressed="false">{line_symbol(key, model_dash(model))}'
        f"{html.text(key.name)}</button>"
        for number, (model, key) in enumerate(zip(models, model_keys(models), strict=True))
    )
    tables = "".join(
        f'<div data-folder="{number}"><h4>{html.text(folder)}</h4>'
        f"{_confusions(dataset, scores.get(folder, {}), folder, models)}</div>"
        for number, folder in enumerate(folders)
    )
    return (
        f'<div class="by-folder"><div class="controls" hidden><label>Test folder <select>{options}</select>'
        f'</label><span role="group" aria-label="Highlight a model">{buttons}</span></div>'
        f'<div class="{"grid halves" if scores else ""}">{_curves(name, scores, folders, models, place)}'
        f"<div><h3>Confusion at the threshold</h3>{tables}</div></div></div>"
    )


def _curves(
    name: str, scores: Mapping[str, FolderScores], folders: Sequence[str], models: Sequence[str], place: Place
) -> str:
    if not scores:
        return '<p class="muted">No curves: the release that this plan ran on logged no scores.</p>'
    dots = "the dots are thresholds"
    drawn = [
        (roc_chart, f"ROC ({dots})", "Recall over false-positive rate of every model"),
        (precision_recall_chart, f"Precision and recall ({dots})", "Precision over recall of every model"),
        (score_chart, "Scores of windows", "How many attack and benign windows have which score, per model"),
    ]
    *curves, distributions = (
        place(draw(scores, folders, models), caption, f"{what} of {name}, folder by folder")
        for draw, caption, what in drawn
    )
    return f"{''.join(curves)}<div>{distributions}{legend(_score_keys())}</div>"


def _score_keys() -> list[Key]:
    return [
        Key("attack windows (above the line)", colour("bad"), "square"),
        Key("benign windows (below it)", colour("accent"), "square"),
        Key("windows without labels", colour("graphs"), "square"),
    ]


def _confusions(dataset: DatasetResult, scores: FolderScores, folder: str, models: Sequence[str]) -> str:
    cards = []
    for number, model in enumerate(models):
        metrics = dataset.metrics.get(model, {}).get(folder, {})
        found = confusion(metrics) or (confusion_of_scores(scores[model]) if model in scores else None)
        threshold = dataset.thresholds.get(model)
        value = threshold.value if threshold else scores[model].threshold if model in scores else None
        note = f"threshold {format_number(value)}" if value is not None else "no threshold"
        if found:
            cards.append(_card(number, model, note, _confusion(found)))
        elif metrics:
            alarms, windows = format_metric(metrics, "num_alarms"), format_metric(metrics, "num_windows")
            said = html.text(f"{alarms} of {windows} windows alarm; no labels")
            cards.append(_card(number, model, note, f'<p class="muted">{said}</p>'))
    return f'<div class="confusions">{"".join(cards)}</div>' if cards else ""


def _card(number: int, model: str, note: str, content: str) -> str:
    css = ' class="baseline"' if model in BASELINES else ""
    caption = f"<figcaption{css}>{html.text(model)} <small>{html.text(note)}</small></figcaption>"
    return f'<figure class="confusion" data-model="{number}">{caption}{content}</figure>'


def _confusion(found: Confusion) -> str:
    rows = [
        ("attack", found.num_attacks, [(found.true_positives, "good"), (found.false_negatives, "bad")]),
        ("benign", found.num_benign, [(found.false_positives, "bad"), (found.true_negatives, "good")]),
    ]
    body = "".join(
        html.row(kind, [_share(count, whole, tone) for count, tone in cells]) for kind, whole, cells in rows
    )
    return (
        '<table><thead><tr><td></td><th scope="col">alarm</th><th scope="col">no alarm</th></tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _share(count: int, whole: int, tone: str) -> str:
    share = f"{count / whole:.1%}" if whole else "–"
    heat = f"{40 * count / whole:.0f}" if whole else "0"
    shown = f"{html.text(format_number(count))}<small>{share}</small>"
    return f'<td class="share {tone}" style="--heat:{heat}">{shown}</td>'


def _trends(dashboard: Dashboard, name: str, place: Place) -> str:
    found = {metric: trend(dashboard.versions, name, metric) for metric in _TRENDS}
    figures = "".join(
        place(
            trend_chart(points, metric),
            f"{metric_label(metric)}, mean of test folders",
            f"{metric_label(metric)} of each version of the models of {name}",
        )
        for metric, points in found.items()
        if points
    )
    if not figures:
        return ""
    shown = {point.phase for points in found.values() for point in points}
    keys = [key for key in phase_keys(failures=False) if key.name in shown]
    return (
        f"<h3>Versions</h3>{legend(keys)}"
        f'<p class="muted">The champion is filled.</p><div class="grid">{figures}</div>'
    )


def metric_tables(dataset: DatasetResult, standings: Mapping[str, Standing] = {}) -> str:
    """All metrics of one dataset, a group of rows per test folder, tinted where 1 is best.

    Args:
        dataset: What was measured.
        standings: By model, the version before, which changes are told against.
    """
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
            before = standings[model].previous if model in standings else None
            changes = compare(metrics, before.metrics[model].get(folder, {})) if before else {}
            cells = []
            for metric in columns:
                value = metrics.get(metric)
                heated = metric in HIGHER_IS_BETTER and value is not None
                css = "number undefined" if metrics.get(metric, 0) is None else "number"
                css += " best" if model in best[metric] else ""
                heat = min(1.0, max(0.0, value)) if heated and value is not None else None
                change = changes.get(metric)
                told = change and change.improved is not None and abs(change.difference) >= _WORTH_TELLING
                cells.append(
                    html.cell(
                        format_metric(metrics, metric),
                        css,
                        heat,
                        note=format_change(change.difference) if change and told else "",
                        tone="good" if change and change.improved else "bad",
                    )
                )
            rows.append(html.row(model, cells, "baseline" if model in BASELINES else ""))
    lead = "Best of a folder is bold, baselines are grey. Small: the change since the version before."
    return f'<p class="muted">{lead}</p>' + html.table(
        "Metrics per test folder and model", ["model", *map(metric_label, columns)], rows, 1
    )
