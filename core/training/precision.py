"""Device and number format of training."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch

from core.errors import TrainingError
from settings.training import TrainingSettings


@dataclass(frozen=True)
class Precision:
    """How matrix products are computed: ``bf16``, ``fp16`` (with loss scaling) or ``fp32``."""

    device: torch.device
    dtype: torch.dtype

    @property
    def scaled(self) -> bool:
        """Whether the loss is scaled so that small fp16 gradients survive."""
        return self.dtype == torch.float16

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which a forward pass runs."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


def choose_precision(training: TrainingSettings) -> Precision:
    """Resolve `device` and `mixed_precision`: bf16 where the GPU has it, else scaled fp16; fp32 on CPUs.

    Raises:
        TrainingError: A GPU is asked for and there is none.
    """
    if training.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            "training.device is cuda, but torch sees no GPU: set it to auto or cpu, or install a CUDA build "
            "of torch and check nvidia-smi"
        )
    if training.device == "cpu" or not torch.cuda.is_available():
        return Precision(torch.device("cpu"), torch.float32)
    dtype = torch.float32
    if training.mixed_precision:
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return Precision(torch.device("cuda"), dtype)


@contextmanager
def one_thread() -> Iterator[None]:
    """For networks so small that threads would wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def prepare_process(training: TrainingSettings) -> None:
    """Set what is per process: threads, deterministic kernels, and denormal numbers flushed to 0.

    Denormals slow CPUs 3 to 7 times. To be called before the process uses CUDA: cuBLAS reads its workspace's
    size, on which the order of its sums depends, only then.
    """
    torch.set_flush_denormal(True)
    if training.num_threads:
        torch.set_num_threads(training.num_threads)
    if training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
