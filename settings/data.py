"""Where captures are, how a dataset's folder is laid out, and how strictly captures are checked."""

from pathlib import Path, PurePath
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints

from settings.group import Group
from settings.names import DatasetName, Folder


def _stays_below(pattern: str) -> str:
    if not pattern or PurePath(pattern).is_absolute() or ".." in PurePath(pattern).parts:
        raise ValueError(f"{pattern!r} must be a pattern below the dataset's folder, without '..'")
    return pattern


Pattern = Annotated[str, AfterValidator(_stays_below)]
MAX_EXPANSION = 100.0
FrameText = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{1,8}#([0-9A-Fa-f]{2}){0,64}$")]


class DatasetSettings(Group):
    """The layout of one dataset: which captures train, which test, and how frames are labelled.

    Every pattern is a glob below ``folder``. A match that is a folder stands for all captures below it.
    A test pattern's match is one *test folder* of the evaluation (a single file is one named by its stem).
    """

    folder: str = Field(min_length=1, description="Folder of the dataset, absolute or below data.data_dir.")
    attack_free: tuple[Pattern, ...] = Field(
        default=("train_01_attack_free",), description="Training captures without attacks."
    )
    with_attacks: tuple[Pattern, ...] = Field(
        default=("train_02_with_attacks",), description="Training captures with labelled attacks."
    )
    tests: tuple[Pattern, ...] = Field(default=("test_*",), description="Test folders or captures.")
    holdout_fraction: float = Field(
        default=0.0,
        ge=0.0,
        le=0.9,
        description="Share at the end of each training capture held out as a test of its own, for data "
        "without test folders.",
    )
    attack_frames: tuple[FrameText, ...] = Field(
        default=(),
        description="Label rule for captures without labels: a frame equal to one of these, written as in "
        "candump (254#918FFE0603A60FFF), is an attack and every other frame is not.",
    )


class DemoSettings(Group):
    """The built-in dataset: a seeded simulator of a vehicle's traffic with injected attacks."""

    seed: int = Field(default=7, ge=0, description="Seed of vehicle and attacks.")
    duration_s: float = Field(default=30.0, gt=1.0, description="Length of each simulated capture, seconds.")
    cache_dir: Folder = Field(
        default=Path("outputs/simulated"), description="Folder where simulated captures are kept for reuse."
    )


class DataSettings(Group):
    """Captures and datasets."""

    data_dir: Folder = Field(default=Path("data"), description="Folder that holds the datasets' folders.")
    datasets: dict[DatasetName, DatasetSettings] = Field(
        default_factory=dict, description="Your own datasets by name; a built-in name may be redefined."
    )
    max_quarantined_fraction: float = Field(
        default=0.05, ge=0.0, le=1.0, description="A capture with a larger share of bad rows is refused."
    )
    max_expansion: float = Field(
        default=MAX_EXPANSION,
        ge=1.0,
        description="A compressed capture that would decompress to more than so many times its own size is "
        "refused, unless that is less than 64 MiB.",
    )
    demo: DemoSettings = Field(default_factory=DemoSettings)

    def absolute(self) -> Self:
        """The same folders, whatever the working directory will be."""
        return self._at(self.data_dir.absolute(), self.demo.cache_dir.absolute(), self.datasets)

    def moved_to(self, data_dir: Path) -> Self:
        """Every folder below ``data_dir`` looked for below another one; the demo is simulated there.

        Args:
            data_dir: Where captures are now. A dataset's folder elsewhere stays where it is.
        """
        datasets = {
            name: dataset.model_copy(update={"folder": str(Path(dataset.folder).relative_to(self.data_dir))})
            if Path(dataset.folder).is_relative_to(self.data_dir)
            else dataset
            for name, dataset in self.datasets.items()
        }
        return self._at(data_dir, data_dir, datasets)

    def _at(self, data_dir: Path, demo_dir: Path, datasets: dict[DatasetName, DatasetSettings]) -> Self:
        demo = self.demo.model_copy(update={"cache_dir": demo_dir})
        return self.model_copy(update={"data_dir": data_dir, "demo": demo, "datasets": datasets})
