"""Model files for other tools: tensors as safetensors, everything else as JSON, nothing pickled."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from core.training import artifacts

_TENSOR = "tensor"


def export_model(path: Path, sha256: str) -> tuple[bytes, bytes]:
    """Convert one of our model files, losing nothing.

    Args:
        path: The model file.
        sha256: What it must hash to.

    Returns:
        A safetensors file, whose names are dotted paths such as ``vgae.encoder.0.weight``, and a JSON file
        with the same tree in which ``{"tensor": name}`` stands for each tensor.

    Raises:
        ArtifactError: The file is missing, unreadable, or another one by now.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _without_tensors(artifacts.load(path, sha256), "", tensors)
    return save(tensors), json.dumps(tree, indent=1, allow_nan=False).encode()


def _without_tensors(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, Mapping):
        return {
            key: _without_tensors(inner, f"{name}.{key}" if name else key, tensors)
            for key, inner in value.items()
        }
    if isinstance(value, torch.Tensor):
        tensors[name] = value.clone(memory_format=torch.contiguous_format)  # safetensors shares no memory
        return {_TENSOR: name}
    return value
