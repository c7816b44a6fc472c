"""The classes of failures: what an exception is, and which of them another attempt can cure."""

import errno
import sys
from typing import Any

from core.errors import TrainingProcessError
from settings.errors import RetrainError

OOM_KINDS = frozenset({"cuda_oom", "host_oom", "fragmentation"})
"""Failures for want of memory: less of it may cure them."""
_RETRYABLE = OOM_KINDS | {"cuda_error", "killed", "hang"}
_CUDA_OUT_OF_MEMORY = 2

# Plain RuntimeErrors of torch, which has no class for them: told apart by the library that failed.
_NAMELESS_ERRORS = {
    "DefaultCPUAllocator": "host_oom",
    "CUBLAS_STATUS_ALLOC_FAILED": "cuda_oom",
    "CUDNN_STATUS_ALLOC_FAILED": "cuda_oom",
    "CUDA error": "cuda_error",
    "cuDNN error": "cuda_error",
}


def retryable(kind: str) -> bool:
    """Whether another attempt, perhaps with less memory, can cure a failure of this kind."""
    return kind in _RETRYABLE


def classify(error: BaseException) -> str:
    """Name the failure class of an exception raised by training.

    Args:
        error: The exception, whatever it is.

    Returns:
        ``cuda_oom``, ``host_oom``, ``cuda_error``, ``data_error`` (refused on purpose by a ``RetrainError``)
        or ``bug``.
    """
    torch: Any = sys.modules.get("torch")
    if isinstance(error, RetrainError):
        return error.kind if isinstance(error, TrainingProcessError) else "data_error"
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return "host_oom"
    if torch and isinstance(error, torch.OutOfMemoryError):
        return "cuda_oom"
    if torch and isinstance(error, torch.AcceleratorError):
        return "cuda_oom" if getattr(error, "error_code", None) == _CUDA_OUT_OF_MEMORY else "cuda_error"
    if isinstance(error, RuntimeError):
        return next((kind for text, kind in _NAMELESS_ERRORS.items() if text in str(error)), "bug")
    return "bug"
