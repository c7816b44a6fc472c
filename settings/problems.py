"""What is wrong with settings, in words: the setting, its value, where it was given, and what to do."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from settings.sources import Origin
from settings.tree import group_at, nearest

_LONGEST = 60


def explain(error: ValidationError, settings: type[BaseModel], origins: Mapping[str, Origin]) -> str:
    """Say what is wrong, a line for each setting that is.

    Args:
        error: What validation said.
        settings: All settings.
        origins: Where values were given, by dotted name.
    """
    lines = [_explain(detail, settings, origins) for detail in error.errors()]
    if len(lines) == 1:
        return f"bad settings: {lines[0]}"
    return "\n  ".join([f"{len(lines)} bad settings:", *lines])


def _explain(detail: ErrorDetails, settings: type[BaseModel], origins: Mapping[str, Origin]) -> str:
    path = [part for part in detail["loc"] if part != "[key]"]
    is_name = path != list(detail["loc"])
    value = repr(detail["input"]) if is_name else _shown(detail["input"], path, settings)
    known = {"value": value, "msg": detail["msg"], **detail.get("ctx", {})}
    if detail["type"] == "extra_forbidden":
        *group, last = map(str, path)
        known["hint"] = nearest(settings, group, last)
    wrong, remedy = _WORDS.get(detail["type"], ("{value}: {msg}", ""))
    name = f"{'.'.join(map(str, path))}: " if path else ""
    return f"{name}{wrong.format(**known)}{_place(path, origins)}{remedy.format(**known)}"


_WORDS = {
    "extra_forbidden": ("there is no such setting", "; {hint}"),
    "missing": ("is missing", "; it has no default"),
    "greater_than_equal": ("{value} is less than {ge}", "; give {ge} or more"),
    "greater_than": ("{value} is not more than {gt}", "; give more than {gt}"),
    "less_than_equal": ("{value} is more than {le}", "; give {le} or less"),
    "less_than": ("{value} is not less than {lt}", "; give less than {lt}"),
    "literal_error": ("{value} is not allowed", "; give {expected}"),
    "finite_number": ("{value} is not a finite number", ""),
    "string_pattern_mismatch": ("{value} does not match the pattern {pattern}", ""),
    "value_error": ("{error}", ""),
    "int_parsing": ("{value} is not a whole number", ""),
    "int_type": ("{value} is not a whole number", ""),
    "int_from_float": ("{value} is not a whole number", ""),
    "float_parsing": ("{value} is not a number", ""),
    "float_type": ("{value} is not a number", ""),
    "bool_parsing": ("{value} is not true or false", ""),
    "bool_type": ("{value} is not true or false", ""),
    "string_type": ("{value} is not text", "; quote what looks like a number or a date"),
    "path_type": ("{value} is not a path", ""),
    "tuple_type": ("{value} is not a list", ""),
    "dict_type": ("{value} is not a mapping of names to values", ""),
    "model_type": ("{value} is not a group", "; write its settings below it, indented"),
}
"""By kind of error: what is wrong, and what to do."""


def _place(path: Sequence[str | int], origins: Mapping[str, Origin]) -> str:
    """Where the value was given, or the nearest group around it."""
    for length in range(len(path), 0, -1):
        if origin := origins.get(".".join(map(str, path[:length]))):
            return f" ({origin})"
    return ""


def _shown(value: Any, path: Sequence[str | int], settings: type[BaseModel]) -> str:
    """A value as it was given, unless it may hold a password: a secret, or what stands for a whole group."""
    group = group_at(settings, path[:-1])
    field = group.model_fields.get(str(path[-1])) if group and path else None
    if group_at(settings, path) or (field and field.annotation is SecretStr):
        return "what is given"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
