"""Profiles of devices, and settings fitted to a machine."""

from dataclasses import replace
from typing import Any

import pytest

from core.resources.probes import Gpu, Machine
from core.resources.profiles import fit_to_machine, profile_for
from settings.app import Settings, load_settings


def machine(name: str | None = None, vram_total_mib: float = 0.0) -> Machine:
    gpu = Gpu(index=0, name=name or "", vram_total_mib=vram_total_mib, driver="1", compute_capability=(8, 6))
    return Machine(
        cpu_model="cpu",
        num_cpus=8,
        num_cores=4,
        ram_total_mib=16_384,
        platform="Linux",
        python_version="3.11",
        torch_version="2.13.0+cu128",
        gpus=(gpu,) if name else (),
    )


RTX_3080 = machine("NVIDIA GeForce RTX 3080", 10_240)


@pytest.mark.parametrize(
    ("name", "vram_mib", "profile", "batch_size", "replay_capacity"),
    [
        ("NVIDIA A100-SXM4-40GB", 40_960, "A100", 8192, 500_000),
        ("NVIDIA A100 80GB PCIe", 81_920, "A100", 8192, 500_000),
        ("NVIDIA GeForce RTX 4090", 24_564, "RTX 4090", 4096, 300_000),
        ("NVIDIA GeForce RTX 3090", 24_576, "RTX 3090", 4096, 300_000),
        ("NVIDIA GeForce RTX 3080", 10_018, "RTX 3080", 2048, 200_000),
        ("NVIDIA H100 80GB HBM3", 81_559, "A100", 8192, 500_000),
        ("NVIDIA L4", 23_034, "RTX 4090", 4096, 300_000),
        ("Tesla V100-SXM2-16GB", 16_384, "RTX 3080", 2048, 200_000),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 16_376, "RTX 3080", 2048, 200_000),
        ("NVIDIA GeForce GTX 1060", 6_144, "RTX 3080", 2048, 200_000),
    ],
)
def test_a_gpu_gets_the_profile_of_its_name_or_its_memory(
    name: str, vram_mib: float, profile: str, batch_size: int, replay_capacity: int
) -> None:
    found = profile_for(name, vram_mib)
    assert found.device_name == profile
    assert (found.batch_size, found.replay_capacity) == (batch_size, replay_capacity)
    assert (found.mixed_precision, found.preset) == (True, "published")


def test_no_gpu_gets_the_profile_of_a_cpu() -> None:
    found = profile_for(None, 0.0)
    assert (found.device_name, found.mixed_precision, found.preset) == ("CPU", False, "small")


def test_settings_that_were_not_given_are_filled_from_the_profile() -> None:
    fitted = fit_to_machine(Settings(), RTX_3080)
    assert fitted.models.preset == "published"
    assert fitted.models.teacher.vgae.hidden == (480, 240, 64)
    assert fitted.training.batch_size == 2048
    assert fitted.training.mixed_precision is True
    assert fitted.training.dqn.replay_capacity == 200_000
    assert fitted.training.epochs == Settings().training.epochs


def test_a_machine_without_a_gpu_gets_small_models() -> None:
    fitted = fit_to_machine(Settings(), machine())
    assert (fitted.models.preset, fitted.training.mixed_precision) == ("small", False)


@pytest.mark.parametrize(
    "given",
    [
        {"training": {"batch_size": 4096}},
        {"training": {"mixed_precision": False}},
        {"training": {"dqn": {"replay_capacity": 50_000}}},
        {"models": {"preset": "small"}},
    ],
)
def test_what_the_user_gave_is_kept_even_if_it_is_the_default(given: dict[str, Any]) -> None:
    fitted = fit_to_machine(load_settings(**given), RTX_3080).model_dump()
    (group, fields), = given.items()  # fmt: skip
    (name, value), = fields.items()  # fmt: skip
    found = fitted[group][name]
    assert found["replay_capacity"] == 50_000 if name == "dqn" else found == value


def test_a_size_the_user_gave_is_kept_beside_a_fitted_preset() -> None:
    teacher = Settings().models.student.model_dump()
    fitted = fit_to_machine(load_settings(models={"teacher": teacher}), RTX_3080)
    assert fitted.models.teacher.model_dump() == teacher
    assert fitted.models.student.vgae.hidden == (80, 40, 16)


def test_a_gpu_that_shall_not_be_used_does_not_count() -> None:
    assert fit_to_machine(load_settings(training={"device": "cpu"}), RTX_3080).models.preset == "small"


def test_fitting_twice_or_on_another_machine_later_changes_nothing() -> None:
    once = fit_to_machine(Settings(), RTX_3080)
    assert fit_to_machine(once, RTX_3080) == once
    assert fit_to_machine(once, machine()) == once


@pytest.mark.parametrize(("given", "threads"), [({}, 4), ({"num_threads": 0}, 4), ({"num_threads": 7}, 7)])
def test_all_cores_are_a_number_that_a_plan_keeps_on_another_machine(
    given: dict[str, int], threads: int
) -> None:
    once = fit_to_machine(load_settings(training=given), machine())
    assert once.training.num_threads == threads
    assert fit_to_machine(once, replace(machine(), num_cores=16)).training.num_threads == threads


def test_fitted_settings_survive_being_written_and_read() -> None:
    once = fit_to_machine(Settings(), RTX_3080)
    assert Settings(**once.model_dump(mode="json")) == once
