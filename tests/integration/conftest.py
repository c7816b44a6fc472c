"""A finished plan, carried out once for all tests that only look at it."""

from pathlib import Path

import pytest

from tests.commands import ROOT, TINY, config, run

PLANTED = {
    "PREFECT_API_AUTH_STRING": "someone:planted-auth-string",
    "PREFECT_API_KEY": "pnu_planted-key-of-the-api",
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDACCESSKEY",
    "AWS_SECRET_ACCESS_KEY": "planted/secret+access=key",
    "AWS_SESSION_TOKEN": "planted-session-token",
    "MLFLOW_TRACKING_USERNAME": "planted-username",
    "MLFLOW_TRACKING_PASSWORD": "planted-mlflow-password",
    "SOME_WEBHOOK_URL": "https://hooks.example.org/planted-path",
}
"""Secrets in the environment of the finished plan, which nothing of it may hold."""


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output directory of a finished plan: the demo, and a dataset whose folder is missing."""
    folder = tmp_path_factory.mktemp("retrain")
    broken = {"demo": TINY["data"]["demo"], "datasets": {"broken": {"folder": "nowhere"}}}
    settings = config(folder, data=broken)
    shown = run(
        "flows.retrain", "--config", str(settings), "--datasets", "broken", "demo",
        "--output-dir", str(folder / "out"), cwd=ROOT, **PLANTED,
    )  # fmt: skip
    (folder / "stdout").write_text(shown.stdout)
    (folder / "stderr").write_text(shown.stderr)
    assert shown.returncode == 1, shown.stdout + shown.stderr
    return folder / "out"
