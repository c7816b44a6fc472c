"""One dataset trained from a script."""

from pathlib import Path

import pytest

from core.planning.coordinator import RetrainingCoordinator
from core.planning.trainer import MOST_IDS, Trainer, with_buckets_for
from core.resources.profiles import ENVIRONMENTS, fit_to_machine
from settings.app import load_settings
from settings.errors import SettingsError
from settings.tree import leaves
from tests.machines import CPU_MACHINE, RTX_3080


@pytest.mark.parametrize(
    ("num_ids", "num_buckets"),
    [(1, 2), (2, 2), (3, 4), (100, 128), (128, 128), (129, 256), (2048, 2048), (MOST_IDS, MOST_IDS)],
)
def test_every_id_gets_a_row(num_ids: int, num_buckets: int) -> None:
    models = with_buckets_for(num_ids, load_settings()).models
    assert models.teacher.ids.num_buckets == models.student.ids.num_buckets == num_buckets


def test_the_number_of_ids_wins_over_the_settings_and_leaves_the_rest_to_the_machine() -> None:
    given = load_settings(models={"student": {"ids": {"num_buckets": 64, "dim": 3}}}, training={"lr": 0.5})
    sized = with_buckets_for(100, given)
    assert (sized.models.student.ids.num_buckets, sized.models.student.ids.dim) == (128, 3)
    assert sized.training.lr == 0.5
    on_gpu, on_cpu = fit_to_machine(sized, RTX_3080), fit_to_machine(sized, CPU_MACHINE)
    assert (on_gpu.models.preset, on_cpu.models.preset) == ("published", "small")
    assert on_gpu.models.teacher.ids.num_buckets == on_cpu.models.teacher.ids.num_buckets == 128


@pytest.mark.parametrize("num_ids", [0, -1, MOST_IDS + 1])
def test_an_impossible_number_of_ids_is_refused(num_ids: int) -> None:
    with pytest.raises(SettingsError, match=f"num_ids is {num_ids}: give"):
        with_buckets_for(num_ids, load_settings())


def test_an_unknown_dataset_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="unknown dataset 'moon'"):
        Trainer(load_settings(output_dir=tmp_path / "out")).train_complete_pipeline("moon", 100)
    assert not (tmp_path / "out").exists()


def test_a_plan_goes_by_everything_that_an_environment_chooses(tmp_path: Path) -> None:
    coordinator = RetrainingCoordinator(load_settings(environment="ci", output_dir=tmp_path / "out"))
    fitted = {leaf.name: leaf.value for leaf in leaves(coordinator.settings)}
    assert {name: fitted[name] for name in ENVIRONMENTS["ci"]} == ENVIRONMENTS["ci"]
