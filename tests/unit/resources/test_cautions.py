"""Settings that are allowed and unwise are named, with what to do; all others pass in silence."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from core.resources.cautions import warnings_for
from core.resources.machine import Machine
from core.resources.profiles import ENVIRONMENTS, GPU_PROFILES, fit_to_machine
from settings.app import Settings, load_settings
from settings.tree import names_of
from tests.machines import CPU_MACHINE, RTX_3080, gpu, machine

T4 = machine(gpu("Tesla T4", 15_360.0, (7, 5)))
PASCAL = machine(gpu("NVIDIA GeForce GTX 1060 6GB", 6144.0, (6, 1)))
TINY = machine(gpu("NVIDIA GeForce GTX 1050", 2048.0, (6, 1)))


@pytest.mark.parametrize(
    ("here", "environment"),
    [
        *itertools.product((RTX_3080, T4, PASCAL, TINY), ENVIRONMENTS),
        *((CPU_MACHINE, environment) for environment in ENVIRONMENTS if environment != "gpu"),
    ],
)
def test_fitted_settings_are_wise(here: Machine, environment: str) -> None:
    fitted = fit_to_machine(load_settings(environment=environment), here)
    assert warnings_for(fitted, here) == []


@pytest.mark.parametrize("vram_mib", [profile.vram_total_mib for profile in GPU_PROFILES])
def test_published_settings_are_wise(vram_mib: float) -> None:
    here = machine(gpu("some GPU", vram_mib), num_cpus=64, num_cores=32)
    assert warnings_for(fit_to_machine(Settings(), here), here) == []


@pytest.mark.parametrize(
    ("here", "given", "setting", "said"),
    [
        (CPU_MACHINE, {"dataset": {"num_workers": 9, "max_workers": 9}}, "dataset.num_workers", "8 CPUs"),
        (CPU_MACHINE, {"dataset": {"num_workers": 6, "max_workers": 5}}, "dataset.max_workers", "5 is less"),
        (
            CPU_MACHINE,
            {"dataset": {"prefetch_factor": 9}},
            "dataset.max_prefetch_factor",
            "8 is less",
        ),
        (CPU_MACHINE, {"training": {"num_threads": 8}}, "training.num_threads", "8 threads on 4 cores"),
        (CPU_MACHINE, {"training": {"micro_batch_size": 2048}}, "training.micro_batch_size", "batch of 1024"),
        (CPU_MACHINE, {"training": {"mixed_precision": True}}, "training.mixed_precision", "no effect"),
        (CPU_MACHINE, {"models": {"preset": "published"}}, "models.preset", "on a CPU: set it to small"),
        (CPU_MACHINE, {"resources": {"vram_limit_mib": 5}}, "resources.vram_limit_mib", "no effect"),
        (
            CPU_MACHINE,
            {"resources": {"memory_limit_mib": 100}},
            "resources.memory_limit_mib",
            "768 MiB",
        ),
        (CPU_MACHINE, {"resources": {"memory_limit_mib": 20_000}}, "resources.memory_limit_mib", "16384 MiB"),
        (CPU_MACHINE, {"resources": {"hang_timeout_s": 5}}, "resources.hang_timeout_s", "loads torch"),
        (CPU_MACHINE, {"training": {"checkpoint_interval_s": 900}}, "resources.hang_timeout_s", "the 900 s"),
        (CPU_MACHINE, {"resources": {"flush_interval_s": 0.5}}, "resources.flush_interval_s", "every sample"),
        (CPU_MACHINE, {"training": {"max_ram_usage": 0.97}}, "training.max_ram_usage", "0.95"),
        (CPU_MACHINE, {"training": {"target_memory_usage": 1.0}}, "training.target_memory_usage", "0.95"),
        (CPU_MACHINE, {"training": {"dqn": {"replay_capacity": 9}}}, "training.dqn.replay_capacity", "256"),
        (CPU_MACHINE, {"training": {"dqn": {"epsilon_end": 0.9}}}, "training.dqn.epsilon_end", "0.2"),
        (T4, {"training": {"batch_size": 4096}}, "training.batch_size", "2048 that a GPU of 15360 MiB"),
        (T4, {"resources": {"vram_limit_mib": 100}}, "resources.vram_limit_mib", "about 1024 MiB"),
        (T4, {"resources": {"vram_limit_mib": 16_000}}, "resources.vram_limit_mib", "15360 MiB of Tesla T4"),
        (T4, {"resources": {"memory_limit_mib": 1000}}, "resources.memory_limit_mib", "about 3072 MiB"),
        (PASCAL, {"training": {"mixed_precision": True}}, "training.mixed_precision", "capability 6.1"),
        (TINY, {"models": {"preset": "published"}}, "models.preset", "GTX 1050 with 2048 MiB"),
        (machine(*T4.gpus * 4), {}, "environment", "first of 4 GPUs, Tesla T4"),
        (replace(T4, torch_version="2.13.0+cpu"), {}, "training.device", "install a CUDA build"),
        (replace(CPU_MACHINE, ram_total_mib=512.0), {}, "resources.memory_limit_mib", "container, with more"),
    ],
)
def test_what_is_unwise_is_named_with_a_remedy(
    here: Machine, given: dict[str, Any], setting: str, said: str
) -> None:
    found = warnings_for(fit_to_machine(load_settings(**given), here), here)
    assert [caution.setting for caution in found] == [setting]
    assert said in found[0].message
    assert str(found[0]).startswith(f"{setting}: ")
    assert setting in names_of(Settings)


def test_every_unwise_setting_is_named_at_once() -> None:
    training = {"num_threads": 99, "micro_batch_size": 9000, "max_ram_usage": 1.0}
    found = warnings_for(load_settings(training=training, dataset={"num_workers": 50}), CPU_MACHINE)
    assert {caution.setting for caution in found} == {
        "training.num_threads",
        "training.micro_batch_size",
        "training.max_ram_usage",
        "dataset.num_workers",
        "dataset.max_workers",
    }
