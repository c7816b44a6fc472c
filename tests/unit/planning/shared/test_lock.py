"""One plan at a time writes to an output directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.planning.shared.lock import hold, is_held
from settings.errors import RetrainError

HOLDER = """
import sys
from pathlib import Path
from core.planning.shared.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_directory_is_held_by_one_process_and_free_when_that_one_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        assert is_held(tmp_path)
        with (
            pytest.raises(RetrainError, match=f"{holder.pid} is carrying out a plan"),
            hold(tmp_path),
        ):
            pass
        holder.kill()
    assert not is_held(tmp_path)
    with hold(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RetrainError, match=r"cannot write to .*file"), hold(tmp_path / "file"):
        pass
