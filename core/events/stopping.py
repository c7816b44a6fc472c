"""A wish that work ends soon, and work that ends where it can be gone on with.

A process is asked once, and has nothing else to do afterwards.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(BaseException):
    """Work ended because it was asked to."""


class _Wish:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.is_asked = self.is_heeded = False


_wish = _Wish()


def ask_to_stop() -> bool:
    """Ask the work of this process to end soon.

    Returns:
        Whether it will (see `heeding_stops`); work that would not is best ended on the spot.
    """
    with _wish.lock:
        _wish.is_asked = True
        return _wish.is_heeded


def stop_asked() -> bool:
    """Whether work was asked to end."""
    return _wish.is_asked


def heed_stop() -> None:
    """End work that was asked to.

    Raises:
        Stopped: It was.
    """
    if _wish.is_asked:
        raise Stopped


@contextmanager
def heeding_stops() -> Iterator[None]:
    """Say that the work within looks at `stop_asked`, and keeps what it has done before it ends.

    Raises:
        Stopped: It was asked to end, and has not done so.
    """
    with _wish.lock:
        heed_stop()
        _wish.is_heeded = True
    try:
        yield
    finally:
        with _wish.lock:
            _wish.is_heeded = False
    heed_stop()
