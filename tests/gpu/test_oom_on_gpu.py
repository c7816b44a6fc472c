"""Training on a GPU of which it may take little: steps fail for real, are recovered, and the phase ends."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.events.catalogue import ModelSaved
from core.events.resource_facts import PackLimitChanged, PackLimitChosen
from core.training.packs import KnownLimit, KnownLimits, PackLimit
from core.training.phases import PHASES
from tests.synthetic import make_store, write_store
from tests.training_helpers import Recorder, make_job, quick_settings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
ROOM_MIB = 96


@pytest.fixture
def _little_vram() -> Iterator[None]:
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    allowed = torch.cuda.memory_reserved() + ROOM_MIB * 2**20
    torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total))
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def train(folder: Path, known: KnownLimits) -> Recorder:
    settings = quick_settings(device="cuda", epochs=1, min_steps_per_epoch=1)
    job = make_job(folder, write_store(folder / "store", make_store(2000, num_ids=40)), "teacher", settings)
    recorder = Recorder()
    PHASES["teacher"](replace(job, known_limits=known), recorder)
    return recorder


@pytest.mark.usefixtures("_little_vram")
def test_a_pack_limit_that_is_too_large_is_halved_until_the_step_fits(tmp_path: Path) -> None:
    whole = PackLimit(4096)
    too_much = KnownLimit(whole, whole, {}, "step")
    known = KnownLimits(own={"teacher_vgae": too_much, "teacher_gat": too_much})
    recorder = train(tmp_path, known)
    told = [fact for fact in recorder.of(PackLimitChanged) if fact.stage != "evaluation"]
    assert {fact.reason for fact in told} <= {"cuda_oom", "fragmentation", "allocator_retries"}
    assert told
    assert all((fact.reserved_mib or 0) >= (fact.allocated_mib or 0) > 0 for fact in told)
    assert len(recorder.of(ModelSaved)) == 1


@pytest.mark.usefixtures("_little_vram")
def test_a_measured_pack_limit_keeps_training_within_little_vram(tmp_path: Path) -> None:
    recorder = train(tmp_path, KnownLimits())
    for fact in recorder.of(PackLimitChosen):
        assert (fact.source, fact.binds) == ("probed", "memory")
        assert fact.memory["room_mib"] < ROOM_MIB
    assert not [fact for fact in recorder.of(PackLimitChanged) if fact.reason in ("cuda_oom", "host_oom")]
    assert len(recorder.of(ModelSaved)) == 1
