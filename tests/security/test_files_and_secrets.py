"""Who may write our files, what they never hold, and that links under their names lead nowhere."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from core.events.files import replace_file
from core.logs import JsonLines, Sentences, logged_to, open_output, without_secrets
from core.resources.process_state import ProcessId, ProcessState, kill_training
from flows.cli import run_command
from settings.errors import RetrainError
from settings.layout import Layout
from tests.commands import ROOT, environment
from tests.kept_outputs import contents, old_plan

SECRETS = {
    "PREFECT_API_KEY": "pnu_key-of-the-api",
    "PREFECT_API_AUTH_STRING": "someone:auth-string-1",
    "PREFECT_SERVER_API_AUTH_STRING": "someone:auth-string-2",
    "AWS_SECRET_ACCESS_KEY": "aws/secret+access=key",
    "AWS_SESSION_TOKEN": "aws-session-token",
    "MLFLOW_TRACKING_PASSWORD": "mlflow-password",
    "AZURE_STORAGE_ACCESS_KEY": "azure-key==",
    "AZURE_STORAGE_CONNECTION_STRING": "AccountName=a;AccountKey=azure-key==",
    "SLACK_WEBHOOK_URL": "https://hooks.example.org/services/T0/B0/webhook-path",
}


@pytest.mark.parametrize("name", SECRETS)
def test_the_value_of_a_secret_variable_is_not_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, SECRETS[name])
    assert without_secrets(f"it said {SECRETS[name]}!") == "it said ***!"


def test_it_is_not_said_in_other_spellings_either(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = 'pass"word\\ö/@1'  # noqa: S105
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", secret)
    record = logging.LogRecord("core", logging.ERROR, "", 0, f"it said {secret}, {[secret]}", None, None)
    address = f"https://host/?next={quote(secret, safe='')}"
    said = JsonLines().format(record) + Sentences().format(record) + json.dumps([secret]) + address
    assert "word" not in without_secrets(said)
    assert json.loads(JsonLines().format(record))["message"] == "it said ***, ['***']"


def test_nothing_that_is_said_moves_the_cursor_or_changes_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "pnu_key-of-the-api")
    text = "\x1b]0;title\x07 \x1b[2J \x9b31m \r \u202e pnu_key-of-the-api"

    def fail() -> int:
        raise RetrainError(text)

    assert run_command(fail) == 1
    record = logging.LogRecord("core", logging.ERROR, "", 0, text, None, None)
    for said in (capsys.readouterr().err, Sentences().format(record)):
        assert all(letter.isprintable() or letter == "\n" for letter in said)
        assert said.rstrip().endswith("***")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:p@ss/word@db:5432/prefect", "postgresql://me:***@db:5432/prefect"),
        ("postgresql+asyncpg://me:pass-word@db/prefect", "postgresql+asyncpg://me:***@db/prefect"),
        ("https://user:p:w@host:5000/?x=1", "https://user:***@host:5000/?x=1"),
        ("https://host/a?token=abc&b=2", "https://host/a?token=***&b=2"),
        ("https://host/?X=1&Password=abc#f", "https://host/?X=1&Password=***#f"),
        ("Authorization: Basic c29tZW9uZTpzZWNyZXQ=", "Authorization: Basic ***"),
        ("{'Authorization': 'Bearer abc.def-ghi'}", "{'Authorization': 'Bearer ***'}"),
        ("http://127.0.0.1:4200/api and file:///a/b", "http://127.0.0.1:4200/api and file:///a/b"),
        ("the token of epoch 3: a password is short", "the token of epoch 3: a password is short"),
    ],
)
def test_passwords_in_addresses_and_headers_are_not_said(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_a_file_that_holds_a_token_may_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/token")
    assert without_secrets("/var/run/token is missing") == "/var/run/token is missing"


def test_a_file_is_put_in_the_place_of_a_link_and_not_written_through_it(tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "results.json"
    victim.write_text("precious")
    link.symlink_to(victim)
    replace_file(link, b"{}")
    assert victim.read_text() == "precious"
    assert not link.is_symlink()


def test_a_log_under_whose_name_a_link_lies_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim, link = tmp_path / "victim", tmp_path / "logs" / "plan.jsonl"
    victim.write_text("precious")
    link.parent.mkdir()
    link.symlink_to(victim)
    with logged_to(link, "core", logging.INFO):
        logging.getLogger("core.test").info("a line")
    with pytest.raises(OSError, match="symbolic links"):
        open_output(link)
    assert victim.read_text() == "precious"
    assert "is incomplete" in capsys.readouterr().err


def test_a_state_file_gets_no_process_killed_but_the_training_of_its_name(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "import time; time.sleep(1e6)",
        "core.resources.worker",
        "plan-other.jsonl",
    ]
    with subprocess.Popen(command, start_new_session=True) as foreign:
        told = ProcessId.of(foreign.pid)
        for name in ("plan-demo", "plan-other"):
            ProcessState(name=name, supervisor=told, log="x", process=told).write(tmp_path)
        kill_training(tmp_path, "plan-demo")
        assert foreign.poll() is None
        kill_training(tmp_path, "plan-other")
        foreign.wait()


@pytest.mark.slow
def test_nobody_else_may_write_what_a_command_writes_whatever_the_umask_was(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "out")
    old_plan(layout, "plan")
    before = contents(layout.root)
    command = 'umask 000; exec "$0" -m flows.analyze --output-dir "$1"'
    shown = subprocess.run(
        ["bash", "-c", command, sys.executable, str(layout.root)],
        cwd=ROOT, env=environment(CAN_RETRAIN__TRACKING__MLFLOW="false"), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    written = [path for path in layout.root.rglob("*") if path.is_file()]
    assert len(written) > len(before)
    assert [str(path) for path in written if path.stat().st_mode & 0o022] == []
