"""Score a capture with the trained models: ``python -m flows.detect CAPTURE --dataset NAME``."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import polars as pl

from core.errors import ArtifactError
from flows.cli import DONE, add_common_arguments, run_command, settings_of
from settings.app import Settings
from settings.errors import SettingsError
from settings.layout import Layout

_WRITERS: Mapping[str, Callable[[pl.DataFrame, Path], object]] = {
    ".csv": lambda table, path: table.write_csv(path),
    ".parquet": lambda table, path: table.write_parquet(path),
}


def detect_command(argv: Sequence[str] | None = None) -> int:
    """Score every window of a capture, print the alarms, and write all scores if asked to.

    Args:
        argv: Arguments; None for those of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m flows.detect", description="Score a capture with a dataset's trained models."
    )
    parser.add_argument("capture", type=Path, help="capture file of any readable format")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="whose models")
    parser.add_argument("--scores", type=Path, metavar="FILE", help="a row per window (.csv or .parquet)")
    add_common_arguments(parser)
    arguments = parser.parse_args(argv)
    return run_command(
        lambda: _detect(arguments.capture, arguments.dataset, arguments.scores, settings_of(arguments))
    )


def score_capture(capture: Path, dataset: str, settings: Settings) -> pl.DataFrame:
    """Score every window of a capture.

    Args:
        capture: The file.
        dataset: Whose models to use.
        settings: Where the models are, how many bad rows are borne, on which device.

    Returns:
        A row per window: ``t_start_s``, ``t_end_s`` (as in the capture), ``alarm`` and a score per model.

    Raises:
        CaptureError: The capture cannot be read.
        ArtifactError: The dataset's models are missing, damaged, or not those that the log tells of.
    """
    from core.can.graphs import window_capture
    from core.events.open import open_log
    from core.planning.phases import FUSION, STUDENT
    from core.planning.registry_view import registry_view
    from core.planning.shared.files import fetch_models
    from core.training.detector import graph_settings, score_windows

    layout = Layout(settings.output_dir)
    log = open_log(layout)
    models = registry_view(log).models
    if (dataset, FUSION) not in models:
        known = ", ".join(sorted(name for name, phase in models if phase == FUSION)) or "none"
        raise ArtifactError(
            f"there is no finished model of {dataset!r} in {log.location}; there are models of: {known}"
        )
    sha256 = models[dataset, FUSION].sha256
    fetch_models(layout, dataset, (STUDENT, FUSION))
    models_dir = layout.saved_models
    graph = graph_settings(models_dir, dataset, sha256)
    with tempfile.TemporaryDirectory() as folder:
        store = window_capture(capture, Path(folder), graph, settings.data)
        found = score_windows(store, models_dir, dataset, settings.training, sha256)
        columns = {"t_start_s": store.t_start.copy(), "t_end_s": store.t_end.copy(), "alarm": found.alarm}
        return pl.DataFrame({**columns, **found.scores})


def _detect(capture: Path, dataset: str, scores: Path | None, settings: Settings) -> int:
    if scores and (scores.suffix not in _WRITERS or not scores.parent.is_dir()):
        raise SettingsError(f"--scores {scores}: name a .csv or .parquet file in an existing folder")
    table = score_capture(capture, dataset, settings)
    if scores:
        _WRITERS[scores.suffix](table, scores)
    began = table["t_start_s"][0]
    episodes = (
        table.with_columns(episode=pl.col("alarm").rle_id())
        .filter("alarm")
        .group_by("episode", maintain_order=True)
        .agg(
            pl.col("t_start_s").first() - began,
            pl.col("t_end_s").last() - began,
            windows=pl.len(),
            highest_score=pl.col("fusion").max(),
        )
    )
    print(f"{table.height} windows, {int(table['alarm'].sum())} alarms in {episodes.height} episodes")
    for row in episodes.iter_rows(named=True):
        start, end = (timedelta(seconds=round(row[name], 3)) for name in ("t_start_s", "t_end_s"))
        print(f"  {start} to {end}: {row['windows']} windows, highest score {row['highest_score']:.3f}")
    return DONE


if __name__ == "__main__":
    sys.exit(detect_command())
