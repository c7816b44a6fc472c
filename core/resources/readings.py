"""How something is measured: each question gives some fields of a sample, or the reason why not."""

import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import psutil
import pynvml

MIB = 2**20
ERRORS = (pynvml.NVMLError, psutil.Error, OSError, ValueError)
"""What a question may raise; the driver, the kernel or psutil does not tell."""


@dataclass(frozen=True)
class Missing:
    """Stands in for a value that could not be measured."""

    reason: str


NEEDS_TWO = Missing("needs two samples")

Question: TypeAlias = tuple[tuple[str, ...], Callable[[], Sequence[Any]]]
"""Fields of a sample, and what gives a value, or ``Missing``, for each of them."""


@dataclass
class Readings:
    """Values of fields, and why the others have none."""

    values: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def ask(
        self, questions: Iterable[Question], failed: Callable[[Exception], None] = lambda _: None
    ) -> None:
        """Ask one after the other; one that fails keeps none of the others.

        Args:
            questions: What to ask.
            failed: Told of every error.
        """
        for names, question in questions:
            try:
                answers = question()
            except ERRORS as error:
                failed(error)
                answers = [Missing(str(error) or type(error).__name__)] * len(names)
            for name, answer in zip(names, answers, strict=True):
                if isinstance(answer, Missing):
                    self.reasons[name] = answer.reason
                else:
                    self.values[name] = answer


class Rates:
    """Turns counters that only grow into means per second since they were last read.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, tuple[float, Mapping[Hashable, Sequence[float]]]] = {}

    def per_s(self, name: str, counters: Mapping[Hashable, Sequence[float]]) -> list[float] | None:
        """Sum the growth of several bearers' counters.

        Args:
            name: Whose counters they are.
            counters: The same counters of each bearer, for example of each process. One that was not there
                the last time, or is gone, is left out.

        Returns:
            Growth per second of each counter; None where no bearer was there the last time too.
        """
        now = self._clock()
        then, before = self._last.get(name, (now, {}))
        self._last[name] = now, counters
        both = counters.keys() & before.keys()
        if not both or now <= then:
            return None
        growth = (
            [max(0.0, new - old) for new, old in zip(counters[b], before[b], strict=True)] for b in both
        )
        return [sum(column) / (now - then) for column in zip(*growth, strict=True)]
