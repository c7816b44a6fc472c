"""``docs/reference/commands.md``: what every command says of itself."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from docs.generate.markdown import page, prose

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("flows", "deployments")
_INTERNAL = ("flows.server",)
"""Started by other commands."""

_INTRODUCTION = """\
Run them from the repository with `.venv` active. Every command of `flows` takes `--config`, `--output-dir`
and `--verbose`; a flag wins over the environment and the settings file.

All commands end with the same exit codes:

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | something failed, and the message says what; whatever did not depend on it was done |
| 2 | bad usage or bad settings; nothing was begun |
| 130 | interrupted with Ctrl-C; `flows.retrain` can be taken up again with `--resume` |"""


def commands_page() -> str:
    """The page."""
    modules = sorted(_commands())
    with ThreadPoolExecutor(2) as pool:
        helps = pool.map(_help, modules)
    return page(
        "Commands",
        _INTRODUCTION,
        *(part for module, text in zip(modules, helps, strict=True) for part in _command(module, text)),
    )


def _commands() -> Iterator[str]:
    for package in _PACKAGES:
        for path in (_ROOT / package).glob("*.py"):
            module = f"{package}.{path.stem}"
            if module not in _INTERNAL and "__main__" in path.read_text():
                yield module


def _command(module: str, text: str) -> Iterator[str]:
    source = _ROOT / f"{module.replace('.', '/')}.py"
    yield f"## python -m {module}"
    yield prose(ast.get_docstring(ast.parse(source.read_text())))
    yield f"```text\n{text.strip()}\n```"


def _help(module: str) -> str:
    shown = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=_ROOT,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return shown.stdout
