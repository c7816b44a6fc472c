"""The classes of failures: what an exception is, and which of them another attempt can cure."""

import errno
import re
import sys
from typing import Any

from core.errors import TrainingProcessError
from settings.errors import RetrainError

OOM_KINDS = frozenset({"cuda_oom", "host_oom", "fragmentation"})
"""Failures for want of memory: less of it may cure them."""
_RETRYABLE = OOM_KINDS | {"cuda_error", "killed", "hang"}
_CUDA_OUT_OF_MEMORY = 2

# Errors that have no class of their own: told apart by what the library that failed says.
_NAMELESS_ERRORS = {
    "DefaultCPUAllocator": "host_oom",
    "std::bad_alloc": "host_oom",
    "can't start new thread": "host_oom",  # there was no room for its stack
    "Cannot allocate memory": "host_oom",
    "cannot allocate memory": "host_oom",
    "failed to map segment from shared object": "host_oom",  # a library that is loaded when it is needed
    "CUBLAS_STATUS_ALLOC_FAILED": "cuda_oom",
    "CUDNN_STATUS_ALLOC_FAILED": "cuda_oom",
    "CUDA error": "cuda_error",
    "cuDNN error": "cuda_error",
}

_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_AMOUNT = rf"([\d.]+) ({'|'.join(_UNITS)})"
# What torch lacked, and what of its own memory lay idle, at the moment of a ``torch.OutOfMemoryError``.
_ASKED = re.compile(f"Tried to allocate {_AMOUNT}")
_IDLE = re.compile(f"{_AMOUNT} is reserved by PyTorch but unallocated")


def retryable(kind: str) -> bool:
    """Whether another attempt, perhaps with less memory, can cure a failure of this kind."""
    return kind in _RETRYABLE


def classify(error: BaseException) -> str:
    """Name the failure class of an exception raised by training.

    Args:
        error: The exception, whatever it is.

    Returns:
        ``cuda_oom``, ``fragmentation``, ``host_oom``, ``cuda_error``, ``data_error`` (refused on purpose by
        a ``RetrainError``) or ``bug``.
    """
    torch: Any = sys.modules.get("torch")
    if isinstance(error, TrainingProcessError):
        return error.kind
    if isinstance(error, RetrainError):  # an explanation of what went wrong may hide that memory was lacking
        cause = classify(error.__cause__) if error.__cause__ else ""
        return cause if cause in OOM_KINDS else "data_error"
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return "host_oom"
    if torch and isinstance(error, torch.OutOfMemoryError):
        return "fragmentation" if _is_fragmentation(str(error)) else "cuda_oom"
    if torch and isinstance(error, torch.AcceleratorError):
        return "cuda_oom" if getattr(error, "error_code", None) == _CUDA_OUT_OF_MEMORY else "cuda_error"
    kind = next((kind for text, kind in _NAMELESS_ERRORS.items() if text in str(error)), "bug")
    if kind == "bug" and error.__context__:  # raised while a lack of memory was being handled
        cause = classify(error.__context__)
        kind = cause if cause in OOM_KINDS else kind
    return kind


def _is_fragmentation(message: str) -> bool:
    """Whether enough memory lay idle for the request, only not in one piece.

    Asked of the message, because by the time an error is looked at, what it held is mostly freed again; of a
    message without the two amounts (another allocator's) nothing is claimed.
    """
    asked, idle = (_bytes(pattern.search(message)) for pattern in (_ASKED, _IDLE))
    return asked is not None and idle is not None and idle >= asked


def _bytes(amount: re.Match[str] | None) -> float | None:
    return amount and float(amount[1]) * _UNITS[amount[2]]
