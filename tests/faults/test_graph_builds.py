"""Builders of graph stores that are killed, and two that want the same store."""

import multiprocessing
import os
import signal
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from core.can.features import GraphBlock
from core.can.graph_store import open_graph_store
from core.can.graphs import build_graph_store
from core.can.registry import find_captures
from core.can.store_writer import StoreWriter
from core.events.catalogue import Fact, GraphsBuilt
from settings.app import Settings, load_settings
from tests.graph_helpers import random_frames, write_csv

pytestmark = pytest.mark.faults
NUM_FRAMES = 60_000
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    frames = random_frames(NUM_FRAMES)
    write_csv(
        tmp_path / "mine/train_01_attack_free/a.csv", replace(frames, attack=np.zeros(NUM_FRAMES, np.int8))
    )
    write_csv(tmp_path / "mine/train_02_with_attacks/b.csv", frames)
    layout = {"folder": str(tmp_path / "mine"), "tests": ()}
    # Much overlap makes the build long enough to be killed in it.
    graph = {"window": 100, "stride": 2, "embargo_windows": 49}
    return load_settings(data={"datasets": {"mine": layout}}, graph=graph)


def build(settings: Settings, cache_dir: Path, report: Connection | None = None) -> Path:
    facts: list[Fact] = []
    captures = find_captures("mine", settings.data)
    folder = build_graph_store("mine", captures, "d", settings, cache_dir, facts.append)
    if report:
        (built,) = (fact for fact in facts if isinstance(fact, GraphsBuilt))
        report.send((str(folder), built.cached))
    return folder


def build_and_die(settings: Settings, cache_dir: Path) -> None:
    """Build, and be killed with a mebibyte written."""

    def append(self: StoreWriter, block: GraphBlock, capture: int) -> None:
        append_block(self, block, capture)
        if any(path.stat().st_size > 2**20 for path in cache_dir.glob("*.tmp/x.npy")):
            os.kill(os.getpid(), signal.SIGKILL)

    append_block = StoreWriter.append
    StoreWriter.append = append  # type: ignore[method-assign]
    build(settings, cache_dir)


def test_a_killed_build_leaves_no_store_and_the_next_one_cleans_up(
    settings: Settings, tmp_path: Path
) -> None:
    cache_dir = tmp_path / "cache"
    builder = SPAWN.Process(target=build_and_die, args=(settings, cache_dir))
    builder.start()
    builder.join()
    assert builder.exitcode == -signal.SIGKILL
    assert [path.suffix for path in cache_dir.iterdir() if path.is_dir()] == [".tmp"]

    folder = build(settings, cache_dir)
    assert open_graph_store(folder).num_graphs == 2 * ((NUM_FRAMES - 100) // 2 + 1)
    assert [path for path in cache_dir.iterdir() if path.is_dir()] == [folder]


def test_two_builders_at_once_build_one_store(settings: Settings, tmp_path: Path) -> None:
    pipes = [SPAWN.Pipe(duplex=False) for _ in range(2)]
    builders = [
        SPAWN.Process(target=build, args=(settings, tmp_path / "cache", sender)) for _, sender in pipes
    ]
    for builder in builders:
        builder.start()
    reports = [receiver.recv() for receiver, _ in pipes]
    for builder in builders:
        builder.join()
        assert builder.exitcode == 0
    assert len({folder for folder, _ in reports}) == 1
    assert sorted(cached for _, cached in reports) == [False, True]
