"""Which model of each dataset to use, and whether it is better than the one before."""

from collections.abc import Iterator

from core.analytics import html
from core.analytics.board import Dashboard
from core.analytics.detection import Choice, Standing, choose, standing
from core.analytics.metrics import BASELINES, format_change, format_number, fusion_verdict
from core.analytics.results import DatasetResult
from core.analytics.versions import DECIDING_MODEL

_WORTH_TELLING = 0.005
"""Mean change of the MCC below which two versions are as good as each other."""
_ROLE_TONES = {"champion": "good", "challenger": "warn"}


def verdict_cards(dashboard: Dashboard) -> str:
    """One card per dataset; nothing where nothing was evaluated."""
    if not dashboard.evaluated:
        return ""
    cards = [
        (_card if dataset.metrics else _unevaluated)(dashboard, name)
        for name, dataset in dashboard.results.datasets.items()
    ]
    return f'<div class="grid wide">{"".join(cards)}</div>'


def _unevaluated(dashboard: Dashboard, name: str) -> str:
    dataset = dashboard.results.datasets[name]
    failed = [phase for phase, result in dataset.phases.items() if result.status == "failed"]
    why = f"{failed[0]} failed" if failed else dataset.status.replace("_", " ")
    return _article(name, f'<p class="muted">Not evaluated in this plan: {html.text(why)}.</p>')


def _card(dashboard: Dashboard, name: str) -> str:
    dataset, plan_id = dashboard.results.datasets[name], dashboard.results.plan_id
    standings = {
        model: found
        for model in dataset.metrics
        if (found := standing(dashboard.versions, plan_id, name, model))
    }
    before = {model: found.previous.metrics[model] for model, found in standings.items() if found.previous}
    choice = choose(dataset, before)
    lines = "".join(f"<li>{line}</li>" for line in _lines(dataset, choice, standings.get(choice.model)))
    kind = ", a baseline" if choice.model in BASELINES else ""
    use = f"Use <strong>{html.text(choice.model)}</strong>{kind}" if choice.model else "No model can be named"
    return _article(
        name, f'<p class="use">{use}</p><ul class="reasons">{lines}</ul><p>{_roles(standings)}</p>'
    )


def _article(name: str, content: str) -> str:
    shown = html.text(name)
    return f'<article class="card" data-dataset="{shown}"><h3>{shown}</h3>{content}</article>'


def _lines(dataset: DatasetResult, choice: Choice, found: Standing | None) -> Iterator[str]:
    """Why, in short sentences."""
    if choice.mcc is not None:
        folders = "its one test folder" if choice.num_folders == 1 else f"{choice.num_folders} test folders"
        yield html.text(f"MCC {format_number(choice.mcc)}, mean of {folders}{_false_alarms(choice)}.")
    verdict = fusion_verdict(dataset)
    word = "earned" if verdict.earned else "not earned" if verdict.num_folders else "no verdict"
    yield f"{html.chip(word, 'good' if verdict.earned else 'warn')} {html.text(verdict.sentence())}"
    if choice.model:
        yield _against_previous(choice, found)


def _false_alarms(choice: Choice) -> str:
    if choice.false_alarms_per_hour is None:
        return ""
    low, high = map(format_number, choice.false_alarms_per_hour)
    return f"; {low if low == high else f'{low} to {high}'} false alarms per hour"


def _against_previous(choice: Choice, found: Standing | None) -> str:
    """Whether the model is better than its version before."""
    if found is None or found.previous is None:
        return f"{html.chip('first', '')} There is no earlier version that was evaluated."
    before = f"version {found.previous.number}"
    if not choice.changes:
        chip = html.chip("not comparable", "warn")
        return f"{chip} No test folder with a defined MCC in common with {before}."
    higher = sum(change.improved is True for change in choice.changes)
    lower = sum(change.improved is False for change in choice.changes)
    mean = choice.mean_change
    tone, word = "", "as before"
    if abs(mean) >= _WORTH_TELLING:
        tone, word = ("good", "better") if mean > 0 else ("bad", "worse")
    captures = "" if found.same_captures else "; captures changed since, so test windows may be others"
    return (
        f"{html.chip(word, tone)} Against {before}: MCC {format_change(mean)} on average, higher in {higher} "
        f"and lower in {lower} of {len(choice.changes)} test folders{captures}."
    )


def _roles(standings: dict[str, Standing]) -> str:
    """The version and role of each phase's models."""
    chips = []
    for phase, model in DECIDING_MODEL.items():
        if found := standings.get(model):
            version = found.version
            words = " ".join(filter(None, [phase, f"v{version.number}", version.role]))
            chips.append(html.chip(words, _ROLE_TONES.get(version.role, ""), version.reason))
    return " ".join(chips)
