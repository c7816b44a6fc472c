"""All pages that are made from the code; the same code gives the same bytes."""

from pathlib import Path

from docs.generate.commands_page import commands_page
from docs.generate.events_page import events_page
from docs.generate.outputs_page import outputs_page
from docs.generate.settings_page import settings_page

FOLDER = Path(__file__).resolve().parents[1] / "reference"


def reference_pages() -> dict[str, str]:
    """Every page by the name of its file in ``FOLDER``."""
    return {
        "settings.md": settings_page(),
        "events.md": events_page(),
        "outputs.md": outputs_page(),
        "commands.md": commands_page(),
    }
