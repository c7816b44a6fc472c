"""The documentation as tests see it: its blocks of code, its commands, its links and anchors."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.commands import ROOT

DOCUMENTS = sorted(
    (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")),
    key=lambda path: (path.parent != ROOT, path),
)
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_ANCHOR = re.compile(r'<a id="([^"]+)">')


class Block(NamedTuple):
    """A fenced block: where it begins, in which language, what it says."""

    line: int
    language: str
    text: str


class Command(NamedTuple):
    """A command of a ``console`` block, without its comment, and the output shown below it."""

    line: int
    text: str
    output: str


def blocks(document: Path, language: str) -> list[Block]:
    """All blocks of one language, in order."""
    text = document.read_text()
    found = (Block(text.count("\n", 0, m.start()) + 1, m.group(1), m.group(2)) for m in _FENCE.finditer(text))
    return [block for block in found if block.language == language]


def commands(document: Path) -> list[Command]:
    """All commands of a document, in order."""
    return [command for block in blocks(document, "console") for command in _commands(block)]


def _commands(block: Block) -> Iterator[Command]:
    lines = block.text.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    assert starts[:1] == [0], f"line {block.line}: a console block begins with a command"
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        text = re.sub(r"\s+#\s.*$", "", lines[start].removeprefix("$ "))
        yield Command(block.line + 1 + start, text, "\n".join(lines[start + 1 : end]).strip())


def links(document: Path) -> list[str]:
    """Targets of all links and pictures outside of code that do not leave the repository."""
    targets: list[str] = _LINK.findall(_FENCE.sub("", document.read_text()))
    return [target for target in targets if "://" not in target and not target.startswith("mailto:")]


def anchors(document: Path) -> set[str]:
    """What a link may name after ``#``: headings as GitHub turns them into anchors, and explicit ones."""
    text = _FENCE.sub("", document.read_text())
    slugs = (re.sub(r"[^\w\- ]", "", heading.lower()).strip() for heading in _HEADING.findall(text))
    return {slug.replace(" ", "-") for slug in slugs} | set(_ANCHOR.findall(text))


def pattern(output: str) -> re.Pattern[str]:
    """What real output must contain to be as shown: words as they are, anything for words with digits.

    ``...`` stands for any text, ``PLAN_ID`` for a plan, and space is as good as any other space.
    """
    words = [
        r"\S+" if re.search(r"\d|PLAN_ID", word) else ".*?".join(map(re.escape, word.split("...")))
        for word in output.split()
    ]
    return re.compile(r"\s+".join(words).replace(r"\s+.*?\s+", ".*?"), re.DOTALL)
