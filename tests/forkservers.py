"""Processes forked from a server that has loaded what takes long: they start, and can be killed, at once."""

import multiprocessing
from multiprocessing.context import ForkServerContext

_LOADED = [
    "core.planning.upkeep.maintenance",
    "tasks.mlflow_registry",
    "tests.kept_outputs",
    "tests.mlflow_helpers",
]
"""All that any test wants: a process that runs several test files has one server, as its first one asked."""


def forkserver() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LOADED)
    return context
