"""A seeded simulator of a vehicle's CAN traffic and of attacks on it.

Everything is columns of numpy arrays; the same seed gives the same frames.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from core.can.frames import CLASSIC_PAYLOAD_BYTES, MAX_STANDARD_ID, Frames

CONSTANT, COUNTER, SIGNAL_HIGH, SIGNAL_LOW, FLAG, CHECKSUM = range(6)
PERIODS_S = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0])
FEWEST_IDS = np.array([13, 7, 3, 5, 2, 1, 2])
MOST_IDS = np.array([16, 10, 6, 10, 5, 4, 5])
"""Ids per period: 33 to 56 ids that send about 2 000 frames a second, half of what 500 kbit/s carry."""
CLOCK_TOLERANCE = 1e-3
"""ECUs keep their own time, to about 0.1 % (ceramic resonators), so ids drift past each other."""
EVENT_SHARE = 0.2
BIT_S = 2e-6
FRAME_BITS = 57
"""Bits of a frame around its payload, with the usual number of stuff bits and the pause after it."""
NUM_WAVES = 3


@dataclass(frozen=True)
class Vehicle:
    """What a vehicle sends, ``K`` ids.

    Attributes:
        ids: uint16 ``[K]`` arbitration ids, rising (the lowest has priority).
        period_s: ``[K]`` time between two frames.
        is_event: bool ``[K]`` ids that send only now and then.
        length: uint8 ``[K]`` payload bytes.
        kind: ``[K, 8]`` what each byte holds, ``CONSTANT`` ...
        constant: uint8 ``[K, 8]`` value of constant bytes, and the flag bit of flag bytes.
        wave_hz: ``[K, 3]`` frequencies of the slow waves a 16-bit signal is made of.
    """

    ids: NDArray[np.uint16]
    period_s: NDArray[np.float64]
    is_event: NDArray[np.bool_]
    length: NDArray[np.uint8]
    kind: NDArray[np.int64]
    constant: NDArray[np.uint8]
    wave_hz: NDArray[np.float64]

    @classmethod
    def draw(cls, rng: Generator) -> "Vehicle":
        """Draw a vehicle."""
        period_s = np.repeat(PERIODS_S, rng.integers(FEWEST_IDS, MOST_IDS + 1))
        num_ids = len(period_s)
        length = np.where(rng.random(num_ids) < 0.75, 8, rng.integers(2, 8, num_ids)).astype(np.uint8)
        kind = np.full((num_ids, CLASSIC_PAYLOAD_BYTES), CONSTANT)
        with_signal = rng.random(num_ids) < 0.6
        kind[with_signal, 0], kind[with_signal, 1] = SIGNAL_HIGH, SIGNAL_LOW
        rows = np.arange(num_ids)
        with_checksum = (length > 4) & (rng.random(num_ids) < 0.5)
        kind[rows[with_checksum], length[with_checksum] - 1] = CHECKSUM
        with_counter = (length > 4) & (rng.random(num_ids) < 0.6)
        kind[rows[with_counter], length[with_counter] - 2] = COUNTER
        with_flag = (length > 4) & (rng.random(num_ids) < 0.4)
        kind[with_flag, 2] = FLAG
        # Fast frames have the lower ids more often than not, as in real vehicles.
        ids = np.sort(rng.choice(np.arange(0x10, MAX_STANDARD_ID), num_ids, replace=False)).astype(np.uint16)
        order = np.argsort(period_s * rng.lognormal(0.0, 1.0, num_ids), kind="stable")
        return cls(
            ids=ids,
            period_s=period_s[order] * (1 + rng.uniform(-CLOCK_TOLERANCE, CLOCK_TOLERANCE, num_ids)),
            is_event=(period_s[order] >= 0.1) & (rng.random(num_ids) < 0.3),
            length=length,
            kind=kind,
            constant=rng.integers(0, 256, kind.shape, np.uint8) & rng.integers(0, 256, kind.shape, np.uint8),
            wave_hz=rng.uniform(0.01, 0.5, (num_ids, NUM_WAVES)),
        )

    def payload(
        self,
        which: NDArray[np.int64],
        count: NDArray[np.int64],
        signal: NDArray[np.uint16],
        flag: NDArray[np.bool_],
    ) -> NDArray[np.uint8]:
        """Payloads uint8 ``[F, 8]`` of frames of the ``which``-th ids, each the ``count``-th of its id."""
        kind = self.kind[which]
        payload = self.constant[which]
        payload = np.where(kind == COUNTER, (count % 16).astype(np.uint8)[:, None], payload)
        payload = np.where(kind == SIGNAL_HIGH, (signal >> 8).astype(np.uint8)[:, None], payload)
        payload = np.where(kind == SIGNAL_LOW, (signal & 0xFF).astype(np.uint8)[:, None], payload)
        payload[(kind == FLAG) & ~flag[:, None]] = 0
        payload[(np.arange(CLASSIC_PAYLOAD_BYTES) >= self.length[which, None]) | (kind == CHECKSUM)] = 0
        checksum = np.bitwise_xor.reduce(payload, axis=1) ^ (self.ids[which] & 0xFF).astype(np.uint8)
        return np.where(kind == CHECKSUM, checksum[:, None], payload)


@dataclass(frozen=True)
class Traffic:
    """Frames that want onto the bus, in any order, ``F`` rows.

    Attributes:
        due_s: ``[F]`` when each is ready to be sent.
        arbitration_id: uint16 ``[F]``.
        length: uint8 ``[F]``.
        payload: uint8 ``[F, 8]``.
        attack: bool ``[F]`` whether the attacker sends it.
        count: ``[F]`` how many frames of the id came before it, -1 for frames of no id of the vehicle.
    """

    due_s: NDArray[np.float64]
    arbitration_id: NDArray[np.uint16]
    length: NDArray[np.uint8]
    payload: NDArray[np.uint8]
    attack: NDArray[np.bool_]
    count: NDArray[np.int64]

    def where(self, rows: NDArray[np.bool_]) -> "Traffic":
        """Some of the frames."""
        return Traffic(**{name: column[rows] for name, column in vars(self).items()})

    def plus(self, other: "Traffic") -> "Traffic":
        """These frames and others."""
        return Traffic(**{k: np.concatenate([column, getattr(other, k)]) for k, column in vars(self).items()})


def drive(vehicle: Vehicle, duration_s: float, rng: Generator) -> Traffic:
    """What a vehicle sends in a drive, without attacks."""
    num_frames = np.ceil(duration_s / vehicle.period_s).astype(np.int64)
    which = np.repeat(np.arange(len(num_frames)), num_frames)
    count = np.arange(len(which)) - np.repeat(np.cumsum(num_frames) - num_frames, num_frames)
    period_s = vehicle.period_s[which]
    phase = rng.random(len(num_frames))[which]
    due_s = (count + phase + rng.normal(0.0, 0.01, len(which)).clip(-0.05, 0.05)) * period_s
    sent = ~vehicle.is_event[which] | (rng.random(len(which)) < EVENT_SHARE)
    sent &= (due_s >= 0) & (due_s < duration_s)
    due_s, which, count = due_s[sent], which[sent], count[sent]
    angles = vehicle.wave_hz[which] * due_s[:, None] + rng.random(vehicle.wave_hz.shape)[which]
    signal = ((np.sin(2 * np.pi * angles).mean(axis=1) + 1.0) * 0x7FFF).astype(np.uint16)
    flag = np.sin(2 * np.pi * angles[:, 0]) > 0.8
    return Traffic(
        due_s=due_s,
        arbitration_id=vehicle.ids[which],
        length=vehicle.length[which],
        payload=vehicle.payload(which, count, signal, flag),
        attack=np.zeros(len(which), bool),
        count=count,
    )


Attack = Callable[[Traffic, Vehicle, float, float, Generator], Traffic]
"""Traffic with an attack between two times, in seconds, on a vehicle."""


def flood(traffic: Traffic, vehicle: Vehicle, start_s: float, end_s: float, rng: Generator) -> Traffic:
    """Denial of service: id 0 wins every arbitration."""
    del vehicle, rng
    due_s = np.arange(start_s, end_s, 0.0005)
    ids = np.zeros(len(due_s), np.uint16)
    return traffic.plus(_injected(due_s, ids, np.zeros((len(due_s), CLASSIC_PAYLOAD_BYTES), np.uint8)))


def fuzz(traffic: Traffic, vehicle: Vehicle, start_s: float, end_s: float, rng: Generator) -> Traffic:
    """Random ids with random payloads."""
    del vehicle
    due_s = np.arange(start_s, end_s, 0.001)
    ids = rng.integers(0, MAX_STANDARD_ID + 1, len(due_s), np.uint16)
    payload = rng.integers(0, 256, (len(due_s), CLASSIC_PAYLOAD_BYTES), np.uint8)
    return traffic.plus(_injected(due_s, ids, payload))


def spoof(traffic: Traffic, vehicle: Vehicle, start_s: float, end_s: float, rng: Generator) -> Traffic:
    """One false frame of an id of the vehicle, over and over, beside the true ones."""
    target = _choose_target(vehicle, rng)
    due_s = np.arange(start_s, end_s, vehicle.period_s[target] / 4)
    which = np.full(1, target)
    signal = rng.integers(0, 0x10000, 1, np.uint16)
    payload = vehicle.payload(which, rng.integers(0, 16, 1), signal, np.ones(1, bool))
    ids = np.full(len(due_s), vehicle.ids[target])
    injected = _injected(due_s, ids, np.repeat(payload, len(due_s), axis=0))
    return traffic.plus(replace(injected, length=np.full(len(due_s), vehicle.length[target])))


def replay(traffic: Traffic, vehicle: Vehicle, start_s: float, end_s: float, rng: Generator) -> Traffic:
    """Frames of five ids recorded just before, sent again beside the true ones."""
    ids = rng.choice(vehicle.ids[vehicle.period_s <= 0.02], 5, replace=False)
    recorded = traffic.where(
        _between(traffic, 2 * start_s - end_s, start_s) & np.isin(traffic.arbitration_id, ids)
    )
    again = replace(recorded, due_s=recorded.due_s + (end_s - start_s), attack=np.ones_like(recorded.attack))
    return traffic.plus(again)


def suppress(traffic: Traffic, vehicle: Vehicle, start_s: float, end_s: float, rng: Generator) -> Traffic:
    """Silence an id: its frames are missing, so no frame is labelled."""
    target = vehicle.ids[_choose_target(vehicle, rng)]
    return traffic.where(~((traffic.arbitration_id == target) & _between(traffic, start_s, end_s)))


def masquerade(traffic: Traffic, vehicle: Vehicle, start_s: float, end_s: float, rng: Generator) -> Traffic:
    """Silence an id and send its frames instead: right period, counter and checksum, but a false signal."""
    target = _choose_target(vehicle, rng)
    rows = np.flatnonzero((traffic.arbitration_id == vehicle.ids[target]) & _between(traffic, start_s, end_s))
    signal = np.full(len(rows), rng.integers(0, 0x10000), np.uint16)
    which, flag = np.full(len(rows), target), np.ones(len(rows), bool)
    payload, attack = traffic.payload.copy(), traffic.attack.copy()
    payload[rows] = vehicle.payload(which, traffic.count[rows], signal, flag)
    attack[rows] = True
    return replace(traffic, payload=payload, attack=attack)


def _choose_target(vehicle: Vehicle, rng: Generator) -> int:
    """A fast id that carries a signal."""
    return int(rng.choice(np.flatnonzero((vehicle.period_s <= 0.02) & (vehicle.kind[:, 0] == SIGNAL_HIGH))))


def _between(traffic: Traffic, start_s: float, end_s: float) -> NDArray[np.bool_]:
    return (traffic.due_s >= start_s) & (traffic.due_s < end_s) & ~traffic.attack


def _injected(
    due_s: NDArray[np.float64], arbitration_id: NDArray[np.uint16], payload: NDArray[np.uint8]
) -> Traffic:
    size = len(due_s)
    return Traffic(
        due_s=due_s,
        arbitration_id=arbitration_id,
        length=np.full(size, CLASSIC_PAYLOAD_BYTES, np.uint8),
        payload=payload,
        attack=np.ones(size, bool),
        count=np.full(size, -1),
    )


def transmit(traffic: Traffic, epoch_s: float) -> Frames:
    """Put traffic on the bus: one frame at a time, the lowest id first among those that wait.

    Frames ready within the time of one frame compete by id. The k-th frame starts when it is due or when the
    one before has ended, ``start_k = max(due_k, start_(k-1) + d_(k-1))``, which is a running maximum of the
    due times less the time on the bus of all earlier frames.

    Args:
        traffic: Frames in any order.
        epoch_s: Time of the capture's beginning, seconds.

    Returns:
        The frames as recorded, in order, with timestamps in whole microseconds.
    """
    duration_s = BIT_S * (FRAME_BITS + 8.0 * traffic.length)
    slot = np.floor(traffic.due_s / (BIT_S * (FRAME_BITS + 64)))
    order = np.lexsort((traffic.arbitration_id, slot))
    busy_s = np.cumsum(duration_s[order]) - duration_s[order]
    start_s = np.maximum.accumulate(traffic.due_s[order] - busy_s) + busy_s
    size = len(order)
    return Frames(
        timestamp=np.round((epoch_s + start_s) * 1e6) / 1e6,
        arbitration_id=traffic.arbitration_id[order].astype(np.uint32),
        extended=np.zeros(size, bool),
        remote=np.zeros(size, bool),
        length=traffic.length[order],
        payload=traffic.payload[order],
        attack=traffic.attack[order].astype(np.int8),
    )
