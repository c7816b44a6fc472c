"""What the commands share."""

import logging
from pathlib import Path

import pytest

from flows.status import status_command

CORE = logging.getLogger("core")


def test_a_command_leaves_the_log_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = CORE.handlers[:], CORE.level, CORE.propagate
    for _ in range(2):
        status_command(["--output-dir", str(tmp_path)])
    assert (CORE.handlers, CORE.level, CORE.propagate) == before
    assert capsys.readouterr().out
