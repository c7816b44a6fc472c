"""Where flow and task runs log to: the Prefect UI, and the files of the plan that they work on."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging.handlers import APILogHandler

from core.events.files import keep_others_out
from core.logs import Sentences, identified, logged_to
from core.planning.live.progress import plan_logged
from settings.layout import Layout


@contextmanager
def run_logged(layout: Layout, plan_id: str) -> Iterator[None]:
    """Keep what is logged in a flow run: ours in the UI too, Prefect's in the orchestrator's file.

    It is the same however the flow run was started: by a command, by a worker, or from a script.

    Args:
        layout: The plan's output directory.
        plan_id: The plan.
    """
    file = layout.orchestrator_logs / f"{plan_id}.jsonl"
    with run_identified(), shown_in_ui(), plan_logged(layout, plan_id), logged_to(file, "prefect"):
        yield


@contextmanager
def run_identified() -> Iterator[None]:
    """Put the ids of the flow run and task run at hand into every record that is logged within."""
    keep_others_out()  # whoever started it
    flow_run, task_run = FlowRunContext.get(), TaskRunContext.get()
    with identified(
        flow_run_id=str(flow_run.flow_run.id) if flow_run and flow_run.flow_run else None,
        task_run_id=str(task_run.task_run.id) if task_run else None,
    ):
        yield


@contextmanager
def shown_in_ui() -> Iterator[None]:
    """Send what ``core`` logs to the Prefect API, as sentences, unless that is set up already."""
    log = logging.getLogger("core")
    if any(isinstance(handler, APILogHandler) for handler in log.handlers):
        yield
        return
    handler = APILogHandler(logging.INFO)
    handler.addFilter(_is_in_a_run)
    handler.setFormatter(Sentences())
    before = log.level
    if not log.isEnabledFor(logging.INFO):  # as in a worker's process
        log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def _is_in_a_run(record: logging.LogRecord) -> bool:
    """Whether the API could tell which run a record belongs to."""
    del record
    return bool(FlowRunContext.get() or TaskRunContext.get())
