"""Files with weights: written whole or not at all, verified by sha256, loaded without executing anything."""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from core.errors import ArtifactError
from core.events.files import read_regular, replace_file
from core.events.stores import MODEL_BYTES
from core.resources.failures import OOM_KINDS, classify


def save(path: Path, payload: dict[str, Any]) -> str:
    """Save tensors and primitives.

    Args:
        path: The file, replaced atomically.
        payload: What ``torch.load(weights_only=True)`` can read back.

    Returns:
        sha256 of the file.
    """
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    content = buffer.getvalue()
    replace_file(path, content)
    return hashlib.sha256(content).hexdigest()


def load(path: Path, sha256: str, remedy: str = "train its phase again") -> dict[str, Any]:
    """Load what `save` wrote, onto the CPU.

    Args:
        path: The file.
        sha256: What its content must hash to: nothing else is ever unpickled.
        remedy: What is to be done, or will be, about a file that is refused.

    Raises:
        ArtifactError: The file is missing, unreadable, or not the one that was expected.
    """
    try:
        content = read_regular(path, MODEL_BYTES)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); {remedy}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ArtifactError(
            f"{path}: sha256 is {found[:12]}..., expected {sha256[:12] or 'none'}...: the file is damaged or "
            f"was replaced; {remedy}"
        )
    try:
        _require_plain(content)
        payload = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    # Of a file that was made up, unpickling raises whatever it comes upon.
    except Exception as error:
        if classify(error) in OOM_KINDS:
            raise  # nothing is wrong with the file
        reason = str(error) or type(error).__name__
        raise ArtifactError(f"{path}: no readable model file ({reason}); {remedy}") from error
    if not isinstance(payload, dict):
        raise ArtifactError(
            f"{path}: holds a {type(payload).__name__}, not a dictionary of weights; {remedy}"
        )
    return payload


def _require_plain(content: bytes) -> None:
    """Refuse an archive whose parts are compressed, or lie over each other: it would fill the memory.

    Raises:
        ValueError: It is one.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = archive.infolist()
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise ValueError("its parts are compressed")
    if sum(part.file_size for part in parts) > len(content):
        raise ValueError("its parts are larger than the file")
