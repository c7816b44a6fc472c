"""Where each output lives below the output directory."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """Paths of one output directory; nothing is created by naming it.

    Attributes:
        root: The output directory.
    """

    root: Path

    @property
    def events(self) -> Path:
        """The event log: with checkpoints and models the only truth."""
        return self.root / "events"

    @property
    def leases(self) -> Path:
        """Who works on which dataset, and that they live; not where shared storage has them."""
        return self.root / "leases"

    @property
    def telemetry(self) -> Path:
        """Resource samples: part of the log, in a folder of their own that is no stream."""
        return self.events / "telemetry"

    @property
    def unshared_telemetry(self) -> Path:
        """Resource samples of chains that are worked on here, where shared storage has the rest."""
        return self.root / "unshared_telemetry"

    @property
    def saved_models(self) -> Path:
        """Best models of each dataset."""
        return self.root / "saved_models"

    @property
    def checkpoints(self) -> Path:
        """Versioned checkpoints."""
        return self.root / "checkpoints"

    @property
    def graphs(self) -> Path:
        """Graph stores by digest; a cache."""
        return self.root / "graphs"

    @property
    def generated_configs(self) -> Path:
        """Recommended settings, ready for ``--config``."""
        return self.root / "generated_configs"

    @property
    def coordinator_logs(self) -> Path:
        """What plans decided and came to: JSON lines, a file per plan."""
        return self.root / "coordinator_logs"

    @property
    def orchestrator_logs(self) -> Path:
        """Flows, tasks and the local Prefect server: JSON lines, a file per plan and one for the server."""
        return self.root / "orchestrator_logs"

    @property
    def process_logs(self) -> Path:
        """What the training processes logged (JSON lines) and printed, and why they failed."""
        return self.root / "process_logs"

    @property
    def watched(self) -> Path:
        """What the sensors saw last: captures that they told of, and how scores of recent traffic lie."""
        return self.root / "watched"

    @property
    def prefect_home(self) -> Path:
        """Database of the local Prefect server."""
        return self.root / "prefect"

    def plan_file(self, plan_id: str, ending: str) -> Path:
        """A plan's own projection, for example ``plan_file(plan_id, "results.json")``."""
        return self.root / f"{plan_id}_{ending}"
