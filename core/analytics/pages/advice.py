"""Recommended settings, as a section."""

from collections.abc import Iterable, Sequence

from core.analytics import html
from core.analytics.advice.reading import Bar, Piece, Verdict, read
from core.analytics.results import RetrainingResults
from core.events.resource_facts import RecommendationJudged


def recommendation(results: RetrainingResults) -> str:
    """Settings for the next plan: what to change, why, and what earlier advice came to."""
    found = results.recommendation
    if found is None:
        return ""
    reading = read(found, [RecommendationJudged(**fact) for fact in results.judged])
    kept = "".join(f"<li>{html.text(reason)}</li>" for reason in reading.kept)
    folded = f'<details><summary>What else was looked at</summary><ul class="reasons">{kept}</ul></details>'
    parts = [
        f"<p>{html.text(reading.summary)}</p>",
        f'<p class="muted">For {html.text(reading.device_name)}.</p>',
        _grid(map(_piece, reading.changes)),
        f"<h3>What earlier advice came to</h3>{_grid(map(_verdict, reading.verdicts))}"
        if reading.verdicts
        else "",
        (folded if reading.changes else f'<ul class="reasons">{kept}</ul>') if kept else "",
        f"<details><summary>The whole settings file</summary>{_code(reading.settings, 'Settings')}</details>",
    ]
    return "".join(parts)


def _grid(cards: Iterable[str]) -> str:
    return f'<div class="grid halves">{"".join(cards)}</div>'


def _piece(piece: Piece) -> str:
    facts = [
        ("Expected", piece.gain),
        ("Rests on", piece.rests_on),
        ("Confidence", piece.confidence),
        ("Before", piece.record),
    ]
    listed = "".join(f"<p><small>{name}</small> {html.text(value)}</p>" for name, value in facts if value)
    return (
        f'<div class="card"><h3>{html.text(piece.headline)}</h3><p>{html.text(piece.finding)}</p>'
        f"{_bars(piece.bars_title, piece.bars)}{listed}{_code(piece.change, piece.setting)}</div>"
    )


def _verdict(verdict: Verdict) -> str:
    return (
        f'<div class="card"><h3 class="{verdict.tone}">{html.text(verdict.headline)}</h3>'
        f"<p>{html.text(verdict.detail)}</p>{_bars('', verdict.bars)}</div>"
    )


def _bars(title: str, bars: Sequence[Bar]) -> str:
    """Evidence as bars of the page's own colours; its numbers are text beside them."""
    if not bars:
        return ""
    head = f"<p><small>{html.text(title)}</small></p>" if title else ""
    rows = "".join(
        f"<div><dt>{html.text(bar.label)}</dt><dd>{_meter(bar)}{html.text(bar.shown)}</dd></div>"
        for bar in bars
    )
    return f'{head}<dl class="bars">{rows}</dl>'


def _meter(bar: Bar) -> str:
    share = min(1.0, bar.share)
    low, high = (share if end is None else min(1.0, end) for end in (bar.low, bar.high))
    return f'<span class="meter range" style="--share:{share:.3f};--low:{low:.3f};--high:{high:.3f}"></span>'


def _code(content: str, name: str) -> str:
    return f'<pre tabindex="0" aria-label="{html.text(name)}">{html.text(content)}</pre>'
