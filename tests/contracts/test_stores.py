"""What every store promises but what the log, the leases and the shared files ask of it."""

import errno
from collections.abc import Callable

import pytest

from core.events.stores import SegmentStore


def test_a_store_reads_no_more_than_may_be_there(open_store: Callable[[], SegmentStore]) -> None:
    store = open_store()
    for name, content in (("empty", b""), ("full", b"x" * 10), ("larger", b"x" * 11)):
        store.put_if_absent("plan", name, content)
    assert (store.read("plan", "empty", 10), store.read("plan", "full", 10)) == (b"", b"x" * 10)
    with pytest.raises(OSError, match="holds more than 10 bytes") as raised:
        store.read("plan", "larger", 10)
    assert raised.value.errno == errno.EFBIG
