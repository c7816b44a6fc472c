"""Ctrl-C, whatever is loaded and whatever is waited for."""

import subprocess
import sys

from tests.commands import ROOT

_SCRIPT = """
import os, signal, threading, time
import polars
from core.interrupts import heed_ctrl_c

def press() -> None:
    time.sleep(0.5)  # by then it is waited for
    os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
polars.DataFrame({"a": [1]}).lazy().collect()
heed_ctrl_c()
threading.Thread(target=press, daemon=True).start()
try:
    threading.Event().wait()
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_ends_what_is_waited_for_though_polars_is_loaded() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", _SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout == "interrupted\n"
