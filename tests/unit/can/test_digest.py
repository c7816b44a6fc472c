"""Captures are known by their bytes."""

from pathlib import Path

import pytest

from core.can.digest import digest_captures, find_shared_captures
from core.can.registry import Capture, Role
from core.errors import CaptureError


def make(path: Path, content: str, role: Role = "attack_free", folder: str = "train") -> Capture:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return Capture(path, role, folder)


def test_the_digest_depends_on_bytes_names_and_roles_but_not_on_place_or_order(tmp_path: Path) -> None:
    first = [make(tmp_path / "x" / name, name) for name in ("a.csv", "b.csv")]
    moved = [make(tmp_path / "y" / name, name) for name in ("b.csv", "a.csv")]
    digest, rows = digest_captures(first, {})
    assert digest_captures(moved, {})[0] == digest
    assert [row["path"] for row in rows] == [str(capture.path) for capture in first]
    assert set(rows[0]) == {"path", "role", "folder", "num_bytes", "mtime_ns", "sha256"}
    for other in (
        [first[0], make(tmp_path / "x" / "b.csv", "changed")],
        [first[0], make(tmp_path / "x" / "c.csv", "b.csv")],
        [first[0], Capture(moved[0].path, "test", "train")],
        first[:1],
    ):
        assert digest_captures(other, {})[0] != digest


def test_unchanged_files_are_not_read_again(tmp_path: Path) -> None:
    capture = make(tmp_path / "a.csv", "a")
    _, (row,) = digest_captures([capture], {})
    key = (row["path"], row["num_bytes"], row["mtime_ns"])
    assert digest_captures([capture], {key: "known"})[1][0]["sha256"] == "known"
    capture.path.write_text("other size")
    assert digest_captures([capture], {key: "known"})[1][0]["sha256"] != "known"


def test_an_unreadable_capture_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"none\.csv"):
        digest_captures([Capture(tmp_path / "none.csv", "test", "t")], {})


def test_bytes_that_serve_training_and_test_are_told_for_each_dataset(tmp_path: Path) -> None:
    rows = {
        "one": digest_captures([make(tmp_path / "1.csv", "same"), make(tmp_path / "2.csv", "own")], {})[1],
        "two": digest_captures(
            [make(tmp_path / "3.csv", "same", "test", "t"), make(tmp_path / "4.csv", "4")], {}
        )[1],
        "three": digest_captures(
            [make(tmp_path / "5.csv", "same"), make(tmp_path / "6.csv", "6", "test")], {}
        )[1],
    }
    found = find_shared_captures(rows)
    pairs = {
        (fact.dataset, Path(row["path"]).stem, row["other_dataset"], Path(row["other_path"]).stem)
        for fact in found
        for row in fact.captures
    }
    assert pairs == {
        ("one", "1", "two", "3"),
        ("two", "3", "one", "1"),
        ("two", "3", "three", "5"),
        ("three", "5", "two", "3"),
    }
    assert [fact.dataset for fact in found] == ["one", "three", "two"]
    assert find_shared_captures({"one": rows["one"], "three": rows["three"]}) == []
