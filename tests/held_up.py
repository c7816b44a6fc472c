"""Retraining that waits at facts of one's choice, while a test does what it has to.

``python -m tests.held_up`` is ``python -m flows.retrain``, and ``tests.held_up.retrain`` its flow.
What they wait for is in their environment: `Gates.variables`.
"""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from core.events.catalogue import Fact

_FACTS, _FOLDER = "HELD_UP_AT", "HELD_UP_IN"


@dataclass(frozen=True)
class Gates:
    """Where it waits.

    Attributes:
        folder: Where a gate that was opened leaves a file.
        facts: ``FACT_TYPE/PHASE``, each as often as it happens until its gate is open.
    """

    folder: Path
    facts: tuple[str, ...]

    @property
    def variables(self) -> dict[str, str]:
        return {_FACTS: " ".join(self.facts), _FOLDER: str(self.folder)}

    def open(self, fact: str) -> None:
        assert fact in self.facts
        self._file(fact).touch()

    def wait_at(self, fact: Fact) -> None:
        if (name := name_of(fact)) in self.facts:
            while not self._file(name).exists():
                time.sleep(0.05)

    def _file(self, fact: str) -> Path:
        return self.folder / f"{fact.replace('/', '-')}.open"


def name_of(fact: Fact) -> str:
    """``FACT_TYPE/PHASE``, or ``FACT_TYPE`` of what belongs to no phase."""
    return f"{fact.TYPE}/{getattr(fact, 'phase', '')}".rstrip("/")


if _FACTS in os.environ:
    from core.planning.chain import Chain
    from flows.cli import retrain_command

    gates = Gates(Path(os.environ[_FOLDER]), tuple(os.environ[_FACTS].split()))
    emit = Chain.emit

    def emit_and_wait(self: Chain, fact: Fact) -> None:
        emit(self, fact)
        gates.wait_at(fact)

    Chain.emit = emit_and_wait  # type: ignore[method-assign]
    if __name__ == "__main__":
        sys.exit(retrain_command())
    from flows.retrain import retrain  # noqa: F401 - what a deployment names
