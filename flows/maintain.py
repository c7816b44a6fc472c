"""Compaction, retention and the disk budget: the flow, and the command ``python -m flows.maintain``."""

import sys

if __name__ == "__main__":  # files need no Prefect; the flow adds its run and its log
    from flows.cli import maintain_command

    sys.exit(maintain_command())

from prefect import State, flow, get_run_logger

from core.planning.upkeep.maintenance import describe, maintain_outputs
from flows.parameters import File, StartJitter
from settings.app import flag_overrides, load_settings
from settings.errors import RetrainError
from tasks.logs import run_identified, shown_in_ui
from tasks.schedule import wait_for_turn


@flow(name="maintain", flow_run_name="maintain")
def maintain(
    config: File = None,
    output_dir: File = None,
    dry_run: bool = False,
    rebuild: bool = False,
    start_jitter_s: StartJitter = 0,
) -> str | State[str]:
    """Compact finished plans, delete what is no longer needed, and see that the disk budget is kept.

    The event log, models, and what a plan that is not over may still need are never deleted. It may run
    beside plans, on several machines, and be cancelled at any moment. The settings group `retention` says how
    long things are kept.

    Args:
        config: Settings file (YAML) on the machine that is maintained. None: the defaults and the environment
            variables of its worker.
        output_dir: Folder of models, event log and dashboards. Wins over the settings file.
        dry_run: Only say what would be deleted.
        rebuild: First write dashboards, results and recommended settings of all plans anew.
        start_jitter_s: For schedules: most seconds that a run waits before it begins; other runs never wait.

    Returns:
        What was done, in a sentence; the state `Skipped` where a newer run of the schedule is due as well.

    Raises:
        RetrainError: There is no output directory, or it cannot be written; or something could not be done or
            the outputs exceed the budget, and the rest was done.
    """
    if skipped := wait_for_turn(start_jitter_s):
        return skipped
    settings = load_settings(config, **flag_overrides(None, output_dir))
    with run_identified(), shown_in_ui():
        report = maintain_outputs(settings, dry_run=dry_run, rebuild=rebuild)
    for removal in report.removed:
        said = describe(removal, settings.output_dir)
        get_run_logger().info("%s %s", "would delete" if dry_run else "deleted", said)
    if report.problems:
        raise RetrainError("; ".join([*report.problems, report.summary(dry_run)]))
    get_run_logger().info(report.summary(dry_run))
    return report.summary(dry_run)
