"""Profiles of devices, and settings fitted to a machine."""

from dataclasses import replace
from typing import Any

import pytest

from core.planning.machine import describe_machine
from core.planning.phases import PHASES, settings_digest
from core.resources.machine import Machine
from core.resources.profiles import (
    ENVIRONMENTS,
    GPU_PROFILES,
    SMALL_GPU,
    fit_to_machine,
    profile_for,
    starting_points,
)
from settings.app import Settings, load_settings
from settings.errors import SettingsError
from settings.tree import leaves, names_of
from tests.machines import CPU_MACHINE, RTX_3080, gpu, machine

A100 = machine(gpu("NVIDIA A100-SXM4-40GB", 40_960.0, (8, 0)), num_cpus=64, num_cores=32)


@pytest.mark.parametrize(
    ("name", "vram_mib", "batch_size", "num_workers", "replay_capacity", "samples_per_s"),
    [
        ("NVIDIA A100-SXM4-40GB", 40_960, 8192, 24, 500_000, 120.0),
        ("NVIDIA A100 80GB PCIe", 81_920, 8192, 24, 500_000, 120.0),
        ("NVIDIA GeForce RTX 4090", 24_564, 4096, 16, 300_000, 80.0),
        ("NVIDIA GeForce RTX 3090", 24_576, 4096, 16, 300_000, 70.0),
        ("nvidia geforce rtx 3080", 10_018, 2048, 12, 200_000, 50.0),
    ],
)
def test_a_card_of_the_table_gets_what_was_published_for_it(
    name: str, vram_mib: float, batch_size: int, num_workers: int, replay_capacity: int, samples_per_s: float
) -> None:
    found = profile_for(name, vram_mib, (8, 6))
    assert (found.batch_size, found.num_workers, found.replay_capacity) == (
        batch_size,
        num_workers,
        replay_capacity,
    )
    assert (found.published_samples_per_s, found.basis) == (samples_per_s, "")
    assert (found.mixed_precision, found.preset) == (True, "published")


@pytest.mark.parametrize(
    ("name", "vram_mib", "capability", "batch_size", "mixed_precision", "preset", "basis"),
    [
        ("NVIDIA H100 80GB HBM3", 81_559, (9, 0), 8192, True, "published", "as A100"),
        ("NVIDIA H200", 143_771, (9, 0), 8192, True, "published", "as A100"),
        ("NVIDIA GH200 480GB", 480_000, (9, 0), 8192, True, "published", "as A100"),
        ("NVIDIA L40S", 46_068, (8, 9), 8192, True, "published", "as A100"),
        ("NVIDIA GeForce RTX 5090", 32_607, (12, 0), 4096, True, "published", "RTX 4090 and A100"),
        ("Tesla V100-SXM2-32GB", 32_768, (7, 0), 4096, True, "published", "RTX 4090 and A100"),
        ("NVIDIA L4", 23_034, (8, 9), 4096, True, "published", "RTX 3080 and RTX 3090"),
        ("NVIDIA RTX 4000 Ada Generation", 20_475, (8, 9), 4096, True, "published", "RTX 3080 and"),
        ("Tesla V100-SXM2-16GB", 16_384, (7, 0), 2048, True, "published", "RTX 3080 and RTX 3090"),
        ("Tesla T4", 15_360, (7, 5), 2048, True, "published", "RTX 3080 and RTX 3090"),
        ("Tesla P100-PCIE-16GB", 16_280, (6, 0), 2048, False, "published", "RTX 3080 and RTX 3090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 16_376, (8, 9), 2048, True, "published", "RTX 3080 and"),
        ("NVIDIA GeForce RTX 3080 Laptop GPU", 16_384, (8, 6), 2048, True, "published", "RTX 3080 and"),
        ("NVIDIA GeForce RTX 2080 with Max-Q Design", 8192, (7, 5), 2048, True, "published", "small GPU and"),
        ("NVIDIA GeForce RTX 3070", 8192, (8, 6), 2048, True, "published", "small GPU and RTX 3080"),
        ("NVIDIA GeForce GTX 1060 6GB", 6144, (6, 1), 1024, False, "published", "small GPU and RTX 3080"),
        ("NVIDIA RTX A1000 Laptop GPU", 4096, (8, 6), 1024, True, "published", "as small GPU"),
        ("NVIDIA GeForce GTX 1650", 3911, (7, 5), 1024, True, "published", "as small GPU"),
        ("NVIDIA GeForce GTX 1050", 2048, (6, 1), 1024, False, "small", "as small GPU"),
        ("Quadro K620", 1998, (5, 0), 1024, False, "small", "as small GPU"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4864, (8, 0), 1024, True, "published", "small GPU and RTX 3080"),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", 19_968, (8, 0), 4096, True, "published", "RTX 3080 and"),
        ("NVIDIA A100-SXM4-80GB MIG 7g.80gb", 81_000, (8, 0), 8192, True, "published", "as A100"),
    ],
)
def test_any_other_card_gets_what_lies_between_its_neighbours_by_memory(
    name: str,
    vram_mib: float,
    capability: tuple[int, int],
    batch_size: int,
    mixed_precision: bool,
    preset: str,
    basis: str,
) -> None:
    found = profile_for(name, vram_mib, capability)
    assert (found.batch_size, found.mixed_precision, found.preset) == (batch_size, mixed_precision, preset)
    assert found.device_name == name
    assert basis in found.label
    assert found.published_samples_per_s is None
    assert isinstance(found.replay_capacity, int)


def test_more_memory_never_gets_less() -> None:
    profiles = [profile_for("some GPU", float(vram_mib)) for vram_mib in range(1024, 100_000, 512)]
    for name in ("batch_size", "num_workers", "replay_capacity"):
        values = [getattr(profile, name) for profile in profiles]
        assert values == sorted(values)
        assert values[0] == getattr(SMALL_GPU, name)
        assert values[-1] == getattr(GPU_PROFILES[0], name)
    assert {profile.batch_size.bit_count() for profile in profiles} == {1}


def test_no_gpu_gets_the_profile_of_a_cpu() -> None:
    found = profile_for(None, 0.0)
    assert (found.device_name, found.mixed_precision, found.preset) == ("CPU", False, "small")


@pytest.mark.parametrize(
    ("capability", "precision"), [((8, 0), "bf16"), ((7, 5), "fp16"), ((7, 0), "fp16"), ((6, 1), "fp32")]
)
def test_a_card_trains_in_the_best_precision_it_is_fast_in(
    capability: tuple[int, int], precision: str
) -> None:
    here = machine(gpu("some GPU", 16_384.0, capability))
    fitted = fit_to_machine(Settings(), here)
    assert describe_machine(here, fitted.training)["precision"] == precision


def test_the_base_settings_are_the_published_ones() -> None:
    training = Settings().training
    assert (training.batch_size, training.lr, training.epochs) == (4096, 0.001, 10)
    assert training.mixed_precision
    assert describe_machine(A100, fit_to_machine(Settings(), A100).training)["device"] == "cuda"


def test_settings_that_were_not_given_are_filled_from_the_profile() -> None:
    fitted = fit_to_machine(Settings(), RTX_3080)
    assert fitted.models.preset == "published"
    assert fitted.models.teacher.vgae.hidden == (480, 240, 64)
    assert fitted.training.batch_size == 2048
    assert fitted.training.mixed_precision is True
    assert fitted.training.dqn.replay_capacity == 200_000
    assert fitted.training.epochs == Settings().training.epochs


def test_a_machine_without_a_gpu_gets_small_models() -> None:
    fitted = fit_to_machine(Settings(), CPU_MACHINE)
    assert (fitted.models.preset, fitted.training.mixed_precision) == ("small", False)


@pytest.mark.parametrize(
    ("here", "num_workers", "max_workers"),
    [
        (A100, 24, 48),
        (replace(A100, num_cpus=16), 15, 15),
        (RTX_3080, 7, 7),
        (replace(CPU_MACHINE, num_cpus=64), 2, 4),
        (replace(CPU_MACHINE, num_cpus=2, num_cores=2), 1, 1),
        (replace(CPU_MACHINE, num_cpus=1, num_cores=1), 0, 0),
    ],
)
def test_input_threads_leave_one_cpu_to_training(here: Machine, num_workers: int, max_workers: int) -> None:
    dataset = fit_to_machine(Settings(), here).dataset
    assert (dataset.num_workers, dataset.max_workers) == (num_workers, max_workers)


@pytest.mark.parametrize(
    ("given", "num_workers", "max_workers"),
    [({"max_workers": 4}, 4, 4), ({"num_workers": 60}, 60, 60), ({"num_workers": 3}, 3, 48)],
)
def test_input_threads_that_were_given_bound_those_that_were_not(
    given: dict[str, int], num_workers: int, max_workers: int
) -> None:
    dataset = fit_to_machine(load_settings(dataset=given), A100).dataset
    assert (dataset.num_workers, dataset.max_workers) == (num_workers, max_workers)


@pytest.mark.parametrize(
    "given",
    [
        {"training": {"batch_size": 4096}},
        {"training": {"mixed_precision": False}},
        {"training": {"dqn": {"replay_capacity": 50_000}}},
        {"models": {"preset": "small"}},
        {"dataset": {"num_workers": 6}},
        {"dataset": {"max_workers": 24}},
    ],
)
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_what_the_user_gave_is_kept_even_if_it_is_the_default(
    given: dict[str, Any], environment: str
) -> None:
    fitted = fit_to_machine(load_settings(**given, environment=environment), RTX_3080).model_dump()
    (group, fields), = given.items()  # fmt: skip
    (name, value), = fields.items()  # fmt: skip
    found = fitted[group][name]
    assert found["replay_capacity"] == 50_000 if name == "dqn" else found == value


def test_sizes_the_user_gave_are_kept_beside_a_fitted_preset() -> None:
    teacher = Settings().models.student.model_dump()
    fitted = fit_to_machine(load_settings(models={"teacher": teacher}), RTX_3080)
    assert fitted.models.teacher.model_dump() == teacher
    assert fitted.models.student.vgae.hidden == (80, 40, 16)
    part = fit_to_machine(load_settings(models={"teacher": {"vgae": {"latent": 9}}}), RTX_3080)
    assert (part.models.teacher.vgae.latent, part.models.teacher.vgae.hidden) == (9, (480, 240, 64))


@pytest.mark.parametrize("given", [{"training": {"device": "cpu"}}, {"environment": "cpu"}])
def test_a_gpu_that_shall_not_be_used_does_not_count(given: dict[str, Any]) -> None:
    fitted = fit_to_machine(load_settings(**given), RTX_3080)
    assert (fitted.models.preset, fitted.training.device) == ("small", "cpu")


def test_of_several_gpus_the_first_counts() -> None:
    first, second = gpu("Tesla T4", 15_360.0, (7, 5)), gpu("NVIDIA A100-SXM4-40GB", 40_960.0)
    assert fit_to_machine(Settings(), machine(first, second, first, first)).training.batch_size == 2048
    assert fit_to_machine(Settings(), machine(second, first)).training.batch_size == 8192


@pytest.mark.parametrize(
    ("here", "reason"),
    [
        (CPU_MACHINE, "CUDA_VISIBLE_DEVICES"),
        (
            replace(RTX_3080, torch_version="2.13.0+cpu"),
            "not built for CUDA and cannot use the NVIDIA",
        ),
    ],
)
def test_a_gpu_that_is_asked_for_and_cannot_be_used_is_an_error(here: Machine, reason: str) -> None:
    with pytest.raises(SettingsError, match=f"environment is gpu, but .*{reason}"):
        fit_to_machine(load_settings(environment="gpu"), here)
    with pytest.raises(SettingsError, match=f"training.device is cuda, but .*{reason}"):
        describe_machine(here, load_settings(training={"device": "cuda"}).training)


def test_a_gpu_that_is_asked_for_is_used() -> None:
    fitted = fit_to_machine(load_settings(environment="gpu"), RTX_3080)
    assert (fitted.training.device, fitted.training.batch_size) == ("cuda", 2048)


@pytest.mark.parametrize(("environment", "device"), [("gpu", "cpu"), ("cpu", "cuda")])
def test_an_environment_and_a_device_that_exclude_each_other_are_refused(
    environment: str, device: str
) -> None:
    with pytest.raises(SettingsError, match=f"environment is {environment}, but training.device is {device}"):
        load_settings(environment=environment, training={"device": device})


def test_continuous_integration_trains_the_same_on_every_machine() -> None:
    quick = load_settings(environment="ci")
    found = [fit_to_machine(quick, here) for here in (RTX_3080, A100, replace(CPU_MACHINE, num_cores=1))]
    assert all((fitted.training, fitted.models) == (found[0].training, found[0].models) for fitted in found)
    assert all((fitted.training.num_threads, fitted.training.device) == (1, "cpu") for fitted in found)
    assert found[0].training.epochs < Settings().training.epochs
    assert not found[0].tracking.mlflow
    for phase in PHASES:
        assert len({settings_digest(fitted, "demo", phase) for fitted in found}) == 1


def test_a_digest_knows_what_an_environment_changes_and_not_its_name() -> None:
    fitted = fit_to_machine(Settings(), CPU_MACHINE)
    renamed = fit_to_machine(load_settings(environment="cpu"), CPU_MACHINE)
    quick = fit_to_machine(load_settings(environment="ci"), CPU_MACHINE)
    digests = [settings_digest(settings, "demo", "teacher") for settings in (fitted, renamed, quick)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_starting_point_is_a_setting_with_an_origin(environment: str) -> None:
    points = starting_points(load_settings(environment=environment), RTX_3080)
    assert set(points.values) <= set(names_of(Settings))
    assert set(points.origins) == set(points.values)
    fitted = {leaf.name: leaf.value for leaf in leaves(fit_to_machine(Settings(), RTX_3080))}
    if environment == "auto":
        assert {name: fitted[name] for name in points.values} == points.values


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_fitting_twice_or_on_another_machine_later_changes_nothing(environment: str) -> None:
    once = fit_to_machine(load_settings(environment=environment), RTX_3080)
    assert fit_to_machine(once, RTX_3080) == once
    assert fit_to_machine(once, A100) == once
    if environment != "gpu":
        assert fit_to_machine(once, CPU_MACHINE) == once


@pytest.mark.parametrize(("given", "threads"), [({}, 4), ({"num_threads": 0}, 4), ({"num_threads": 7}, 7)])
def test_all_cores_are_a_number_that_a_plan_keeps_on_another_machine(
    given: dict[str, int], threads: int
) -> None:
    once = fit_to_machine(load_settings(training=given), CPU_MACHINE)
    assert once.training.num_threads == threads
    assert fit_to_machine(once, replace(CPU_MACHINE, num_cores=16)).training.num_threads == threads


def test_fitted_settings_survive_being_written_and_read() -> None:
    once = fit_to_machine(Settings(), RTX_3080)
    assert Settings(**once.model_dump(mode="json")) == once
