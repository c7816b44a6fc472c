"""One of several machines that share a storage, which carries out a plan.

``python -m tests.host CONFIG OUTPUT_DIR PLAN_ID [MODEL]`` is lost at once when MODEL's first checkpoint is in
the log.
"""

import os
import signal
import sys
from pathlib import Path

from core.events.catalogue import CheckpointWritten, Fact
from core.planning.coordinator import RetrainingCoordinator
from settings.app import load_settings


def main(config: str, output_dir: str, plan_id: str, model: str = "") -> None:
    def listen(fact: Fact) -> None:
        if isinstance(fact, CheckpointWritten) and fact.model == model:
            os.kill(os.getpid(), signal.SIGKILL)

    coordinator = RetrainingCoordinator(load_settings(Path(config), output_dir=Path(output_dir)))
    print(coordinator.resume_retraining_plan(plan_id, listener=listen).status)


if __name__ == "__main__":
    main(*sys.argv[1:])
