"""Signals as an interrupt: what runs ends as by Ctrl-C, with everything given back."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


@contextmanager
def interrupted_by(signum: signal.Signals) -> Iterator[None]:
    """Have a signal raise ``KeyboardInterrupt`` within, where it would end the process on the spot.

    A handler that is there already stays, as does everything in threads other than the main one.

    Args:
        signum: The signal.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signum) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signum, _interrupt)
    try:
        yield
    finally:
        signal.signal(signum, signal.SIG_DFL)


def heed_ctrl_c() -> None:
    """Give Ctrl-C back to Python, before the main thread waits for long.

    Polars, once it is loaded, has the kernel go on with what the main thread waits for, and interrupts its
    own work in other threads instead, such as the writing of an event.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, handler)


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    del frame
    raise KeyboardInterrupt(signal.Signals(signum).name)
