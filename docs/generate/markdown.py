"""Pieces of markdown, and what is read out of docstrings."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Sequence
from itertools import pairwise

_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields):$", re.MULTILINE)
_FIELD = re.compile(r"^    (\w+): (.*(?:\n {8,}.*)*)", re.MULTILINE)


def page(title: str, *parts: str) -> str:
    """A page that says it is made by a program."""
    return "\n\n".join([f"# {title}", "<!-- Made by `make docs`; do not edit. -->", *parts]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; line breaks and bars in cells are made harmless."""
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def code(text: str) -> str:
    """A name, a value or a file."""
    return f"`{text}`"


def prose(docstring: str | None) -> str:
    """A docstring without its sections of arguments and results, in markdown."""
    text = inspect.cleandoc(docstring or "")
    head = _SECTION.split(text, maxsplit=1)[0]
    return head.replace("``", "`").strip()


def attributes(docstring: str | None) -> dict[str, str]:
    """What the section ``Attributes`` of a docstring says of each name."""
    _, _, section = inspect.cleandoc(docstring or "").partition("\nAttributes:\n")
    return {name: " ".join(says.split()).replace("``", "`") for name, says in _FIELD.findall(section)}


def field_docstrings(cls: type) -> dict[str, str]:
    """The string below each field of a class, which Python itself does not keep."""
    definitions = ast.walk(ast.parse(textwrap.dedent(inspect.getsource(cls))))
    found = {}
    for pair in (
        pair for node in definitions if isinstance(node, ast.ClassDef) for pair in pairwise(node.body)
    ):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(says))):
                found[name] = prose(says)
    return found
