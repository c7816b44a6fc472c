"""One way to write a thing down: the same content always gives the same bytes."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel


def finite(value: Any) -> Any:
    """Replace numbers that JSON cannot hold (NaN, infinities) by None, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


def to_json(view: BaseModel) -> bytes:
    """Write a projection as JSON: sorted keys, two spaces, one newline at the end, null for undefined."""
    content = view.model_dump(mode="json")
    return (
        json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    ).encode()


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of a mapping's canonical JSON, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
