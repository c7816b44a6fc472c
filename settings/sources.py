"""Where settings are given: a YAML file and environment variables, each value with its place."""

import os
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel
from pydantic_settings import BaseSettings, EnvSettingsSource
from pydantic_settings import SettingsError as EnvironmentSettingsError

from settings.errors import SettingsError
from settings.tree import flat, group_at, merge, nearest

ENV_PREFIX = "CAN_RETRAIN__"
MOST_LETTERS = 2**20
MOST_NODES = 20_000
"""Of a settings file: what is larger was made to fill the memory."""
_FLAGS = ("data.data_dir", "output_dir", "environment")


class Origin(NamedTuple):
    """Where the value of a setting comes from.

    Attributes:
        level: The kind of place, strongest first: flag, variable, file, profile, default.
        place: The place itself, for people: ``environment variable NAME``, ``settings.yaml:12``.
    """

    level: Literal["flag", "variable", "file", "profile", "default"]
    place: str

    def __str__(self) -> str:
        """For people."""
        return self.place


class Source(NamedTuple):
    """What one source gives.

    Attributes:
        values: Nested, as ``Settings`` has them.
        origins: By dotted name, groups and items of lists included.
    """

    values: dict[str, Any]
    origins: dict[str, Origin]


def read_file(path: Path, settings: type[BaseModel]) -> Source:
    """Read a settings file.

    A group that is written but empty (all of it commented out, say) gives nothing.

    Args:
        path: The YAML file.
        settings: All settings, to know which names are groups.

    Raises:
        SettingsError: It cannot be read, is no mapping of groups, or gives something twice.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MOST_LETTERS + 1)
        if len(text) > MOST_LETTERS:
            raise SettingsError(f"{path}: a settings file has at most {MOST_LETTERS} letters")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is not None:
            _require_plain(node, path, (), count(1))
        content = {} if node is None else loader.construct_document(node)
    except RecursionError as error:
        raise SettingsError(f"cannot read the settings file {path}: it is nested too deeply") from error
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise SettingsError(f"cannot read the settings file {path}: {error}") from error
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: a settings file is a mapping of groups, not a {type(content).__name__}")
    lines = {} if node is None else dict(_lines(node, ""))
    origins = {name: Origin("file", f"{path}:{line}") for name, line in lines.items()}
    return Source(_without_empty_groups(content, settings, ()), origins)


def _require_plain(
    node: yaml.Node, path: Path, above: tuple[yaml.Node, ...], num_nodes: Iterator[int]
) -> None:
    """Refuse what YAML allows and a person does not mean: aliases of aliases of aliases count each time."""
    line = node.start_mark.line + 1
    if next(num_nodes) > MOST_NODES:
        raise SettingsError(f"{path}:{line}: with all its aliases, it gives more than {MOST_NODES} values")
    if any(node is outer for outer in above):
        raise SettingsError(f"{path}:{line}: a settings file cannot hold a part that contains itself")
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _require_plain(item, path, (*above, node), num_nodes)
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, int] = {}
    for key, value in node.value:
        at = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.tag not in _NAMES:
            raise SettingsError(f"{path}:{at}: the keys of a settings file are names; quote a number")
        if key.value in first:
            raise SettingsError(f"{path}:{at}: {key.value} was given in line {first[key.value]} already")
        first[key.value] = at
        _require_plain(value, path, (*above, node), num_nodes)


_NAMES = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")


def _lines(node: yaml.Node, name: str) -> Iterator[tuple[str, int]]:
    """Line of every name and item in a constructed document, in which merge keys are resolved."""
    children: list[tuple[str, int, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        children = [(key.value, key.start_mark.line + 1, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        children = [(str(i), item.start_mark.line + 1, item) for i, item in enumerate(node.value)]
    for part, line, child in children:
        dotted = f"{name}.{part}" if name else part
        yield dotted, line
        yield from _lines(child, dotted)


def _without_empty_groups(
    content: dict[str, Any], settings: type[BaseModel], above: tuple[str, ...]
) -> dict[str, Any]:
    kept = {}
    for name, value in content.items():
        path = (*above, name)
        if value is None and group_at(settings, path):
            continue
        kept[name] = _without_empty_groups(value, settings, path) if isinstance(value, dict) else value
    return kept


def read_environment(settings: type[BaseSettings]) -> Source:
    """Read the environment variables that begin with ``ENV_PREFIX``; ``__`` separates the parts of a name.

    The more of a name a variable spells out, the later it is taken: it wins over JSON for a whole group.

    Raises:
        SettingsError: A variable names no setting, or is no JSON where a list or a group is asked for.
    """
    given = Source({}, {})
    names = [name for name in os.environ if name.upper().startswith(ENV_PREFIX)]
    for name in sorted(names, key=lambda name: name.count("__")):
        first, *rest = name[len(ENV_PREFIX) :].lower().split("__")
        try:
            values = _Variable(settings, name)()
        except EnvironmentSettingsError as error:
            raise SettingsError(
                f"environment variable {name}: a list or a group is given as JSON, as in [1, 2] or "
                f'{{"epochs": 3}}: {error.__cause__}'
            ) from error
        if not values:
            where = ([], first) if first not in settings.model_fields else ([first, *rest[:-1]], rest[-1])
            dotted = ".".join([first, *rest])
            raise SettingsError(
                f"environment variable {name}: there is no setting {dotted!r}; {nearest(settings, *where)}"
            )
        origins = {dotted: Origin("variable", f"environment variable {name}") for dotted, _ in flat(values)}
        given = Source(merge(given.values, values), {**given.origins, **origins})
    return given


class _Variable(EnvSettingsSource):
    """One environment variable only: what it gives, or what is wrong with it, is known to be its own."""

    def __init__(self, settings: type[BaseSettings], name: str) -> None:
        self._name = name
        super().__init__(settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {self._name.lower(): os.environ[self._name]}


def read_overrides(overrides: dict[str, Any]) -> Source:
    """What flags or a caller say, in the shape of the settings."""
    return Source(overrides, {name: Origin("flag", _argument(name)) for name, _ in flat(overrides)})


def _argument(name: str) -> str:
    is_flag = name in _FLAGS
    return f"flag --{name.rpartition('.')[2].replace('_', '-')}" if is_flag else f"argument {name}"
