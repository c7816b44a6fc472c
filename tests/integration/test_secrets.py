"""Secrets in the environment and in settings are in nothing that a plan leaves behind, whatever fails."""

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.commands import ROOT, run
from tests.integration.conftest import PLANTED

pytestmark = pytest.mark.slow


def shapes(secret: str) -> Iterator[bytes]:
    """A secret as it may be written: plainly, in an address, in a header."""
    yield secret.encode()
    yield quote(secret, safe="").encode()
    yield base64.b64encode(secret.encode()).rstrip(b"=")


def leaks(root: Path, *secrets: str) -> list[str]:
    """Files below a folder, databases and pictures included, that hold a secret in any shape."""
    found = []
    for path in sorted(root.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            found += [
                f"{path.relative_to(root)}: {secret}"
                for secret in secrets
                if any(shape in content for shape in shapes(secret))
            ]
    return found


def test_nothing_that_a_plan_leaves_behind_holds_a_secret_of_the_environment(finished: Path) -> None:
    assert (finished / "mlflow.db").exists()
    assert list((finished / "prefect").glob("*.db"))
    assert leaks(finished.parent, *PLANTED.values()) == []


def test_this_test_would_find_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"..." + base64.b64encode(b"someone:planted-auth-string") + b"...")
    assert leaks(tmp_path, *PLANTED.values()) == ["a: someone:planted-auth-string"]


def test_only_its_owner_may_look_into_the_home_of_the_local_server(finished: Path) -> None:
    assert (finished / "prefect").stat().st_mode & 0o077 == 0


def test_the_password_of_an_mlflow_that_is_away_is_said_by_no_command(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished / "events", out / "events")
    known = {
        "CAN_RETRAIN__TRACKING__MLFLOW_URI": "http://me:planted-uri-password@127.0.0.1:9",
        "CAN_RETRAIN__TRACKING__MLFLOW_LIMIT_S": "3",
    }
    printed = tmp_path / "printed"
    printed.mkdir()
    for number, arguments in enumerate(
        (
            ("flows.analyze",),
            ("flows.config", "--json"),
            ("flows.config", "--write", str(printed / "written.yaml")),
            ("flows.retrain", "--dry-run", "--datasets", "demo"),
        )
    ):
        shown = run(*arguments, "--output-dir", str(out), cwd=ROOT, **known)
        (printed / str(number)).write_text(shown.stdout + shown.stderr)
    assert "MLflow" in (printed / "0").read_text()
    assert leaks(tmp_path, "planted-uri-password") == []
