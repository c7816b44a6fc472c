"""Exact resume on a machine with an NVIDIA GPU, where deterministic kernels are asked for."""

from pathlib import Path

import pytest
import torch

from core.events.catalogue import ModelSaved, TrainingResumed
from core.resources.process import TrainingProcess
from tests.resume_helpers import MODELS, NUM_STEPS, Alone, run_phase, sha256
from tests.resume_targets import Moment
from tests.training_helpers import losses

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module", params=[True, False], ids=["mixed", "fp32"])
def alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    folder = tmp_path_factory.mktemp("alone")
    return Alone(folder, device="cuda", deterministic=True, mixed_precision=request.param)


@pytest.mark.parametrize("phase", MODELS)
def test_a_phase_killed_on_the_gpu_saves_the_same_bits(alone: Alone, tmp_path: Path, phase: str) -> None:
    job = alone.job(phase, tmp_path, checkpoint_interval_s=0.0)
    attempts = []
    with TrainingProcess(phase, tmp_path) as process:
        for model in MODELS[phase]:
            attempts.append(run_phase(process, job, Moment(model, "vouching", epoch=0, num_steps=2)))
            attempts.append(run_phase(process, job, Moment(model, "step", epoch=1, num_steps=NUM_STEPS)))
        attempts.append(run_phase(process, job))
    assert all(attempt.of(TrainingResumed) for attempt in attempts[1:])
    assert len(attempts[-1].of(ModelSaved)) == 1
    assert sha256(attempts[-1]) == sha256(alone.said[phase])
    assert losses(*attempts) == losses(alone.said[phase])


def test_a_checkpoint_holds_the_generators_of_every_gpu_in_use(alone: Alone, tmp_path: Path) -> None:
    job = alone.job("teacher", tmp_path, checkpoint_interval_s=0.0)
    with TrainingProcess("teacher", tmp_path) as process:
        run_phase(process, job, Moment("teacher_vgae", "step", epoch=0, num_steps=2))
    (checkpoint,) = tmp_path.rglob("*.pt")
    assert len(torch.load(checkpoint, weights_only=True)["random"]["cuda"]) == torch.cuda.device_count()
