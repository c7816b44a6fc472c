"""Settings as a tree: each has a dotted name, a plain value and a description."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo


class Leaf(NamedTuple):
    """One setting.

    Attributes:
        name: Its dotted name: ``training.dqn.episodes``.
        value: What it is, as JSON has it; stars for a secret that is set.
        field: Its definition.
        is_secret: Whether its value may be shown to nobody.
    """

    name: str
    value: Any
    field: FieldInfo
    is_secret: bool


def leaves(settings: BaseModel) -> Iterator[Leaf]:
    """Every setting, in the order of definition; entries of a mapping of groups one by one."""
    return _leaves(settings, settings.model_dump(mode="json"), "")


def _leaves(group: BaseModel, dumped: Mapping[str, Any], above: str) -> Iterator[Leaf]:
    for name, field in type(group).model_fields.items():
        value, plain, dotted = getattr(group, name), dumped[name], f"{above}{name}"
        if inner := groups_of(value):
            for key, member in inner.items():
                below = plain[key] if key else plain
                yield from _leaves(member, below, f"{dotted}.{key}." if key else f"{dotted}.")
        else:
            yield Leaf(dotted, plain, field, isinstance(value, SecretStr))


def groups_of(value: Any) -> dict[str, BaseModel]:
    """The groups that a setting's value is made of: one without a name, or a mapping's by name."""
    if isinstance(value, BaseModel):
        return {"": value}
    if isinstance(value, dict) and all(isinstance(member, BaseModel) for member in value.values()):
        return value
    return {}


def names_of(group: type[BaseModel], above: str = "") -> Iterator[str]:
    """Dotted names of all settings there are, groups included; a mapping of groups counts as one."""
    for name, field in group.model_fields.items():
        yield f"{above}{name}"
        if _is_group(inner := field.annotation):
            yield from names_of(inner, f"{above}{name}.")


def group_at(group: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel] | None:
    """The group that a path of names leads to; None where it leads to a plain setting, or nowhere."""
    rest = list(path)
    while rest:
        field = group.model_fields.get(str(rest.pop(0)))
        annotation: Any = field.annotation if field else None
        if get_origin(annotation) is dict and rest:
            annotation = get_args(annotation)[1]
            rest.pop(0)
        if not _is_group(annotation):
            return None
        group = annotation
    return group


def _is_group(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def nearest(settings: type[BaseModel], group: Sequence[str], name: str) -> str:
    """A hint for a name that does not exist: the nearest one in its group or anywhere, else what there is.

    Args:
        settings: All settings.
        group: Path to the group in which the name was given.
        name: The name.
    """
    there = group_at(settings, group)
    siblings = there.model_fields if there else {}
    prefix = "".join(f"{part}." for part in group)
    everywhere = {known.rpartition(".")[2]: known for known in reversed(list(names_of(settings)))}
    words = name.replace("_", " ").lower() or "no name"
    described = [known for known, field in siblings.items() if words in (field.description or "").lower()]
    found = [
        *([everywhere[name]] if name in everywhere else []),
        *(prefix + close for close in difflib.get_close_matches(name, siblings, n=1)),
        *(prefix + known for known in described),
        *(everywhere[close] for close in difflib.get_close_matches(name, everywhere, n=1, cutoff=0.75)),
    ]
    if found:
        return f"did you mean {found[0]}?"
    return f"known here: {', '.join(siblings)}" if siblings else f"{'.'.join(group)} is no group"


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested dictionaries as one; where both say something, the second one's word counts."""
    merged = dict(base)
    for key, value in over.items():
        inner = merged.get(key)
        merged[key] = (
            merge(inner, value) if isinstance(value, Mapping) and isinstance(inner, Mapping) else value
        )
    return merged


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted name as nested dictionaries."""
    made: dict[str, Any] = {}
    for name, value in values.items():
        *groups, last = name.split(".")
        inner = made
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = value
    return made


def flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Nested dictionaries as values by dotted name, the dictionaries themselves included."""
    for key, value in values.items():
        yield f"{above}{key}", value
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{key}.")
