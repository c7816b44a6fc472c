"""A finished plan, carried out once for all tests that only look at it."""

from pathlib import Path

import pytest

from tests.commands import TINY, config, run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output directory of a finished plan: the demo, and a dataset whose folder is missing."""
    folder = tmp_path_factory.mktemp("retrain")
    broken = {"demo": TINY["data"]["demo"], "datasets": {"broken": {"folder": "nowhere"}}}
    settings = config(folder, data=broken)
    shown = run(
        "flows.retrain", "--config", str(settings), "--datasets", "broken", "demo",
        "--output-dir", str(folder / "out"),
    )  # fmt: skip
    (folder / "stdout").write_text(shown.stdout)
    (folder / "stderr").write_text(shown.stderr)
    assert shown.returncode == 1, shown.stdout + shown.stderr
    return folder / "out"
