"""Settings as a YAML file that people can read and ``--config`` takes back."""

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, SecretStr

from settings.sources import ENV_PREFIX
from settings.tree import groups_of

_WIDTH = 100


def write_yaml(
    settings: BaseModel,
    header: Sequence[str] = (),
    origin: Callable[[str], str] = lambda name: "",
    chosen: Callable[[str], bool] = lambda name: True,
) -> str:
    """Write settings with what they mean and where they come from as comments; secrets are left out.

    Args:
        settings: All settings.
        header: Paragraphs of comment at the top.
        origin: Where the setting of a dotted name comes from; empty for nothing to be said of it.
        chosen: Whether the setting of a dotted name is written.

    Returns:
        A YAML document; loaded, it gives equal settings if all were chosen and no secret is set.
    """
    top = [line for paragraph in header for line in _comment(paragraph)]
    body = _Writer(origin, chosen).group(settings, settings.model_dump(mode="json"), "")
    return "\n".join([*top, "", *body]) + "\n"


class _Writer(NamedTuple):
    origin: Callable[[str], str]
    chosen: Callable[[str], bool]

    def group(self, group: BaseModel, plain: dict[str, Any], above: str) -> Iterator[str]:
        for name, field in type(group).model_fields.items():
            value, dotted, says = getattr(group, name), above + name, field.description or ""
            if isinstance(value, SecretStr):
                variable = ENV_PREFIX + dotted.upper().replace(".", "__")
                yield from _comment(f"{name}: {says} Not written: give it as {variable}.")
            elif inner := groups_of(value):
                yield from self._groups(name, inner, plain[name], dotted, says)
            elif self.chosen(dotted):
                yield from _comment(f"{says} [{self.origin(dotted)}]" if self.origin(dotted) else says)
                yield from _dump({name: plain[name]})

    def _groups(
        self, name: str, inner: dict[str, BaseModel], plain: dict[str, Any], dotted: str, says: str
    ) -> Iterator[str]:
        body: list[str] = []
        for key, member in inner.items():
            if not key:
                says = (type(member).__doc__ or "").partition("\n")[0]
                body += self.group(member, plain, f"{dotted}.")
            else:
                body += self._groups(key, {"": member}, plain[key], f"{dotted}.{key}", "")
        if any(not line.startswith("#") for line in body):
            yield from _comment(says)
            yield _dump({name: None})[0].removesuffix(" null")
            yield from (f"  {line}" for line in body)


def _comment(text: str) -> list[str]:
    # Every kind of line break is taken out: nothing can leave its comment.
    return [f"# {line}" for line in textwrap.wrap(" ".join(text.split()), _WIDTH)]


def _dump(entry: dict[str, Any]) -> list[str]:
    [plain] = entry.values()
    style = None if isinstance(plain, list | dict) else False
    return yaml.safe_dump(entry, default_flow_style=style, allow_unicode=True, width=math.inf).splitlines()
