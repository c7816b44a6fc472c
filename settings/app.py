"""All settings: defaults, then the settings file, then environment variables, then command-line flags."""

import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as EnvironmentSettingsError

from settings.data import DataSettings
from settings.dataset import DatasetSettings
from settings.errors import SettingsError
from settings.graph import GraphSettings
from settings.models import ModelSettings
from settings.resources import ResourceSettings
from settings.tracking import TrackingSettings
from settings.training import TrainingSettings

ENV_PREFIX = "CAN_RETRAIN__"


class Settings(BaseSettings):
    """Everything a plan needs to know. Frozen: a changed setting is a new object."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
    )

    output_dir: Path = Field(
        default=Path("outputs/enhanced_retraining"), description="Where every output goes."
    )
    data: DataSettings = Field(default_factory=DataSettings)
    dataset: DatasetSettings = Field(default_factory=DatasetSettings)
    graph: GraphSettings = Field(default_factory=GraphSettings)
    models: ModelSettings = Field(default_factory=lambda: ModelSettings.model_validate({}))
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    resources: ResourceSettings = Field(default_factory=ResourceSettings)
    tracking: TrackingSettings = Field(default_factory=TrackingSettings)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is handed in: ``load_settings`` merges the sources once, a copy re-reads none."""
        del settings_cls
        return (init_settings,)


def load_settings(config: Path | None = None, **overrides: Any) -> Settings:
    """Read settings from defaults, a YAML file, the environment and explicit overrides, weakest first.

    Args:
        config: YAML file with the groups of ``Settings``, or None.
        overrides: Top-level groups as nested dictionaries, as given on the command line.

    Returns:
        The validated settings.

    Raises:
        SettingsError: A file that cannot be read or a value that is not allowed; every bad field is named.
    """
    source = str(config) if config else "defaults and environment"
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8")) if config else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"cannot read the settings file {config}: {error}") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise SettingsError(
            f"{config}: a settings file is a mapping of groups, not a {type(content).__name__}"
        )
    if not all(isinstance(key, str) for key in content):
        raise SettingsError(f"{config}: the keys of a settings file are names of groups, not {list(content)}")
    try:
        given = _merge(_merge(content, _environment()), overrides)
        return Settings.model_validate(given)
    except ValidationError as error:
        fields = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise SettingsError(f"bad settings ({source}): {fields}") from error


def flag_overrides(data_dir: Path | None, output_dir: Path | None) -> dict[str, Any]:
    """What the command line overrides, in the shape of the settings."""
    data = {"data": {"data_dir": data_dir}} if data_dir else {}
    return {**data, "output_dir": output_dir} if output_dir else data


def _environment() -> dict[str, Any]:
    for name in os.environ:
        group = name.upper().removeprefix(ENV_PREFIX).split("__")[0].lower()
        if name.upper().startswith(ENV_PREFIX) and group not in Settings.model_fields:
            known = ", ".join(Settings.model_fields)
            raise SettingsError(
                f"environment variable {name}: there is no setting {group!r}; known are {known}"
            )
    try:
        return EnvSettingsSource(Settings)()
    except EnvironmentSettingsError as error:
        raise SettingsError(f"bad settings (environment): {error}: {error.__cause__}") from error


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        inner = merged.get(key)
        merged[key] = _merge(inner, value) if isinstance(value, dict) and isinstance(inner, dict) else value
    return merged
