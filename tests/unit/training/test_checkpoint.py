"""The folder of checkpoints: what counts, what is kept, what is refused, and when one is due."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from core.training.checkpoint import CHECKPOINT_VERSION, CheckpointFolder

Damage = Callable[[Path], object]


class Clock:
    """Stands still until it is set."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def folder_of(path: Path, key: str = "key", keep: int = 3, interval_s: float = 0.0) -> CheckpointFolder:
    return CheckpointFolder(path, key, keep, interval_s)


def write(checkpoints: CheckpointFolder, *positions: tuple[int, int]) -> list[Path]:
    return [checkpoints.write(epoch, step, {"at": [epoch, step]})[0] for epoch, step in positions]


def latest(path: Path, key: str = "key") -> tuple[list[int] | None, dict[str, str]]:
    """Position of what would be gone on from, and reasons by file of what was refused."""
    refused: dict[str, str] = {}
    found = folder_of(path, key).read_latest(lambda file, reason: refused.update({file.name: reason}))
    return found[1]["at"] if found else None, refused


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def change_sidecar(path: Path, **changes: object) -> None:
    sidecar = path.with_suffix(".json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | changes))


DAMAGES: list[tuple[Damage, str]] = [
    (flip_a_bit, "sha256 is"),
    (truncate, "sha256 is"),
    (Path.unlink, "cannot be read"),
    (lambda path: path.with_suffix(".json").write_text("{"), "no readable sidecar"),
    (lambda path: path.with_suffix(".json").write_bytes(b"\xff"), "no readable sidecar"),
    (lambda path: path.with_suffix(".json").write_text("[]"), "no readable sidecar"),
    (lambda path: path.with_suffix(".json").write_text("{}"), "no readable sidecar"),
    (lambda path: change_sidecar(path, version=CHECKPOINT_VERSION + 1), "this software reads"),
    (lambda path: change_sidecar(path, version=CHECKPOINT_VERSION - 1), "this software reads"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_a_damaged_checkpoint_is_refused_for_the_one_before_it(
    tmp_path: Path, damage: Damage, reason: str
) -> None:
    paths = write(folder_of(tmp_path), (0, 1), (0, 2), (1, 0))
    damage(paths[-1])
    position, refused = latest(tmp_path)
    assert position == [0, 2]
    assert list(refused) == ["epoch-000001-step-00000000.pt"]
    assert reason in refused[paths[-1].name]
    assert latest(tmp_path) == ([0, 2], {})


def test_where_all_are_damaged_all_are_refused_and_none_is_left(tmp_path: Path) -> None:
    paths = write(folder_of(tmp_path), (0, 1), (0, 2))
    for path in paths:
        flip_a_bit(path)
    position, refused = latest(tmp_path)
    assert position is None
    assert list(refused) == [path.name for path in reversed(paths)]


@pytest.mark.parametrize("key", ["other", ""])
def test_a_checkpoint_of_another_key_is_neither_gone_on_from_nor_damaged(tmp_path: Path, key: str) -> None:
    write(folder_of(tmp_path), (3, 0))
    assert latest(tmp_path, key) == (None, {})


def test_a_checkpoint_without_its_sidecar_is_not_there(tmp_path: Path) -> None:
    paths = write(folder_of(tmp_path), (0, 1), (0, 2))
    paths[1].with_suffix(".json").unlink()
    assert latest(tmp_path) == ([0, 1], {})


def test_there_is_none_where_there_is_no_folder(tmp_path: Path) -> None:
    assert latest(tmp_path / "nowhere") == (None, {})


def test_the_latest_is_that_of_the_highest_epoch_and_step(tmp_path: Path) -> None:
    write(folder_of(tmp_path, keep=9), (10, 0), (9, 11), (9, 2))
    assert latest(tmp_path)[0] == [10, 0]
    write(folder_of(tmp_path, keep=9), (10, 9), (10, 10))
    assert latest(tmp_path)[0] == [10, 10]


def test_only_the_latest_are_kept_and_nothing_that_a_killed_writer_left(tmp_path: Path) -> None:
    checkpoints = folder_of(tmp_path, keep=2)
    write(checkpoints, (0, 1), (0, 2))
    for name in ("epoch-000007-step-00000000.pt", ".epoch-000000-step-00000003.pt.0f0f.tmp",
                 ".epoch-000000-step-00000003.json.0f0f.tmp"):  # fmt: skip
        (tmp_path / name).write_bytes(b"half")
    write(checkpoints, (0, 3))
    kept = {f"epoch-000000-step-0000000{step}.{ending}" for step in (2, 3) for ending in ("pt", "json")}
    assert {path.name for path in tmp_path.iterdir()} == kept


@pytest.mark.parametrize("spoil", [flip_a_bit, lambda path: change_sidecar(path, key="other")])
def test_what_was_not_gone_on_from_takes_the_place_of_no_later_one(tmp_path: Path, spoil: Damage) -> None:
    paths = write(folder_of(tmp_path, keep=2), (5, 0), (6, 0))
    for path in paths:
        spoil(path)
    assert latest(tmp_path)[0] is None
    write(folder_of(tmp_path, keep=2), (0, 1), (0, 2))
    assert sorted(path.stem[-10:] for path in tmp_path.glob("*.pt")) == ["p-00000001", "p-00000002"]


def test_a_failed_write_leaves_the_checkpoints_before_it(tmp_path: Path) -> None:
    checkpoints = folder_of(tmp_path, keep=1)
    write(checkpoints, (0, 1))
    with pytest.raises(AttributeError, match="local object"):
        checkpoints.write(0, 2, {"at": lambda: None})
    assert latest(tmp_path) == ([0, 1], {})


def test_one_is_due_when_the_interval_has_passed_since_the_last_was_done(tmp_path: Path) -> None:
    clock = Clock()
    checkpoints = CheckpointFolder(tmp_path, "key", 1, 10.0, clock)
    due = []
    for clock.now_s in (1000.0, 1009.9, 1010.0, 1025.0):
        due.append(checkpoints.due)
    write(checkpoints, (0, 1))
    for clock.now_s in (1034.9, 1035.0):
        due.append(checkpoints.due)
    assert due == [False, False, True, True, False, True]


def test_an_interval_of_zero_makes_one_due_at_every_chance(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path, "key", 1, 0.0, Clock())
    assert checkpoints.due
    write(checkpoints, (0, 1))
    assert checkpoints.due
