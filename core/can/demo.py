"""The demo dataset: simulated captures in the layout of can-train-and-test."""

import hashlib
import tempfile
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path

import numpy as np
import polars as pl

from core.can.frames import Frames
from core.can.simulator import (
    Attack,
    Vehicle,
    drive,
    flood,
    fuzz,
    masquerade,
    replay,
    spoof,
    suppress,
    transmit,
)
from core.errors import CaptureError
from settings.data import DemoSettings

SIMULATOR_VERSION = 1
"""Raised when the same seed gives other frames than before."""
EPOCH_S = 1_700_000_000
EPISODE_EVERY_S = 10.0

KNOWN: tuple[Attack, ...] = (flood, fuzz, spoof)
CAPTURES: tuple[tuple[str, int, tuple[Attack, ...]], ...] = (
    ("train_01_attack_free/attack-free-1.csv", 0, ()),
    ("train_01_attack_free/attack-free-2.csv", 0, ()),
    ("train_02_with_attacks/DoS-1.csv", 0, (flood,)),
    ("train_02_with_attacks/fuzzing-1.csv", 0, (fuzz,)),
    ("train_02_with_attacks/spoofing-1.csv", 0, (spoof,)),
    ("test_01_known_vehicle_known_attack/DoS-fuzzing-spoofing-1.csv", 0, KNOWN),
    ("test_02_unknown_vehicle_known_attack/DoS-fuzzing-spoofing-2.csv", 1, KNOWN),
    ("test_03_known_vehicle_unknown_attack/replay-1.csv", 0, (replay,)),
    ("test_04_unknown_vehicle_unknown_attack/replay-2.csv", 1, (replay,)),
    ("test_05_suppress/suppress-1.csv", 0, (suppress,)),
    ("test_06_masquerade/masquerade-1.csv", 0, (masquerade,)),
)
"""File, vehicle (0 is known from training, 1 is not) and attacks, which take turns."""


def ensure_demo(demo: DemoSettings) -> Path:
    """Simulate the demo dataset, or find it where it was simulated before from the same settings.

    The files depend on the settings alone, byte for byte. As in the published data a suppressed id leaves no
    labelled frame: whoever scores ``test_05_suppress`` has to score silence, or say that it is unlabelled.

    Args:
        demo: Seed, length and where to keep the files.

    Returns:
        The dataset's folder, complete.

    Raises:
        CaptureError: The folder cannot be written.
    """
    key = f"{SIMULATOR_VERSION}/{demo.seed}/{demo.duration_s!r}"
    folder = demo.cache_dir / f"demo-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    try:
        demo.cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=demo.cache_dir, prefix=".demo-", ignore_cleanup_errors=True
        ) as temp:
            for index, (name, vehicle, attacks) in enumerate(CAPTURES):
                path = Path(temp, folder.name, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_csv(path, simulate(demo, index, vehicle, attacks))
            _move_into_place(Path(temp, folder.name), folder)
    except OSError as error:
        raise CaptureError(
            f"cannot write the demo dataset {folder} (setting data.demo.cache_dir): {error}"
        ) from error
    return folder


def simulate(demo: DemoSettings, index: int, vehicle: int, attacks: Iterable[Attack]) -> Frames:
    """Simulate one capture.

    Args:
        demo: Seed and length.
        index: Number of the capture: other numbers give other drives.
        vehicle: Number of the vehicle.
        attacks: Take turns, one every ten seconds or at least once; each lasts a third of that.

    Returns:
        Its frames, with labels.
    """
    rng = np.random.default_rng([demo.seed, 1, index])
    model = Vehicle.draw(np.random.default_rng([demo.seed, 0, vehicle]))
    traffic = drive(model, demo.duration_s, rng)
    if turns := list(attacks):
        num_episodes = max(len(turns), round(demo.duration_s / EPISODE_EVERY_S))
        every_s = demo.duration_s / num_episodes
        for episode, attack in zip(range(num_episodes), cycle(turns), strict=False):
            start_s = (episode + rng.uniform(0.4, 0.6)) * every_s
            traffic = attack(traffic, model, start_s, start_s + every_s / 3, rng)
    return transmit(traffic, float(EPOCH_S))


def write_csv(path: Path, frames: Frames) -> None:
    """Write frames as a can-train-and-test CSV: 11-bit ids, payloads of up to 8 bytes."""
    microseconds = np.round(frames.timestamp * 1e6).astype(np.int64)
    digits = frames.payload.tobytes().hex().upper().encode()
    hex_ids = pl.Series([f"{number:03X}" for number in range(0x800)])
    pl.DataFrame(
        {
            "seconds": microseconds // 1_000_000,
            "microseconds": microseconds % 1_000_000,
            "arbitration_id": hex_ids.gather(frames.arbitration_id),
            "digits": np.frombuffer(digits, "S16").astype("U16"),
            "length": frames.length,
            "attack": frames.attack,
        }
    ).select(
        timestamp=pl.format("{}.{}", "seconds", pl.col("microseconds").cast(pl.String).str.zfill(6)),
        arbitration_id="arbitration_id",
        data_field=pl.col("digits").str.head(2 * pl.col("length").cast(pl.Int64)),
        attack="attack",
    ).write_csv(path, quote_style="never")


def _move_into_place(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError:
        # Another process was first; its files are the same.
        if not target.is_dir():
            raise
