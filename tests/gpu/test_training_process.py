"""The training process on a machine with an NVIDIA GPU."""

from pathlib import Path

import pytest

from core.errors import TrainingProcessError
from core.events.catalogue import Fact
from core.resources.process import TrainingProcess

pytestmark = pytest.mark.gpu
TARGETS = "tests.training_targets:"


def ignore(fact: Fact) -> None:
    """For calls whose facts do not matter."""


def test_peak_memory_is_the_vram_allocated_by_the_last_call(tmp_path: Path) -> None:
    with TrainingProcess("a", tmp_path) as process:
        for mib in (512, 64):
            process.run(TARGETS + "hold_on_gpu", mib, on_fact=ignore)
            assert process.peak_memory_mib == pytest.approx(mib, abs=4)


@pytest.mark.parametrize(
    ("target", "arguments", "kind"),
    [("hold_on_gpu", (1 << 22,), "cuda_oom"), ("break_cuda", (), "cuda_error")],
)
def test_a_real_failure_is_classified_and_the_next_call_has_a_sound_gpu(
    tmp_path: Path, target: str, arguments: tuple[int, ...], kind: str
) -> None:
    with TrainingProcess("a", tmp_path) as process:
        with pytest.raises(TrainingProcessError) as caught:
            process.run(TARGETS + target, *arguments, on_fact=ignore)
        assert caught.value.kind == kind
        process.run(TARGETS + "hold_on_gpu", 8, on_fact=ignore)
