"""Small pieces of HTML; every text passes through ``text``, so no name or message can break out."""

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any


def text(value: object) -> str:
    """Any value as text that is safe between tags and in quoted attributes."""
    return html.escape(str(value), quote=True)


def script_json(content: Any) -> str:
    """JSON that is safe inside a ``<script>`` element."""
    written = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return written.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def section(title: str, *parts: str, lead: str = "") -> str:
    """A titled section; nothing at all where no part has content."""
    body = "\n".join(part for part in parts if part)
    if not body:
        return ""
    intro = f'<p class="muted">{text(lead)}</p>' if lead else ""
    return f"<section><h2>{text(title)}</h2>{intro}\n{body}\n</section>"


def tile(label: str, value: str, note: str = "", tone: str = "") -> str:
    """A key figure; value and note are plain text."""
    small = f"<small>{text(note)}</small>" if note else ""
    return f'<div class="tile"><dt>{text(label)}</dt><dd class="{tone}">{text(value)}{small}</dd></div>'


def chip(status: str, tone: str, why: str = "") -> str:
    """A word in a rounded border; why is told where a pointer rests on it."""
    title = f' title="{text(why)}"' if why else ""
    return f'<span class="chip {tone}"{title}>{text(status)}</span>'


def cell(content: object, css: str = "", heat: float | None = None, note: str = "", tone: str = "") -> str:
    """A table cell of plain text; heat from 0 to 1 tints it, a note in a tone stands small below."""
    classes = " ".join(name for name in (css, "heat" if heat is not None else "") if name)
    style = f' style="--heat:{42 * heat:.0f}"' if heat is not None else ""
    small = f'<small class="{tone}">{text(note)}</small>' if note else ""
    return f"<td{_class(classes)}{style}>{text(content)}{small}</td>"


def row(head: object, cells: Iterable[str], css: str = "") -> str:
    """A table row: its head as plain text, then cells."""
    return f'<tr{_class(css)}><th scope="row">{text(head)}</th>{"".join(cells)}</tr>'


def table(caption: str, columns: Sequence[str], rows: Iterable[str], numeric_from: int, css: str = "") -> str:
    """A table that scrolls inside itself where it is too wide.

    Args:
        caption: What it shows, for screen readers.
        columns: Heads of the columns.
        rows: Rows as HTML.
        numeric_from: Columns from this one on hold numbers.
        css: Class of the table.
    """
    heads = "".join(
        f'<th scope="col"{_class("number" if number >= numeric_from else "")}>{text(name)}</th>'
        for number, name in enumerate(columns)
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(caption)}"><table{_class(css)}>'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def figure(chart_id: str, caption: str, description: str) -> str:
    """The place of a chart."""
    shown = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    label = text(description)
    return (
        f'<figure>{shown}<div class="chart" data-chart="{text(chart_id)}" role="img" aria-label="{label}">'
        "</div></figure>"
    )


def _class(names: str) -> str:
    return f' class="{text(names)}"' if names else ""
