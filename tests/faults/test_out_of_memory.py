"""A training process whose memory really runs out, by a limit of the kernel, and that is killed besides."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import TrainingProcessError
from core.events.catalogue import ModelSaved, to_event
from core.events.resource_facts import PackLimitChanged, PackLimitChosen
from core.planning.pack_limits import fold_pack_limits
from core.resources.process import TrainingProcess
from core.training.job import PhaseJob
from settings.models import ModelSettings
from tests.memory_targets import Starved
from tests.synthetic import make_store, write_store
from tests.training_helpers import Recorder, make_job, quick_settings

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(1800)]
ROOM_MIB = 100


def job(folder: Path, name: str) -> PhaseJob:
    settings = quick_settings(
        epochs=1, min_steps_per_epoch=2, num_threads=1, adaptive_optimization=False, checkpoint_interval_s=0.0
    )
    models = ModelSettings.model_validate({"preset": "published"})
    changes: dict[str, Any] = {"checkpoints_dir": folder / name}
    settings = settings.model_copy(update={"models": models})
    return make_job(folder, folder / "store", "teacher", settings, **changes)


def run(process: TrainingProcess, phase: PhaseJob, starved: Starved) -> Recorder:
    recorder = Recorder()
    process.run("tests.memory_targets:train", phase, starved, on_fact=recorder, timeout_s=300)
    return recorder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_store(tmp_path / "store", make_store(300, num_ids=40))
    return tmp_path


def test_a_step_that_really_fails_is_repeated_and_the_phase_ends(folder: Path) -> None:
    with TrainingProcess("starved", folder) as process:
        found = run(process, job(folder, "starved"), Starved("teacher_vgae", ROOM_MIB))
    told = found.of(PackLimitChanged)
    assert {fact.reason for fact in told} == {"host_oom"}
    assert {"forward", "backward"} & {fact.stage for fact in told}
    assert len(found.of(ModelSaved)) == 1


def test_a_training_killed_by_its_first_shortage_repeats_the_change_when_it_is_resumed(folder: Path) -> None:
    killed = Recorder()
    with TrainingProcess("killed", folder) as process:
        target, starved = "tests.memory_targets:train", Starved("teacher_vgae", ROOM_MIB, num_changes=1)
        with pytest.raises(TrainingProcessError) as caught:
            process.run(target, job(folder, "a"), starved, on_fact=killed, timeout_s=300)
        assert caught.value.kind == "killed"
        events = [to_event("plan", fact) for fact in killed.facts]
        known = fold_pack_limits([events]).known("plan", "synthetic", "teacher")
        plenty = Starved("none", 0)
        resumed = run(process, replace(job(folder, "a"), known_limits=known), plenty)
        again = run(process, replace(job(folder, "b"), known_limits=known), plenty)
    assert known.own["teacher_vgae"].changes
    assert resumed.of(PackLimitChosen)[0].source == "history"
    assert not resumed.of(PackLimitChanged)
    assert resumed.of(ModelSaved)[0].sha256 == again.of(ModelSaved)[0].sha256
