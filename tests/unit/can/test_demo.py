"""The simulated vehicle behaves like one, its attacks are labelled, and its files are the same every time."""

from pathlib import Path

import numpy as np
import pytest

from core.can.demo import CAPTURES, ensure_demo, simulate, write_csv
from core.can.digest import digest_captures
from core.can.frames import Frames
from core.can.registry import find_captures
from core.can.simulator import Attack, Vehicle, flood, fuzz, masquerade, replay, spoof, suppress
from core.errors import CaptureError
from settings.data import DataSettings, DemoSettings
from tests.capture_text import assert_same, read_all

DEMO = DemoSettings(duration_s=10.0)


def capture(*attacks: Attack, seed: int = 7, index: int = 0) -> Frames:
    return simulate(DEMO.model_copy(update={"seed": seed}), index, 0, attacks)


@pytest.mark.parametrize("seed", range(5))
def test_a_vehicle_sends_periodic_frames_at_a_plausible_rate_one_at_a_time(seed: int) -> None:
    vehicle = Vehicle.draw(np.random.default_rng([seed, 0, 0]))
    frames = capture(seed=seed)
    assert 30 <= len(vehicle.ids) <= 60
    assert set(frames.arbitration_id.tolist()) <= set(vehicle.ids.tolist())
    assert 1_500 < len(frames) / DEMO.duration_s < 2_500
    assert (np.diff(frames.timestamp) > 0.00007).all()
    assert not frames.attack.any()
    fast = vehicle.ids[np.flatnonzero(np.isclose(vehicle.period_s, 0.01, rtol=0.002) & ~vehicle.is_event)[0]]
    gaps = np.diff(frames.timestamp[frames.arbitration_id == fast])
    assert gaps.mean() == pytest.approx(0.01, rel=0.01)
    assert 0 < gaps.std() < 0.003
    assert (frames.payload[np.arange(8) >= frames.length[:, None]] == 0).all()


def test_the_same_seed_gives_the_same_frames_and_another_gives_others() -> None:
    assert_same(capture(spoof), capture(spoof))
    assert capture(spoof).arbitration_id.tolist() != capture(spoof, seed=8).arbitration_id.tolist()
    assert (
        len(capture(index=1)) != len(capture(index=2))
        or capture(index=1).payload.tobytes() != capture(index=2).payload.tobytes()
    )


def test_each_attack_leaves_its_mark() -> None:
    benign = capture()
    own = set(benign.arbitration_id.tolist())
    flooded, fuzzed, spoofed, replayed, masked = (
        capture(a) for a in (flood, fuzz, spoof, replay, masquerade)
    )
    assert set(flooded.arbitration_id[flooded.attack == 1].tolist()) == {0}
    assert len(set(fuzzed.arbitration_id[fuzzed.attack == 1].tolist()) - own) > 100
    for frames in (spoofed, replayed, masked):
        assert set(frames.arbitration_id[frames.attack == 1].tolist()) <= own
    for frames in (flooded, fuzzed, spoofed, replayed):
        assert (frames.attack == 0).sum() == len(benign)
    assert len(set(spoofed.arbitration_id[spoofed.attack == 1].tolist())) == 1
    assert len(masked) == len(benign)
    assert 50 < (masked.attack == 1).sum() < 500


def test_suppression_is_silence_without_a_label() -> None:
    benign, suppressed = capture(), capture(suppress)
    assert not suppressed.attack.any()
    ids, counts = np.unique(benign.arbitration_id, return_counts=True)
    left = np.array([(suppressed.arbitration_id == number).sum() for number in ids])
    (silenced,) = np.flatnonzero(left != counts)
    times = suppressed.timestamp[suppressed.arbitration_id == ids[silenced]]
    assert np.diff(times).max() == pytest.approx(DEMO.duration_s / 3, rel=0.05)


def test_a_written_capture_is_read_back(tmp_path: Path) -> None:
    frames = capture(fuzz, spoof)
    write_csv(tmp_path / "a.csv", frames)
    assert_same(read_all(tmp_path / "a.csv")[0], frames)


def test_the_demo_is_made_once_complete_and_byte_for_byte_the_same(tmp_path: Path) -> None:
    made = [DataSettings(demo=DemoSettings(duration_s=2.0, cache_dir=tmp_path / name)) for name in ("x", "y")]
    captures = [find_captures("demo", data) for data in made]
    assert sorted(c.path.relative_to(ensure_demo(made[0].demo)).as_posix() for c in captures[0]) == sorted(
        name for name, _, _ in CAPTURES
    )
    assert digest_captures(captures[0], {})[0] == digest_captures(captures[1], {})[0]
    before = captures[0][0].path.stat().st_mtime_ns
    assert find_captures("demo", made[0]) == captures[0]
    assert captures[0][0].path.stat().st_mtime_ns == before
    assert [path.name for path in (tmp_path / "x").iterdir()] == [ensure_demo(made[0].demo).name]
    longer = made[0].demo.model_copy(update={"duration_s": 2.5})
    assert ensure_demo(longer) != ensure_demo(made[0].demo)


def test_a_folder_that_cannot_be_written_is_named_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CaptureError, match=r"data\.demo\.cache_dir"):
        ensure_demo(DemoSettings(cache_dir=tmp_path / "file"))


def test_frames_never_overlap_when_the_bus_is_full() -> None:
    frames = capture(flood, flood, flood)
    duration_s = 2e-6 * (57 + 8.0 * frames.length)
    assert (np.diff(frames.timestamp) >= duration_s[:-1] - 2e-6).all()
