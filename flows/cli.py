"""The command lines. Nothing heavy is imported before it is known to be needed."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, get_args

from core.errors import EventLogError
from core.events.files import keep_others_out
from core.interrupts import interrupted_by
from core.logs import Sentences, shown
from settings.app import LoadedSettings, Settings, flag_overrides, read_settings
from settings.errors import RetrainError, SettingsError
from settings.names import is_plan_id

if TYPE_CHECKING:
    from prefect import State

DONE, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130


def run_command(command: Callable[[], int], hint: str = "") -> int:
    """Turn what a command raises into one line on stderr and the documented exit code.

    Args:
        command: Does the work and returns an exit code.
        hint: Said after an interrupt.

    Returns:
        0 done, 1 something failed, 2 bad usage or settings, 130 interrupted.
    """
    keep_others_out()
    try:
        with interrupted_by(signal.SIGTERM):
            return command()
    except SettingsError as error:
        print_error(error)
        return BAD_USAGE
    except (RetrainError, OSError) as error:
        print_error(error)
        return FAILED
    except KeyboardInterrupt:
        print(f"interrupted{hint}", file=sys.stderr)
        return INTERRUPTED
    finally:
        hide_progress()


def print_error(problem: object) -> None:
    """Say on stderr what is wrong, without secrets and escape sequences."""
    print(shown(f"error: {problem}"), file=sys.stderr)


def retrain_command(argv: Sequence[str] | None = None) -> int:
    """``python -m flows.retrain``: retrain what is missing or stale.

    Args:
        argv: Arguments; None for those of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m flows.retrain",
        description="Retrain every model that is missing or stale, with settings fitted to this machine.",
        epilog="Exit codes: 0 all done, 1 some phase failed (the rest was done), 2 bad usage or settings, "
        "130 interrupted (resumable).",
    )
    parser.add_argument("--force-retrain", action="store_true", help="retrain all")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and exit")
    parser.add_argument("--datasets", nargs="+", default=[], metavar="NAME", help="only these")
    parser.add_argument("--priority-datasets", nargs="+", default=[], metavar="NAME", help="these first")
    parser.add_argument(
        "--resume",
        type=plan_name,
        metavar="PLAN_ID",
        help="go on with an interrupted plan, as it was planned; `latest` is the newest one",
    )
    parser.add_argument(
        "--data-dir",
        type=folder,
        metavar="DIR",
        help="where captures are; with --resume: where they are now",
    )
    add_environment_argument(parser)
    add_common_arguments(parser, verbose="debug logging, and a live view of plan and machine while it goes")
    arguments = parser.parse_args(argv)
    if arguments.resume:
        planned = ("force_retrain", "dry_run", "datasets", "priority_datasets", "environment")
        for name in planned:
            if getattr(arguments, name):
                parser.error(f"--{name.replace('_', '-')} has no meaning with --resume: the plan is made")
    return run_command(
        lambda: _dry_run(arguments) if arguments.dry_run else _retrain(arguments),
        "; go on with: python -m flows.retrain --resume PLAN_ID (see python -m flows.status)",
    )


def analyze_command(argv: Sequence[str] | None = None) -> int:
    """``python -m flows.analyze``: rebuild a plan's files from its events.

    Args:
        argv: Arguments; None for those of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m flows.analyze",
        description="Rebuild results, dashboard and recommended settings from the event log.",
        epilog="Exit codes: 0 done, 1 some plan or MLflow failed (the rest was done), 2 bad usage or "
        "settings.",
    )
    parser.add_argument("--plan", type=plan_name, metavar="PLAN_ID", help="only this plan")
    add_common_arguments(parser)
    arguments = parser.parse_args(argv)

    def analyze() -> int:
        from core.planning.analysis import analyze_plans
        from core.resources.machine import probe_machine
        from core.resources.profiles import fit_to_machine

        settings = settings_of(arguments)
        tracking = fit_to_machine(settings, probe_machine()).tracking
        written, problems = analyze_plans(settings.output_dir, arguments.plan)
        print(*written, sep="\n")
        for line in left_out(problems):
            print(shown(line), file=sys.stderr)
        if tracking.mlflow:
            from tasks.mlflow_projection import catch_up

            num_events = catch_up(settings.output_dir, tracking, problems)
            print(f"MLflow: {num_events} events projected")
        return FAILED if problems and not arguments.plan else DONE

    return run_command(analyze)


def maintain_command(argv: Sequence[str] | None = None) -> int:
    """``python -m flows.maintain``: compact finished plans and delete what is no longer needed.

    Args:
        argv: Arguments; None for those of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m flows.maintain",
        description="Compact finished plans, delete what is no longer needed (settings group retention), and "
        "see that the disk budget is kept. The event log, models, and what a plan that is not over may still "
        "need are never deleted.",
        epilog="It may run beside plans and be interrupted. Exit codes: 0 done, 1 something could not be "
        "done, or the outputs exceed the budget (the rest was done), 2 bad usage or settings.",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    parser.add_argument(
        "--rebuild", action="store_true", help="first write the dashboards and results of all plans anew"
    )
    add_common_arguments(parser)
    arguments = parser.parse_args(argv)

    def maintain() -> int:
        from core.planning.upkeep.maintenance import describe, maintain_outputs

        settings, dry_run = settings_of(arguments), arguments.dry_run
        report = maintain_outputs(settings, dry_run=dry_run, rebuild=arguments.rebuild)
        for removal in report.removed:
            print("would delete" if dry_run else "deleted", describe(removal, settings.output_dir))
        print(report.summary(dry_run))
        for problem in report.problems:
            print_error(problem)
        return FAILED if report.problems else DONE

    return run_command(maintain)


def add_common_arguments(parser: argparse.ArgumentParser, verbose: str = "debug logging") -> None:
    """Flags that every command has; `verbose` is what that flag does."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file (YAML)")
    parser.add_argument("--output-dir", type=folder, metavar="DIR", help="where outputs go")
    parser.add_argument("--verbose", action="store_true", help=verbose)


def add_environment_argument(parser: argparse.ArgumentParser) -> None:
    """The flag of commands that fit settings to this machine."""
    parser.add_argument(
        "--environment",
        choices=get_args(Settings.model_fields["environment"].annotation),
        help="what to fit settings to: this machine's GPU or CPU (auto), its GPU, its CPU, or a quick run "
        "with the same bits everywhere (ci)",
    )


def plan_name(text: str) -> str:
    """The name of a plan, for ``argparse``: an empty one, as of an unset variable, is a mistake."""
    if not is_plan_id(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no plan" if text else "an empty name is no plan")
    return text


def left_out(problems: Mapping[str, EventLogError]) -> list[str]:
    """What to say about plans that cannot be read, a line each."""
    lines = [f"plan {plan_id} is left out: {error}" for plan_id, error in problems.items()]
    return [*lines, "python -m flows.verify checks the whole event log"] if lines else []


def folder(text: str) -> Path:
    """A folder, for ``argparse``: an empty name, as of an unset variable, is a mistake."""
    if not text:
        raise argparse.ArgumentTypeError("an empty name is no folder")
    return Path(text)


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Settings with what the flags override; the output directory is bound to the storage they name.

    Raises:
        SettingsError: A bad file or value, an output directory that is a file, or one that is bound to other
            storage.
        StorageError: The shared storage that is given cannot be reached.
    """
    from core.events.open import bind_storage

    settings = loaded_of(arguments).settings
    bind_storage(settings)
    return settings


def loaded_of(arguments: argparse.Namespace) -> LoadedSettings:
    """Settings with what the flags override, and where each was given.

    Raises:
        SettingsError: A bad file or value, or an output directory that is a file.
    """
    show_progress(logging.DEBUG if arguments.verbose else logging.INFO)
    flags = (getattr(arguments, name, None) for name in ("data_dir", "output_dir", "environment"))
    loaded = read_settings(arguments.config, **flag_overrides(*flags))
    output_dir = loaded.settings.output_dir
    if output_dir.exists() and not output_dir.is_dir():
        place = loaded.origins.get("output_dir", "its default")
        raise SettingsError(f"output_dir is not a folder: {output_dir} ({place})")
    return loaded


def _dry_run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from core.planning.coordinator import RetrainingCoordinator
    from core.planning.plan_text import print_plan

    coordinator = RetrainingCoordinator(settings_of(arguments))
    coordinator.warn()
    plan = coordinator.create_retraining_plan(
        arguments.force_retrain, arguments.datasets, arguments.priority_datasets
    )
    print_plan(plan, coordinator.estimates(plan), Console())
    return DONE


def _retrain(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from core.analytics.results import fold_results
    from core.analytics.summary import print_results
    from core.planning.coordinator import RetrainingCoordinator
    from core.planning.interrupted import LATEST, newest_interrupted
    from core.planning.live.progress import LOG
    from core.planning.shared.lock import hold

    # Bad usage, and a directory in use or not writable, are said before anything is started.
    coordinator = RetrainingCoordinator(settings_of(arguments))
    if arguments.resume == LATEST:
        arguments.resume = newest_interrupted(coordinator.log)
    if arguments.resume:
        coordinator.resumable(arguments.resume)
    else:
        coordinator.check(arguments.datasets, arguments.priority_datasets)
    log = coordinator.log
    with hold(coordinator.layout.root):
        plans = set(log.streams())
    # The Prefect UI and the orchestrator's log keep Prefect's lines; the terminal shows our progress only.
    if not arguments.verbose:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    LOG.info("starting; the first start of a Prefect server takes a while")
    from flows.server import prefect_api
    from flows.watch import watched_run

    watched = watched_run(coordinator.layout.root, arguments.resume, plans)
    with watched if arguments.verbose else nullcontext(), prefect_api(coordinator.layout.root) as url:
        from flows.retrain import noting_plans, retrain
        from tasks.outages import outlasting

        LOG.info("Prefect API at %s", url)

        def run() -> "State[Any] | None":
            return retrain(
                config=arguments.config,
                data_dir=arguments.data_dir,
                output_dir=arguments.output_dir,
                environment=arguments.environment,
                datasets=arguments.datasets,
                priority_datasets=arguments.priority_datasets,
                force_retrain=arguments.force_retrain,
                resume=arguments.resume,
                return_state=True,
            )

        with noting_plans() as worked_on:
            state = outlasting(run, lambda: None, "the end of the run")
    for plan_id in worked_on:
        print_results(fold_results(log.read(plan_id)), Console())
        page = coordinator.layout.plan_file(plan_id, "dashboard.html")
        if page.exists():  # not of a plan that was broken off
            print(f"dashboard: {page}")
    if state is None:
        left = [plan_id for plan_id in worked_on if coordinator.state(plan_id).status != "completed"]
        if worked_on and not left:
            return DONE
        raise RetrainError(f"Prefect went away, and {' '.join(left) or 'no plan'} was not completed")
    if state.is_completed():
        return DONE
    if state.is_cancelled():
        print(f"interrupted: {state.message}", file=sys.stderr)
        return INTERRUPTED
    error = state.result(raise_on_failure=False)
    raise error if isinstance(error, BaseException) else RetrainError(state.message or "the flow failed")


class _Terminal(logging.StreamHandler[TextIO]):
    """Standard output, for as long as anyone reads it: the work goes on without."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - of the base class
        """Be silent from now on where the reader has gone, as ``head`` does."""
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        else:
            super().handleError(record)


def show_progress(level: int) -> None:
    """Send the progress log to standard output."""
    handler = _Terminal(sys.stdout)
    handler.setFormatter(Sentences("%(asctime)s  %(message)s", "%H:%M:%S"))
    handler.setLevel(level)
    log = logging.getLogger("core")
    log.addHandler(handler)
    log.setLevel(level)
    log.propagate = False


def hide_progress() -> None:
    """Leave the progress log as it was before it was shown: commands can be called one after another."""
    log = logging.getLogger("core")
    for handler in [handler for handler in log.handlers if isinstance(handler, _Terminal)]:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
        log.propagate = True
