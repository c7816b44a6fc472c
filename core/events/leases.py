"""Leases: who works on what, among processes that share nothing but a store.

A lease is a stream of numbered signs, of which the last counts. Each is put under the next number if that is
absent: by the holder to say that it lives, by the holder to give the lease back, or by another who takes a
lease that ran out. Of two of them at the same moment one wins, and the other sees it.

A lease ran out when its last sign stayed the last for the lease's time, by the clock of whoever looks: no two
machines' clocks are compared, and steps of the wall clock mean nothing.

::

    {location}/{name}/000000000041.json      the last sign, and the one before it
"""

import contextlib
import json
import logging
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, PositiveInt, TypeAdapter, ValidationError

from core.errors import EventLogError, LeaseHeldError, LeaseLostError
from core.events.stores import SMALL_BYTES, SegmentStore
from settings.resources import LONGEST_LEASE_S

_SIGNS_PER_LEASE = 6
_TRIES_PER_SIGN = 4
_LOOKS_PER_LEASE = 60
_BLOB = re.compile(r"([0-9]{12}|[1-9][0-9]{12,17})\.json")
_LOG = logging.getLogger(__name__)

Clock = Callable[[], float]


@dataclass(frozen=True)
class Holder:
    """A process that holds, or held, a lease.

    Attributes:
        host: Its machine, for people.
        pid: Its number there.
        token: What no other holder has, not even of the same process.
        place: The boot of the machine and the namespace that the number means something in; empty if unknown.
        started: When it was started, as the kernel counts; another process of the number has another.
    """

    host: str
    pid: PositiveInt
    token: str
    place: str
    started: str

    @classmethod
    def here(cls) -> Self:
        """This process, as a holder unlike all before."""
        pid = os.getpid()
        return cls(socket.gethostname(), pid, uuid.uuid4().hex[:12], _place(), _started(pid))

    def __str__(self) -> str:
        """As events name it: ``host:pid:token``."""
        return f"{self.host}:{self.pid}:{self.token}"

    @property
    def is_near(self) -> bool:
        """Whether it runs, or ran, where this process can see it."""
        return bool(self.place) and self.place == _place()

    @property
    def is_gone(self) -> bool:
        """Whether it certainly runs no more; False where that cannot be seen from here."""
        return self.is_near and _started(self.pid) != self.started


@dataclass(frozen=True)
class Sign:
    """What a holder says.

    Attributes:
        holder: Who.
        purpose: What for: the plan.
        lease_s: After this long without another sign the lease has run out, seconds.
        is_last: Whether the lease was given back by it.
    """

    holder: Holder
    purpose: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
    lease_s: Annotated[float, Field(gt=0, le=LONGEST_LEASE_S)]
    is_last: bool = False

    @property
    def is_free(self) -> bool:
        """Whether anybody may take the lease at once."""
        return self.is_last or self.holder.is_gone

    def encode(self) -> bytes:
        """As it is stored."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def decode(content: bytes, place: str) -> "Sign":
        """Read what was stored.

        Raises:
            EventLogError: It is no sign.
        """
        try:
            return _SIGN.validate_json(content)
        except ValidationError as error:
            raise EventLogError(
                f"{place} is no sign of a lease ({error.errors()[0]['msg']}): remove it when nothing works "
                "on this dataset"
            ) from error


_SIGN = TypeAdapter(Sign)


@dataclass
class Lease:
    """A lease that this process took, and holds as long as nobody took it over.

    Args:
        store: Where its signs are.
        name: What it is of.
        number: Number of its last sign.
        sign: What it says.
        renewed_at: When the last sign was begun to be put, by `clock`.
        before: The holder that it was taken over from; None if it was free or given back.
        clock: Seconds that never go back.
    """

    store: SegmentStore
    name: str
    number: int
    sign: Sign
    renewed_at: float
    before: Sign | None = None
    clock: Clock = time.monotonic
    _renewing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def held_until(self) -> float:
        """Until when nobody can have taken it over, by `clock`, with a sign's time to spare."""
        return self.renewed_at + self.sign.lease_s * (1 - 1 / _SIGNS_PER_LEASE)

    def renew(self) -> None:
        """Give a sign of life.

        Raises:
            LeaseLostError: Another process took it over.
            OSError: The store cannot be read or written; it is held as long as before.
            EventLogError: The same.
        """
        with self._renewing:
            began = self.clock()
            self._say(self.sign)
            self.renewed_at = began

    def give_back(self) -> None:
        """Let anybody take it at once; errors as in `renew`."""
        with self._renewing:
            self._say(replace(self.sign, is_last=True))

    def _say(self, sign: Sign) -> None:
        while not put_sign(self.store, self.name, self.number + 1, sign):
            last = last_sign(self.store, self.name)
            if last is None or last[1].holder != self.sign.holder:
                holder = f" {last[1].holder} holds it" if last else ""
                raise LeaseLostError(f"the lease of {self.name} was taken over:{holder or ' it is gone'}")
            self.number = last[0]  # of a sign that was put though the store said that it failed
        self.number += 1


@dataclass(frozen=True)
class Leases:
    """The leases of one store.

    Args:
        store: Where their signs are.
        clock: Seconds that never go back.
        sleep: Waits so many seconds.
    """

    store: SegmentStore
    clock: Clock = time.monotonic
    sleep: Callable[[float], object] = time.sleep

    def take(
        self,
        name: str,
        purpose: str,
        lease_s: float,
        on_wait: Callable[[Sign], object] = lambda sign: None,
    ) -> Lease:
        """Take a lease: at once if it is free, else when it ran out.

        Args:
            name: What it is of.
            purpose: What for.
            lease_s: For how long each sign of life lasts, seconds.
            on_wait: Told once who has to show whether it lives.

        Raises:
            LeaseHeldError: Its holder lives.
            EventLogError: The store cannot be read or written.
        """
        sign = Sign(Holder.here(), purpose, lease_s)
        seen: tuple[int, Sign] | None = None
        seen_at = 0.0
        try:
            while True:
                last = last_sign(self.store, name)
                if last is None or last[1].is_free or (last == seen and self._ran_out(last[1], seen_at)):
                    number, began = last[0] + 1 if last else 0, self.clock()
                    if put_sign(self.store, name, number, sign):
                        before = last[1] if last and not last[1].is_last else None
                        return Lease(self.store, name, number, sign, began, before, self.clock)
                    seen = last or (-1, sign)  # somebody was faster, and shows it by being there
                elif seen is None:
                    seen, seen_at = last, self.clock()
                    on_wait(last[1])
                elif last != seen:
                    raise LeaseHeldError(str(last[1].holder), last[1].purpose)
                self.sleep(min(1.0, seen[1].lease_s / _LOOKS_PER_LEASE))
        except OSError as error:
            raise EventLogError(
                f"cannot take the lease of {name} in {self.store.location}: {error}"
            ) from error

    def _ran_out(self, sign: Sign, seen_at: float) -> bool:
        return self.clock() - seen_at >= sign.lease_s


def last_sign(store: SegmentStore, name: str) -> tuple[int, Sign] | None:
    """Number and content of the sign that counts; None where there never was one.

    Raises:
        OSError: The store cannot be read.
        EventLogError: It is damaged.
    """
    while numbers := _numbers(store, name):
        place = f"{store.location}/{name}/{_blob(numbers[-1])}"
        with contextlib.suppress(FileNotFoundError):  # two later ones were put since
            return numbers[-1], Sign.decode(store.read(name, _blob(numbers[-1]), SMALL_BYTES), place)
    return None


def put_sign(store: SegmentStore, name: str, number: int, sign: Sign) -> bool:
    """Put a sign under a number if it becomes the last one by that, and remove those before its predecessor.

    A number is free again when its sign was removed, which is long after the next: whoever takes it for the
    next one then finds a higher one beside it. The predecessor stays, because a listing is no snapshot.

    Returns:
        Whether it is the last one.

    Raises:
        OSError: The store cannot be read or written.
    """
    if not store.put_if_absent(name, _blob(number), sign.encode()):
        return False
    numbers = _numbers(store, name)
    if numbers[-1] > number:
        store.delete(name, _blob(number))
        return False
    for old in numbers:
        if old < number - 1:
            store.delete(name, _blob(old))
    return True


@contextlib.contextmanager
def renewing(lease: Lease, on_renewed: Callable[[], object], on_lost: Callable[[], object]) -> Iterator[None]:
    """Renew a lease from a thread of its own while the context lasts.

    Args:
        lease: The lease.
        on_renewed: Called after each sign of life, in the thread.
        on_lost: Called when it was found taken over, in the thread.
    """
    ended = threading.Event()
    interval_s = lease.sign.lease_s / _SIGNS_PER_LEASE

    def renew() -> None:
        wait_s, warned = interval_s, False
        while not ended.wait(wait_s):
            try:
                lease.renew()
            except LeaseLostError:
                on_lost()
                return
            except (OSError, EventLogError) as error:
                if not warned:
                    _LOG.warning("the lease of %s cannot be renewed, trying again: %s", lease.name, error)
                wait_s, warned = interval_s / _TRIES_PER_SIGN, True
            else:
                on_renewed()
                wait_s, warned = interval_s, False

    thread = threading.Thread(target=renew, name=f"lease-{lease.name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(interval_s)  # a store that does not answer holds nobody up


def _numbers(store: SegmentStore, name: str) -> list[int]:
    return sorted(int(match[1]) for blob in store.names(name) if (match := _BLOB.fullmatch(blob)))


def _blob(number: int) -> str:
    return f"{number:012d}.json"


def _place() -> str:
    """Boot and process namespace of this process: only there is a process number a name (Linux)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process was started, as the kernel counts; empty if it runs no more (proc(5))."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state in ("Z", "X") else fields[18]
