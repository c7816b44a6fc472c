"""Tables of the terminal: one look for all commands."""

from rich.table import Table

_STYLES = {
    "completed": "green",
    "failed": "red",
    "blocked": "yellow",
    "running": "cyan",
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


def styled(status: str) -> str:
    """A status in its colour."""
    return f"[{style}]{status}[/]" if (style := _STYLES.get(status)) else status
