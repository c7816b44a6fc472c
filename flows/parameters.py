"""Types of flows' parameters: what the Prefect UI shows as a form, and what its API refuses.

A title names the choice between ways to give a value, as in ``choose`` or ``by name``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from settings.app import Environment
from settings.names import PLAN_PATTERN, DatasetName

BuiltIn = Literal["hcrl_ch", "hcrl_sa", "set_01", "set_02", "set_03", "set_04", "demo"]

Dataset = Annotated[BuiltIn, Field(title="choose")] | Annotated[DatasetName, Field(title="by name")]
"""A built-in dataset, or the name of one that the settings describe."""

Datasets = (
    Annotated[Sequence[BuiltIn], Field(title="choose")]
    | Annotated[Sequence[DatasetName], Field(title="by name")]
)
"""Any number of them."""

File = Annotated[Path, Field(title="path")] | None
"""A file or folder on the machine of the worker."""

EnvironmentChoice = Annotated[Environment, Field(title="choose")] | None
"""What settings are fitted to."""

PlanId = Annotated[str, Field(title="id", pattern=PLAN_PATTERN)]
"""A plan; its id names files."""

StartJitter = Annotated[int, Field(ge=0, le=86_400)]
"""Seconds."""

Cause = Annotated[str, Field(title="id")] | None
"""An event of Prefect's."""
