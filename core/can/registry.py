"""Which captures belong to a dataset, and what each is for."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.can.demo import ensure_demo
from core.errors import CaptureError, DatasetNotFoundError
from settings.data import DatasetSettings, DataSettings

Role = Literal["attack_free", "with_attacks", "test"]

SUFFIXES = frozenset({".csv", ".txt", ".log", ".asc", ".blf", ".trc", ".db", ".mf4", ".parquet"})
"""Files of other kinds in a dataset's folder (notes, pictures) are no captures; ``.gz`` may follow."""
DEMO = "demo"
PUBLISHED = {
    "hcrl_ch": "hcrl-ch",
    "hcrl_sa": "hcrl-sa",
    "set_01": "set_01",
    "set_02": "set_02",
    "set_03": "set_03",
    "set_04": "set_04",
}
"""can-train-and-test v1.5: names of the datasets and their folders."""
SETTINGS: dict[Role, str] = {"attack_free": "attack_free", "with_attacks": "with_attacks", "test": "tests"}
"""By which field of ``DatasetSettings`` the captures of a role are found."""


@dataclass(frozen=True)
class Capture:
    """One capture file of a dataset.

    Attributes:
        path: The file.
        role: What it is for.
        folder: Name of its test folder, or of the training folder it comes from.
    """

    path: Path
    role: Role
    folder: str


def known_datasets(data: DataSettings) -> dict[str, DatasetSettings]:
    """Layouts of the published datasets, the demo and the user's own, by name.

    A published folder may be spelled with ``_`` or ``-``.
    """
    built_in = {name: DatasetSettings(folder=folder) for name, folder in PUBLISHED.items()}
    return {**built_in, DEMO: DatasetSettings(folder=str(data.demo.cache_dir)), **data.datasets}


def find_captures(name: str, data: DataSettings) -> list[Capture]:
    """List a dataset's captures; the demo's are simulated first where they are not there yet.

    Args:
        name: Of a known dataset.
        data: Where the datasets are.

    Returns:
        The captures by role (training before test) and path, whatever order the file system has.

    Raises:
        DatasetNotFoundError: An unknown name, a missing folder, or a pattern without captures; the message
            names the path and the setting.
        CaptureError: The same file, or a link to it, is for two roles, or a folder cannot be read.
    """
    known = known_datasets(data)
    if name not in known:
        raise DatasetNotFoundError(
            f"unknown dataset {name!r}: known are {', '.join(known)}; register others as data.datasets.NAME"
        )
    layout = known[name]
    is_demo = name == DEMO and name not in data.datasets
    folder = ensure_demo(data.demo) if is_demo else _find_folder(name, layout, data)
    captures = {role: _match_all(name, folder, patterns, role) for role, patterns in _roles(layout, folder)}
    if not captures["attack_free"] and not captures["with_attacks"]:
        raise DatasetNotFoundError(
            f"dataset {name} has no training captures: set data.datasets.{name}.attack_free or .with_attacks"
        )
    found = [capture for role in captures.values() for capture in role]
    _refuse_two_roles(name, found)
    return found


def captures_below(folder: Path) -> list[Path]:
    """Capture files in a folder and below it, each once, by path.

    Raises:
        CaptureError: The folder cannot be read.
    """
    try:
        return sorted(_walk(folder))
    except OSError as error:
        raise CaptureError(f"cannot look for captures below {folder}: {error}") from error


def _refuse_two_roles(name: str, captures: list[Capture]) -> None:
    taken: dict[str, Capture] = {}
    for capture in captures:
        other = taken.setdefault(os.path.realpath(capture.path), capture)
        if other is capture:
            continue
        roles = "as training and as test" if capture.role == "test" else "as attack-free and as with attacks"
        same = "" if other.path == capture.path else f" (it is the same file as {other.path})"
        raise CaptureError(
            f"{capture.path} is matched {roles} of dataset {name}{same}: change "
            f"data.datasets.{name}.{SETTINGS[other.role]} or data.datasets.{name}.{SETTINGS[capture.role]}"
        )


def _roles(layout: DatasetSettings, folder: Path) -> list[tuple[Role, tuple[str, ...]]]:
    tests = layout.tests
    if layout.holdout_fraction:
        # Where a share of the training captures is held out, test folders are welcome but not needed.
        tests = tuple(pattern for pattern in tests if any(folder.glob(pattern)))
    return [
        ("attack_free", layout.attack_free),
        ("with_attacks", layout.with_attacks),
        ("test", tests),
    ]


def _find_folder(name: str, layout: DatasetSettings, data: DataSettings) -> Path:
    spellings = [layout.folder]
    if name in PUBLISHED:
        spellings += [layout.folder.replace("-", "_"), layout.folder.replace("_", "-")]
    for spelling in spellings:
        folder = data.data_dir / spelling
        if folder.is_dir():
            return folder
    raise DatasetNotFoundError(
        f"dataset {name}: there is no folder {(data.data_dir / layout.folder).absolute()} (settings "
        f"data.data_dir={data.data_dir}, data.datasets.{name}.folder={layout.folder})"
    )


def _match_all(name: str, folder: Path, patterns: tuple[str, ...], role: Role) -> list[Capture]:
    """Every file once, also where patterns overlap or a link leads to a file that is matched itself."""
    setting = f"data.datasets.{name}.{SETTINGS[role]}"
    captures: list[Capture] = []
    for pattern in patterns:
        try:
            found = [
                capture for match in folder.glob(pattern) for capture in _captures_in(match, folder, role)
            ]
        except (OSError, ValueError, NotImplementedError) as error:
            raise CaptureError(
                f"dataset {name}: cannot look for {folder / pattern} ({setting}): {error}"
            ) from error
        if not found:
            raise DatasetNotFoundError(
                f"dataset {name}: no captures at {(folder / pattern).absolute()} (settings {setting} and "
                f"data.data_dir)"
            )
        captures += found
    once: dict[str, Capture] = {}
    for capture in sorted(captures, key=lambda capture: capture.path.as_posix()):
        once.setdefault(os.path.realpath(capture.path), capture)
    return list(once.values())


def _captures_in(match: Path, folder: Path, role: Role) -> Iterator[Capture]:
    below = match.relative_to(folder)
    if match.is_dir():
        for path in _walk(match):
            yield Capture(path, role, below.as_posix())
    elif _is_capture(match.name):
        yield Capture(match, role, below.with_name(_stem(match.name)).as_posix())


def _walk(folder: Path) -> Iterator[Path]:
    """Capture files below a folder; links to folders are followed, each real folder is entered once."""

    def refuse(error: OSError) -> None:
        raise error

    entered: set[str] = set()
    for root, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(root)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders.sort()
        yield from (Path(root, name) for name in files if _is_capture(name))


def _is_capture(file_name: str) -> bool:
    suffixes = Path(file_name.lower()).suffixes
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    return not file_name.startswith(".") and bool(SUFFIXES & set(suffixes[-1:]))


def _stem(file_name: str) -> str:
    stem = Path(file_name).stem
    return Path(stem).stem if file_name.lower().endswith(".gz") else stem
