"""What a plan says of the code that made it."""

import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from core.planning.machine import checkout_commit, describe_machine
from core.resources.machine import probe_machine
from settings.app import Settings


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "code.py").write_text("x = 1\n")
    for arguments in (
        ("init", "--quiet"),
        ("add", "code.py"),
        ("-c", "user.name=n", "-c", "user.email=e", "commit", "--quiet", "-m", "m"),
    ):
        subprocess.run(["git", "-C", str(root), *arguments], check=True)
    return root


def head(root: Path) -> str:
    asked = ["git", "-C", str(root), "rev-parse", "HEAD"]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


def test_a_checkout_names_its_commit(checkout: Path) -> None:
    assert checkout_commit(checkout) == head(checkout)


def test_changed_code_is_not_the_commits(checkout: Path) -> None:
    (checkout / "code.py").write_text("x = 2\n")
    assert checkout_commit(checkout) == f"{head(checkout)}-dirty"


def test_a_repository_that_the_code_merely_lies_in_is_not_its_own(checkout: Path) -> None:
    (checkout / "venv").mkdir()
    assert checkout_commit(checkout / "venv") == ""


def test_a_repository_without_commits_and_a_machine_without_git_have_no_commit(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty" / ".git").mkdir(parents=True)
    assert checkout_commit(tmp_path / "empty") == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert checkout_commit(checkout) == ""


def test_a_plans_machine_names_the_release() -> None:
    described = describe_machine(probe_machine(), Settings().training)
    assert described["code_version"] == version("can-ids-retrain")
    assert isinstance(described["code_commit"], str)
