"""All settings: defaults, then the settings file, then environment variables, then command-line flags."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from settings.data import DataSettings
from settings.dataset import DatasetSettings
from settings.drift import DriftSettings
from settings.errors import SettingsError
from settings.graph import GraphSettings
from settings.models import ModelSettings
from settings.names import Folder
from settings.problems import explain
from settings.resources import ResourceSettings
from settings.retention import RetentionSettings
from settings.scheduling import SchedulingSettings
from settings.sources import ENV_PREFIX, Origin, read_environment, read_file, read_overrides
from settings.storage import StorageSettings
from settings.tracking import TrackingSettings
from settings.training import TrainingSettings
from settings.tree import merge

Environment = Literal["auto", "gpu", "cpu", "ci"]


class Settings(BaseSettings):
    """Everything a plan needs to know. Frozen: a changed setting is a new object."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
    )

    environment: Environment = Field(
        default="auto",
        description="What settings that are not given are fitted to: `auto` to this machine's first GPU, or "
        "to its CPU; `gpu` likewise, and no GPU is an error; `cpu` leaves GPUs alone; `ci` is a quick run "
        "with the same bits everywhere: small models, few epochs, one thread, no MLflow.",
    )
    output_dir: Folder = Field(
        default=Path("outputs/enhanced_retraining"), description="Where every output goes."
    )
    data: DataSettings = Field(default_factory=DataSettings)
    dataset: DatasetSettings = Field(default_factory=DatasetSettings)
    graph: GraphSettings = Field(default_factory=GraphSettings)
    models: ModelSettings = Field(default_factory=lambda: ModelSettings.model_validate({}))
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    resources: ResourceSettings = Field(default_factory=ResourceSettings)
    scheduling: SchedulingSettings = Field(default_factory=SchedulingSettings)
    tracking: TrackingSettings = Field(default_factory=TrackingSettings)
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    drift: DriftSettings = Field(default_factory=DriftSettings)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is handed in: ``load_settings`` merges the sources once, a copy re-reads none."""
        del settings_cls
        return (init_settings,)

    @model_validator(mode="after")
    def _one_device(self) -> Self:
        if (self.environment, self.training.device) in {("gpu", "cpu"), ("cpu", "cuda")}:
            raise ValueError(
                f"environment is {self.environment}, but training.device is {self.training.device}: leave "
                "one of the two out"
            )
        return self


@dataclass(frozen=True)
class LoadedSettings:
    """Settings, and where each of those given was given.

    Attributes:
        settings: The settings.
        origins: By dotted name; a name that is absent has its default.
    """

    settings: Settings
    origins: Mapping[str, Origin]


def read_settings(config: Path | None = None, **overrides: Any) -> LoadedSettings:
    """Read settings from defaults, a YAML file, the environment and explicit overrides, weakest first.

    Args:
        config: YAML file with the groups of ``Settings``, or None.
        overrides: Top-level groups as nested dictionaries, as given on the command line.

    Returns:
        The validated settings with the origin of every value.

    Raises:
        SettingsError: A file that cannot be read or a value that is not allowed; every bad setting is named,
            with its value and where it was given.
    """
    file = [read_file(config, Settings)] if config else []
    sources = [*file, read_environment(Settings), read_overrides(overrides)]
    origins = reduce(lambda weaker, source: {**weaker, **source.origins}, sources, dict[str, Origin]())
    given = reduce(lambda weaker, source: merge(weaker, source.values), sources, dict[str, Any]())
    try:
        return LoadedSettings(Settings.model_validate(given), origins)
    except ValidationError as error:
        raise SettingsError(explain(error, Settings, origins)) from error


def load_settings(config: Path | None = None, **overrides: Any) -> Settings:
    """``read_settings`` for those who need not know where a value was given."""
    return read_settings(config, **overrides).settings


def flag_overrides(
    data_dir: Path | None, output_dir: Path | None, environment: str | None = None
) -> dict[str, Any]:
    """What the command line overrides, in the shape of the settings."""
    flags = {
        "data": {"data_dir": data_dir} if data_dir else None,
        "output_dir": output_dir,
        "environment": environment,
    }
    return {name: value for name, value in flags.items() if value}
