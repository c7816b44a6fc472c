"""What pages share: legends, tones, places of charts."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from core.analytics import html
from core.analytics.charts.base import Chart
from core.analytics.charts.keys import Key

Place: TypeAlias = Callable[[Chart | None, str, str], str]
"""Takes a chart, its caption and its description, and gives the HTML of its place; nothing for no chart."""

TONES = {"completed": "good", "failed": "bad", "blocked": "warn", "running": "warn", "unfinished": "warn"}
"""CSS class by status."""
_PATHS = {
    "circle": '<circle cx="7" cy="7" r="4.5"/>',
    "triangle-up": '<path d="M7 2 12 11.5H2Z"/>',
    "triangle-down": '<path d="M7 12 12 2.5H2Z"/>',
    "triangle-right": '<path d="M12 7 2.5 12V2Z"/>',
    "diamond": '<path d="M7 1.5 12 7 7 12.5 2 7Z"/>',
    "square": '<path d="M2.5 2.5h9v9h-9Z"/>',
    "cross": '<path d="M5 1.5h4V5h3.5v4H9v3.5H5V9H1.5V5H5Z"/>',
    "line": '<path d="M0 7h14" stroke-width="2.5"/>',
    "dashes": '<path d="M0 7h14" stroke-width="2.5" stroke-dasharray="4 2.5"/>',
}


def legend(keys: Iterable[Key]) -> str:
    """What symbols and colours mean."""
    entries = "".join(f"<li>{symbol(key)}{html.text(key.name)}</li>" for key in keys)
    return f'<ul class="legend">{entries}</ul>'


def symbol(key: Key) -> str:
    """A legend's symbol."""
    return _svg(key, 14, _PATHS[key.symbol])


def line_symbol(key: Key, dash: Sequence[int]) -> str:
    """A legend's symbol on a line of its kind."""
    line = f'<path d="M-9 7H23" fill="none" stroke-dasharray="{" ".join(map(str, dash))}"/>'
    return _svg(key, 32, line + _PATHS[key.symbol])


def _svg(key: Key, width: int, content: str) -> str:
    return (
        f'<svg width="{width}" height="14" viewBox="{(14 - width) // 2} 0 {width} 14" aria-hidden="true" '
        f'stroke="{key.ink}" stroke-width="1.5" fill="{key.ink if key.filled else "none"}">{content}</svg>'
    )
