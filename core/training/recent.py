"""Scores of recent traffic, for the watch on drift; runs in the training process."""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.can.graphs import window_capture
from core.errors import CaptureError
from core.events.fact import Emit
from core.training.detector import Floats, graph_settings, score_windows
from settings.app import Settings
from settings.layout import Layout

_LOG = logging.getLogger(__name__)


def score_recent(
    captures: Sequence[Path], dataset: str, sha256: str, settings: Settings, emit: Emit
) -> tuple[Floats, int, int]:
    """Score the windows of captures with a dataset's fusion agent, until there are enough.

    Args:
        captures: The newest first.
        dataset: Whose models.
        sha256: Of the agent's file: no other is used.
        settings: Where the models are, on which device, how many windows are enough.
        emit: Told nothing: looking leaves no trace in the log.

    Returns:
        float64 ``[K]`` scores, the windows of the oldest capture first; the number of captures that they are
        of, and of those that could not be read.

    Raises:
        ArtifactError: A model file is missing, damaged or another one.
    """
    del emit
    models_dir = Layout(settings.output_dir).saved_models
    graph = graph_settings(models_dir, dataset, sha256)
    scored: list[Floats] = []
    refused = 0
    for capture in captures:
        with tempfile.TemporaryDirectory() as folder:
            try:
                store = window_capture(capture, Path(folder), graph, settings.data)
            except CaptureError as error:
                _LOG.warning("recent traffic is left out: %s", error)
                refused += 1
                continue
            found = score_windows(store, models_dir, dataset, settings.training, sha256)
        scored.insert(0, found.scores["fusion"][-settings.drift.max_windows :])
        if sum(map(len, scored)) >= settings.drift.max_windows:
            break
    scores = np.concatenate(scored) if scored else np.empty(0)
    return scores[-settings.drift.max_windows :], len(scored), refused
