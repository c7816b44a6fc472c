"""Two chains on one real GPU, each granted half: one fills its half to the last byte, the other trains."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.events.catalogue import ModelSaved
from core.events.resource_facts import PackLimitChanged
from core.planning.admission import Placement, machine_limits, place, turn_of, vram_limit, vram_request
from core.resources.machine import Gpu, probe_machine
from core.resources.process import TrainingProcess
from settings.app import load_settings
from settings.scheduling import SchedulingSettings
from tests.commands import wait_for
from tests.synthetic import make_store, write_store
from tests.training_helpers import Recorder, make_job, quick_settings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
SCHEDULING = SchedulingSettings()


@pytest.fixture(scope="module")
def gpu() -> Gpu:
    return probe_machine(every_slice=True).gpus[0]


def half_of(gpu: Gpu) -> Placement:
    """What a phase gets that asks for half of the card."""
    capacity = machine_limits(probe_machine(every_slice=True), SCHEDULING)[vram_limit(gpu.uuid)]
    request = replace(vram_request(gpu, capacity, None, None, SCHEDULING), slots=capacity // 2)
    return place(request, 0.0, SCHEDULING)


def process_of(placement: Placement, name: str, folder: Path) -> TrainingProcess:
    process = TrainingProcess(name, folder)
    process.environment = placement.environment()
    return process


def test_every_gpu_has_a_limit_and_a_turn(gpu: Gpu) -> None:
    limits = machine_limits(probe_machine(every_slice=True), SCHEDULING)
    name = vram_limit(gpu.uuid)
    assert 0 < limits[name] < gpu.vram_total_mib
    assert limits[turn_of(name)] == 1


def test_a_chain_that_fills_what_it_was_granted_takes_nothing_from_its_neighbour(
    tmp_path: Path, gpu: Gpu
) -> None:
    mine, its = half_of(gpu), half_of(gpu)
    full, done = tmp_path / "full", tmp_path / "done"
    job = make_job(
        tmp_path,
        write_store(tmp_path / "store", make_store(2000, num_ids=40)),
        "teacher",
        mine.settings(quick_settings(device="cuda", epochs=2)),
        device_name=gpu.name,
    )
    recorder = Recorder()
    greedy_settings = its.settings(load_settings()).resources
    with (
        process_of(its, "greedy", tmp_path) as greedy,
        process_of(mine, "modest", tmp_path) as modest,
        ThreadPoolExecutor(1) as pool,
    ):
        filled = pool.submit(
            greedy.run, "tests.admission_targets:fill_vram", greedy_settings, full, done, on_fact=Recorder()
        )
        try:
            wait_for(lambda: full.exists() or filled.done())
            modest.run("core.training.phases:train_teacher", job, on_fact=recorder)
        finally:
            done.touch()
        assert filled.result(60) == pytest.approx(its.vram_limit_mib, rel=0.05)
    assert len(recorder.of(ModelSaved)) == 1
    assert not [fact for fact in recorder.of(PackLimitChanged) if fact.reason != "room"]
