"""The log when those who use it are killed.

``LOG_KILL_ROUNDS=20`` kills thousands of processes instead of hundreds.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.events.log import EventLog
from tests.commands import wait_for
from tests.log_users import LogUsers, event, log_users

pytestmark = pytest.mark.faults
ROUNDS = int(os.environ.get("LOG_KILL_ROUNDS", "1"))
Steps = list[list[str] | None]
"""Batches to append by their names; None compacts."""

SCRIPTS: dict[str, tuple[Steps, Steps]] = {
    "first append": ([], [["a", "b"]]),
    "appends": ([["a"], ["b", "c"]], [["d"], ["e", "f"]]),
    "compaction": ([["a"], ["b", "c"], ["d"]], [None]),
    "compaction over a compact file": ([["a"], ["b"], None, ["c"]], [["d"], None, ["e"]]),
}


@pytest.fixture(scope="module")
def users() -> Iterator[LogUsers]:
    with log_users() as running:
        yield running


def ids(root: Path) -> list[str]:
    return [e.event_id for e in EventLog(root).read("plan")]


def flat(steps: Steps) -> list[str]:
    return [name for names in steps if names for name in names]


def take(log: EventLog, steps: Steps) -> None:
    for names in steps:
        log.append([event(name) for name in names]) if names else log.compact("plan")


@pytest.mark.parametrize(("past", "steps"), SCRIPTS.values(), ids=SCRIPTS)
def test_a_writer_killed_at_any_boundary_loses_nothing_acknowledged_and_leaves_a_log_to_go_on_with(
    users: LogUsers, tmp_path: Path, past: Steps, steps: Steps
) -> None:
    before = tmp_path / "before/some/events"
    take(EventLog(before), past)
    batches = [names for names in [*past, *steps] if names]
    prefixes = [flat([*batches[:n]]) for n in range(len(batches) + 1)]
    code, kill_at = -signal.SIGKILL, 0
    while code == -signal.SIGKILL:
        place = tmp_path / str(kill_at)
        root, acknowledged, errors = place / "some/events", place / "acknowledged", place / "errors"
        place.mkdir()
        if past:
            shutil.copytree(before, root)
        job = {"root": str(root), "acknowledged": str(acknowledged), "errors": str(errors)}
        code = users.wait(users.start(do="script", steps=steps, kill_at=kill_at, **job))
        kill_at += 1

        known = flat(past) + (acknowledged.read_text().split() if acknowledged.exists() else [])
        there = ids(root)
        assert there in prefixes
        assert there[: len(known)] == known
        take(EventLog(root), [["next"], *steps])  # the event that was not acknowledged is sent again
        assert sorted(ids(root)) == sorted([*prefixes[-1], "next"])
        EventLog(root).compact("plan")
        assert sorted(ids(root)) == sorted([*prefixes[-1], "next"])
        shutil.rmtree(place)
    assert code == 0
    print(kill_at)
    assert kill_at > 12


def test_writers_readers_and_compactors_killed_at_random_lose_nothing_acknowledged(
    users: LogUsers, tmp_path: Path
) -> None:
    chance = random.Random(20)
    root, acknowledged, errors = tmp_path / "events", tmp_path / "acknowledged", tmp_path / "errors"
    job = {"root": str(root), "acknowledged": str(acknowledged), "errors": str(errors)}
    roles = ["write", "write", "compact", "read"]
    running = [users.start(do=role, **job) for role in roles]
    for _ in range(100 * ROUNDS):
        time.sleep(chance.uniform(0.0, 0.06))
        victim = chance.randrange(len(roles))
        assert users.kill(running[victim]) == -signal.SIGKILL, errors.read_text()
        running[victim] = users.start(do=roles[victim], **job)
    wait_for(lambda: acknowledged.exists() and len(acknowledged.read_text().split()) > 100)
    for process in running:
        assert users.kill(process) == -signal.SIGKILL, errors.read_text()
    assert not errors.exists()
    there = ids(root)
    assert len(set(there)) == len(there)
    missing = set(acknowledged.read_text().split()) - set(there)
    assert missing == set()
    assert len(there) > 100
