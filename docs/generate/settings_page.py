"""``docs/reference/settings.md``: every setting, from the groups that define them."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from core.resources.profiles import CPU_PROFILE, ENVIRONMENTS, GPU_PROFILES, SMALL_GPU
from docs.generate.markdown import code, page, prose, table
from settings.app import Settings
from settings.sources import ENV_PREFIX
from settings.tree import leaves

_NAMES = {int: "whole number", float: "number", bool: "`true` or `false`", Path: "path", SecretStr: "secret"}
_ANY_NAME = "NAME"
"""Stands for a dataset's name where there is a group for each."""

_INTRODUCTION = """\
Settings come from five places. A stronger one wins: a **flag** of the command line, an **environment
variable**, the **settings file** (`--config FILE.yaml`), the **profile** of this machine, the
**default**. `python -m flows.config` shows what holds on your machine, and where each value comes from.

A dotted name is the path in the settings file: `training.epochs` is `epochs:` below `training:`. The
environment variable is the same path with `__` between its parts. A list or a mapping in a variable is
written as JSON. An unknown name is refused, with the nearest one that exists."""


def settings_page() -> str:
    """The page."""
    presets = ("small", "published")
    values = {preset: _values(preset) for preset in presets}
    defaults = {
        name: _shown(value)
        if name == "models.preset" or value == values["published"][name]
        else ", ".join(f"{_shown(values[preset][name])} ({preset})" for preset in presets)
        for name, value in values["small"].items()
    }
    return page("Settings", _INTRODUCTION, *_sections(Settings, (), defaults), *_starting_points())


def _values(preset: str) -> dict[str, Any]:
    settings = Settings.model_validate({"models": {"preset": preset}})
    return {leaf.name: leaf.value for leaf in leaves(settings)}


def _sections(group: type[BaseModel], path: Sequence[str], defaults: dict[str, str]) -> Iterator[str]:
    fields = group.model_fields
    if path:
        depth = len([name for name in path if name != _ANY_NAME])
        yield f"{'#' * (depth + 1)} {'.'.join(path)}"
        yield prose(group.__doc__)
    else:
        yield "## At the top"
    inner = {name: found for name, field in fields.items() if (found := _group_of(field))}
    rows = [
        _row((*path, name), field, defaults.get(".".join((*path, name))))
        for name, field in fields.items()
        if name not in inner or get_origin(field.annotation) is dict
    ]
    if rows:
        yield table(["setting and its variable", "takes", "default", "meaning"], rows)
    for name, below in inner.items():
        each = (_ANY_NAME,) if get_origin(fields[name].annotation) is dict else ()
        yield from _sections(below, (*path, name, *each), defaults)


def _group_of(field: FieldInfo) -> type[BaseModel] | None:
    """The group that a setting is, or a mapping of which it is."""
    annotation: Any = field.annotation
    if get_origin(annotation) is dict:
        annotation = get_args(annotation)[1]
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _row(path: Sequence[str], field: FieldInfo, default: str | None) -> Sequence[str]:
    name = ".".join(path)
    variable = ENV_PREFIX + "__".join(path).upper()
    if default is None:
        default = (
            "must be given" if field.is_required() else _shown(field.get_default(call_default_factory=True))
        )
    anchored = f'<a id="{name}"></a>{code(name)}<br>{code(variable)}'
    return anchored, f"{_type(field.annotation)}{_bounds(field)}", default, field.description or ""


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(map(code, get_args(annotation)))
    if get_origin(annotation) is tuple:
        item = get_args(annotation)[0]
        return f"list of {_NAMES[item]}s" if item in _NAMES else "list of texts"
    if get_origin(annotation) is dict:
        return "group of settings for each name"
    return _NAMES.get(annotation, "text")


def _bounds(field: FieldInfo) -> str:
    bounds: list[str] = []
    for bound in field.metadata:
        match bound:
            case Ge(ge=least):
                bounds.append(f"≥ {least:g}")
            case Gt(gt=below):
                bounds.append(f"> {below:g}")
            case Le(le=most):
                bounds.append(f"≤ {most:g}")
            case Lt(lt=above):
                bounds.append(f"< {above:g}")
    return f", {' and '.join(bounds)}" if bounds else ""


def _shown(value: Any) -> str:
    if value is None or value in ("", {}, [], ()):
        return "empty"
    if isinstance(value, str):
        return code(value)
    return code(json.dumps(value, default=str))


def _starting_points() -> Iterator[str]:
    yield "## Starting points by device"
    yield (
        "Settings that nobody gives are fitted to the first GPU. A GPU that is not in this table gets what "
        "lies between its neighbours by memory; advice from finished plans replaces all of it."
    )
    yield table(
        ["device", "memory", "`training.batch_size`", "`dataset.num_workers`", "`training.mixed_precision`",
         "`training.dqn.replay_capacity`", "`models.preset`"],
        [
            (
                profile.device_name,
                f"{profile.vram_total_mib / 1024:g} GiB" if profile.vram_total_mib else "",
                f"{profile.batch_size}",
                f"{profile.num_workers}",
                _shown(profile.mixed_precision),
                f"{profile.replay_capacity}",
                code(profile.preset),
            )
            for profile in (*GPU_PROFILES, SMALL_GPU, CPU_PROFILE)
        ],
    )  # fmt: skip
    yield "## What an environment sets"
    yield "`environment: auto` sets nothing more than the table above."
    yield table(
        ["`environment`", "setting", "value"],
        [
            (code(environment), code(name), _shown(value))
            for environment, given in ENVIRONMENTS.items()
            for name, value in given.items()
        ],
    )
