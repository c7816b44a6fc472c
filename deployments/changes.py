"""What applying did to one thing of the Prefect API: made it, changed it, or left it as it is."""

from typing import Literal, NamedTuple


class Change(NamedTuple):
    """What became of one thing.

    Attributes:
        thing: Its kind and name, such as ``work pool gpu``.
        outcome: ``kept`` is a value that someone else chose and that was respected; ``waiting`` is for
            something that is not there yet.
        detail: What is different now, or what was kept; empty where nothing is to be said.
    """

    thing: str
    outcome: Literal["made", "changed", "unchanged", "kept", "waiting"]
    detail: str = ""

    def __str__(self) -> str:
        """A line for people."""
        return f"{self.outcome:9}  {self.thing}" + (f": {self.detail}" if self.detail else "")


def kept(thing: str, theirs: object, ours: object) -> Change:
    """A value that someone chose and that is not ours to change."""
    return Change(thing, "kept", f"it is {theirs!r}, ours would be {ours!r} (--reset)")
