"""Signs of progress: work says where it is, and whoever supervises the process looks now and then.

Anything below may say it: it costs less than a microsecond and waits for nobody. Only progress counts as a
sign of life, so it is said where a piece of work is done (a step, a pack, a chunk), never by a timer.
"""

from collections.abc import Mapping
from typing import NamedTuple

Figure = str | int | float


class Beat(NamedTuple):
    """Where work is.

    Attributes:
        what: What is being done, for people: ``training teacher_gat``.
        figures: How far it is: ``epoch``, ``step`` of ``num_steps`` and the like.
        num_graphs: Graphs worked on since the process started.
    """

    what: str
    figures: Mapping[str, Figure]
    num_graphs: int

    def __str__(self) -> str:
        """As a phrase: ``training teacher_gat, epoch 3, step 12 of 50``."""
        totals = {f"num_{name}s" for name in self.figures} & self.figures.keys()
        named = [
            f"{name} {_short(value)}" + (f" of {self.figures[total]}" if total in totals else "")
            for name, value in self.figures.items()
            if name not in totals
            for total in [f"num_{name}s"]
        ]
        return ", ".join([self.what, *named])


_latest = Beat("starting", {}, 0)


def beat(what: str = "", num_graphs: int = 0, **figures: Figure) -> None:
    """Say that a piece of work is done.

    Args:
        what: What is being done; empty for the same as before, a little further.
        num_graphs: Graphs in this piece.
        figures: How far it is.
    """
    global _latest  # noqa: PLW0603 - a process has one pulse
    before = _latest
    _latest = Beat(what or before.what, figures if what else before.figures, before.num_graphs + num_graphs)


def latest() -> Beat:
    """The last sign of progress in this process; the same object until there is another."""
    return _latest


def _short(value: Figure) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
