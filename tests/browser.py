"""A real browser."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

_CHROMIUM = Path("/usr/bin/chromium")
_PATIENCE_MS = 240_000.0
"""Far longer than anything here takes, however busy the machine is."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium; the test is skipped where there is none."""
    if not _CHROMIUM.exists():
        pytest.skip(f"no browser at {_CHROMIUM}")
    expect.set_options(timeout=_PATIENCE_MS)
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(
            executable_path=_CHROMIUM, args=["--no-sandbox", "--disable-gpu"], timeout=_PATIENCE_MS
        ) as browser,
    ):
        yield browser


def patient(page: Page) -> Page:
    """A page that is waited for as long as a busy machine takes."""
    page.set_default_timeout(_PATIENCE_MS)
    return page
