"""What every payload is, and how it is told."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Base of all payloads."""

    TYPE: ClassVar[str]
    VERSION: ClassVar[int] = 1


Emit: TypeAlias = Callable[[Fact], None]
"""How core functions tell what happened; whoever listens knows the stream."""
