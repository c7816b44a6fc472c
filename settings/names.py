"""Names that become folders, files and Prefect runs, and folders: one pattern each, at every entrance."""

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

DATASET_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
PLAN_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"
_DEVICES = re.compile(r"con|prn|aux|nul|com\d|lpt\d", re.IGNORECASE)
"""What Windows, which may hold a share that outputs lie on, takes for devices."""


def is_dataset_name(text: str) -> bool:
    """Whether a text may name a dataset: it cannot leave its folder, on any system."""
    return bool(re.fullmatch(DATASET_PATTERN, text)) and text[-1:] != "\n" and not _DEVICES.fullmatch(text)


def is_plan_id(text: str) -> bool:
    """Whether a text may name a plan: the name of its stream and of its files."""
    return bool(re.fullmatch(PLAN_PATTERN, text)) and text[-1:] != "\n"


def _no_device(name: str) -> str:
    if not is_dataset_name(name):
        raise ValueError(f"{name!r} is a device on Windows: choose another name")
    return name


DatasetName = Annotated[str, StringConstraints(pattern=DATASET_PATTERN), AfterValidator(_no_device)]
"""Names files and Prefect runs, so letters, digits, ``_`` and ``-`` only, at most 64."""
PlanId = Annotated[str, StringConstraints(pattern=PLAN_PATTERN)]
"""Names a stream and files: letters, digits, ``_``, ``-`` and ``.``, at most 128."""


def _with_home(path: Path) -> Path:
    # Path.expanduser() raises where there is no such user, and a folder may really begin with a tilde.
    return Path(os.path.expanduser(path))  # noqa: PTH111


Folder = Annotated[Path, AfterValidator(_with_home)]
"""A folder; a leading ``~`` is the home of whoever runs, as in a shell."""
