"""Types of flows' parameters: what the Prefect UI shows as a form, and what its API refuses.

A title names the choice between a value and None, as in ``path``. There is no other choice: between two ways
to give the same type of JSON the form goes back to the first one as soon as something is typed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from settings.app import Environment
from settings.names import PLAN_PATTERN, DatasetName


def _typed(given: Any) -> Any:
    """A path without what a person types beside it: the field of a form takes line breaks."""
    path = given.strip() if isinstance(given, str) else given
    if path == "":
        raise ValueError("is empty; None means that no path is given")
    return path


Dataset = DatasetName
"""A built-in dataset, or one that the settings describe."""

Datasets = Sequence[Dataset]
"""Any number of them."""

File = Annotated[Path, BeforeValidator(_typed), Field(title="path")] | None
"""A file or folder on the machine of the worker."""

EnvironmentChoice = Annotated[Environment, Field(title="choose")] | None
"""What settings are fitted to."""

PlanId = Annotated[str, Field(title="id", pattern=PLAN_PATTERN)]
"""A plan; its id names files."""

StartJitter = Annotated[int, Field(ge=0, le=86_400)]
"""Seconds."""

Cause = Annotated[str, Field(title="id")] | None
"""An event of Prefect's."""
