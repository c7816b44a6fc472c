"""Recommended settings, as a section."""

import yaml

from core.analytics import html
from core.analytics.results import RetrainingResults


def recommendation(results: RetrainingResults) -> str:
    """Settings for the next plan, and why."""
    found = results.recommendation
    if found is None:
        return ""
    reasons = "".join(f"<li>{html.text(reason)}</li>" for reason in found.reasons)
    content = yaml.safe_dump(found.settings, sort_keys=True, allow_unicode=True)
    return (
        f'<p>For <strong>{html.text(found.device_name)}</strong>:</p><ul class="reasons">{reasons}</ul>'
        f'<pre tabindex="0" aria-label="Settings">{html.text(content)}</pre>'
    )
