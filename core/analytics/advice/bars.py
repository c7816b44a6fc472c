"""Evidence as a small picture, for places that show pictures but no styles."""

import base64
from collections.abc import Sequence

from core.analytics.advice.reading import Bar
from core.analytics.html import text
from core.analytics.theme import FONT

_WIDTH, _ROW, _BAR = 440, 22, 150
_INK, _FAINT, _ACCENT = "#7a828e", "#aab1bb", "#3d7fe0"
"""In the middle between light and dark: the picture does not know what it is shown on."""
_PX_PER_LETTER = 6.6


def bars_svg(bars: Sequence[Bar]) -> str:
    """Horizontal bars with their names and numbers; where there are bounds, a line from one to the other."""
    labels = max((len(bar.label) for bar in bars), default=0)
    left = min(190.0, 10 + _PX_PER_LETTER * labels)
    rows = "".join(_row(bar, number * _ROW, left) for number, bar in enumerate(bars))
    height = _ROW * len(bars)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="{FONT}" font-size="12" fill="{_INK}">{rows}</svg>'
    )


def data_uri(svg: str) -> str:
    """A picture as an address that holds it."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _row(bar: Bar, top: float, left: float) -> str:
    middle = top + _ROW / 2
    label = bar.label if len(bar.label) <= 27 else bar.label[:26] + "…"
    bounds = ""
    if bar.low is not None and bar.high is not None and bar.low < bar.high:
        low, high = (f"{left + _BAR * min(1.0, end):.1f}" for end in (bar.low, bar.high))
        bounds = (
            f'<path d="M{low} {middle:.0f}H{high}M{low} {middle - 4:.0f}v8M{high} {middle - 4:.0f}v8" '
            f'stroke="{_INK}" stroke-width="1.5"/>'
        )
    return (
        f'<text x="0" y="{middle + 4:.0f}">{text(label)}</text>'
        f'<rect x="{left:.1f}" y="{top + 5:.0f}" width="{_BAR}" height="12" rx="2" fill="{_FAINT}" '
        f'fill-opacity="0.3"/><rect x="{left:.1f}" y="{top + 5:.0f}" '
        f'width="{_BAR * min(1.0, bar.share):.1f}" height="12" rx="2" fill="{_ACCENT}"/>{bounds}'
        f'<text x="{left + _BAR + 8:.1f}" y="{middle + 4:.0f}">{text(bar.shown)}</text>'
    )
