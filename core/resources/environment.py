"""The configuration manager: settings for this machine, where each comes from, and what is unwise."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.resources.cautions import Caution, warnings_for
from core.resources.machine import Machine, probe_machine
from core.resources.profiles import GpuProfile, fit_to_machine, starting_points, training_gpu
from settings.app import LoadedSettings, Settings, read_settings
from settings.as_yaml import write_yaml
from settings.errors import SettingsError
from settings.sources import Origin
from settings.tree import leaves


@dataclass(frozen=True)
class TrainingEnvironmentConfig:
    """Settings fitted to a machine.

    Attributes:
        settings: What a plan would go by; ``RetrainingCoordinator(config.settings)`` makes one.
        machine: The machine they are fitted to.
        profile: The starting points of its GPU, or of a CPU.
        origins: Where each setting comes from, by dotted name.
        warnings: What is unwise.
    """

    settings: Settings
    machine: Machine
    profile: GpuProfile
    origins: Mapping[str, Origin]
    warnings: tuple[Caution, ...]

    def to_yaml(self, only_changed: bool = False) -> str:
        """The settings as a file for ``--config``, with what they mean and where they come from.

        Secrets are left out.

        Args:
            only_changed: Leave out what has its default.
        """
        gpu = training_gpu(self.settings, self.machine)
        header = [
            f"Settings for {gpu.name if gpu else self.machine.cpu_model} from {self.profile.label}; behind "
            "each, in brackets, where it came from.",
            "Hand this file back with --config. A setting that is taken out is fitted to the machine again, "
            "or has its default.",
        ]
        return write_yaml(
            self.settings,
            header,
            lambda name: str(self.origins[name]),
            lambda name: not (only_changed and self.origins[name].level == "default"),
        )

    def write(self, path: Path, only_changed: bool = False) -> None:
        """Write ``to_yaml`` to a new file.

        Raises:
            SettingsError: The file exists, or cannot be written.
        """
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(self.to_yaml(only_changed))
        except FileExistsError as error:
            raise SettingsError(f"{path} exists and is not overwritten: name another file") from error
        except OSError as error:
            raise SettingsError(f"cannot write {path}: {error.strerror}") from error


def create_optimized_config(environment_name: str = "auto") -> TrainingEnvironmentConfig:
    """Detect this machine and fit the settings to it: defaults, profile, environment variables.

    Args:
        environment_name: ``auto``, ``gpu``, ``cpu`` or ``ci``, as the setting ``environment``; ``auto``
            leaves that to the environment variable, if it is set.

    Returns:
        The settings, ready for a coordinator or for a file, with their origins and warnings.

    Raises:
        SettingsError: A bad environment variable, no such environment, or gpu where there is none.
    """
    named = {} if environment_name == "auto" else {"environment": environment_name}
    return fit_config(read_settings(None, **named), probe_machine())


def fit_config(loaded: LoadedSettings, machine: Machine) -> TrainingEnvironmentConfig:
    """Fit settings to a machine and remember where each of them comes from.

    Args:
        loaded: Settings with the origins of those given.
        machine: The machine.

    Raises:
        SettingsError: ``environment`` is gpu and there is none.
    """
    points = starting_points(loaded.settings, machine)
    settings = fit_to_machine(loaded.settings, machine)
    known = {**points.origins, **loaded.origins}
    origins = {leaf.name: _origin(leaf.name, known, settings.models.preset) for leaf in leaves(settings)}
    return TrainingEnvironmentConfig(
        settings, machine, points.profile, origins, tuple(warnings_for(settings, machine))
    )


def _origin(name: str, known: Mapping[str, Origin], preset: str) -> Origin:
    is_size = name.startswith(("models.teacher.", "models.student."))
    return known.get(name) or (
        Origin("default", f"preset {preset}") if is_size else Origin("default", "default")
    )
