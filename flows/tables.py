"""Tables of the terminal: one look for all commands."""

from rich.markup import escape
from rich.table import Table

from core.logs import printable

STYLES = {
    "completed": "green",
    "failed": "red",
    "blocked": "yellow",
    "running": "cyan",
    "pending": "dim",
    "skipped": "dim",
    "interrupted": "yellow",
    "unchanged": "green",
    "unhashed": "yellow",
    "changed": "red",
    "damaged": "red",
    "unreadable": "red",
    "working": "cyan",
    "starting": "cyan",
    "hanging?": "yellow",
    "stopped": "yellow",
    "gone": "red",
    "abandoned": "red",
}
_WHOLE = ("plan", "dataset", "phase", "status", "setting")


def table(title: str, *columns: str) -> Table:
    """An empty table; names are never broken, everything else folds."""
    made = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold", no_wrap=column in _WHOLE)
    return made


def safe(text: str) -> str:
    """Text that is neither markup nor, but for the ends of its lines, anything but printable."""
    return escape("\n".join(map(printable, text.splitlines())))


def styled(status: str) -> str:
    """A status in its colour."""
    return f"[{style}]{status}[/]" if (style := STYLES.get(status)) else status
