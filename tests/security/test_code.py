"""What this code never does, looked for in every line of it: running what it reads."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import ROOT

FILES = sorted(
    path
    for package in ("core", "deployments", "docs", "flows", "settings", "tasks")
    for path in (ROOT / package).rglob("*.py")
)
ALLOWED = {
    # A training process reads its job from the pipe of the process that started it, and from nobody else.
    ("core/resources/worker.py", "pickle.loads"),
    # Only the table of contents is looked at, to refuse what would be unpacked.
    ("core/training/artifacts.py", "zipfile.ZipFile"),
}
UNSAFE = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads",
    "dill.load", "dill.loads", "joblib.load", "marshal.load", "marshal.loads", "shelve.open",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader",
    "eval", "exec", "os.system", "os.popen", "tempfile.mktemp",
    "pl.read_database", "mlflow.pyfunc.load_model", "mlflow.pytorch.load_model",
    "tarfile.open", "zipfile.ZipFile", "shutil.unpack_archive",
}  # fmt: skip
REQUIRED = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}
"""Functions, and the argument without which they might run what they read."""


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def value_of(call: ast.Call, name: str) -> object:
    found = [keyword.value for keyword in call.keywords if keyword.arg == name]
    return found[0].value if found and isinstance(found[0], ast.Constant) else None


def problems(path: Path) -> Iterator[str]:
    where = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
    for name, call in calls(path):
        if name in UNSAFE and (where, name) not in ALLOWED:
            yield f"{where}:{call.lineno}: {name}"
        if name in REQUIRED and value_of(call, REQUIRED[name][0]) is not REQUIRED[name][1]:
            yield f"{where}:{call.lineno}: {name} without {REQUIRED[name][0]}={REQUIRED[name][1]}"
        if value_of(call, "shell") is True or value_of(call, "verify") is False:
            yield f"{where}:{call.lineno}: {name} with a shell, or without certificates"


def test_nothing_that_is_read_is_run() -> None:
    assert len(FILES) > 150
    assert [problem for path in FILES for problem in problems(path)] == []


@pytest.mark.parametrize(
    "line",
    [
        "pickle.loads(content)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=safe)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, yaml.Loader)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
        "httpx.get(url, verify=False)",
    ],
)
def test_this_test_would_find_it(line: str, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(f"def f(content, path, text, url, safe):\n    {line}\n")
    assert list(problems(tmp_path / "bad.py"))
