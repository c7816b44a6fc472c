"""What was seen of the scores of recent traffic, as markdown with a picture."""

from itertools import pairwise

from core.analytics.advice.bars import bars_svg, data_uri
from core.analytics.advice.reading import Bar
from core.analytics.drift import Drift
from core.analytics.markdown import plain, table


def drift_markdown(dataset: str, status: str, reason: str, model: str, drift: Drift | None) -> str:
    """One dataset's recent traffic.

    Args:
        dataset: The dataset.
        status: What became of it, in a word or two.
        reason: Why.
        model: Which model scored.
        drift: What was measured; None where nothing could be.
    """
    parts = [f"# {plain(dataset)}: {plain(status)}", plain(reason)]
    if drift is None:
        return "\n\n".join(parts) + "\n"
    longest = max(*drift.recent, *drift.reference)
    bars, rows = [], []
    for (low, high), before, now in zip(pairwise(drift.edges), drift.reference, drift.recent, strict=True):
        scores = f"{low:.2f} to {high:.2f}"
        bars += [
            Bar(f"{scores}, validation", f"{before:.1%}", before / longest),
            Bar(f"{scores}, recent", f"{now:.1%}", now / longest),
        ]
        rows.append([scores, f"{before:.1%}", f"{now:.1%}"])
    parts += [
        f"Scores of {plain(model)}; {drift.alarm_share:.1%} of the recent windows are above its threshold.",
        f"![Shares of windows by score]({data_uri(bars_svg(bars))})",
        table(["score", "benign validation windows", "recent windows"], rows),
    ]
    return "\n\n".join(parts) + "\n"
