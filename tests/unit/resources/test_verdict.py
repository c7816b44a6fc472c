"""Verdicts on machines as they are met: what each is, why, and what is advised."""

from typing import Any

import pytest

from core.resources.verdict import Signals, judge

# A training on a GPU in which nothing is wrong, and one on 8 CPUs.
GPU: dict[str, Any] = {
    "device": "cuda",
    "precision": "bf16",
    "duration_s": 600.0,
    "data_wait_share": 0.01,
    "data_load_share": 0.1,
    "num_workers": 6,
    "prefetch_factor": 2,
    "placement": "pinned",
    "num_packs_per_step": 1.0,
    "pack_ms": 40.0,
    "pack_limit_binds": "step",
    "gpu_utilization": 0.98,
    "sm_activity": 0.8,
    "power_share": 0.8,
    "dram_activity": 0.4,
    "throttled_thermal": 0.0,
    "throttled_power": 0.0,
    "num_cpus": 16,
    "training_cpus": 1.0,
    "machine_cpu_share": 0.2,
    "ram_share": 0.3,
    "swap_bytes_per_s": 0.0,
    "major_faults_per_s": 0.0,
}
CPU: dict[str, Any] = {
    "device": "cpu",
    "precision": "fp32",
    "duration_s": 600.0,
    "data_wait_share": 0.02,
    "num_workers": 2,
    "placement": "resident",
    "num_packs_per_step": 1.0,
    "num_cpus": 8,
    "num_threads": 8,
    "training_cpus": 7.4,
    "machine_cpu_share": 0.94,
    "ram_share": 0.3,
    "swap_bytes_per_s": 0.0,
    "major_faults_per_s": 1.0,
}
AMPERE = {"sm_activity": None, "dram_activity": None}
"""No performance monitoring: power and the driver's utilisations have to do."""


@pytest.mark.parametrize(
    ("changes", "bottleneck", "cause", "settings"),
    [
        ({}, "compute_bound", "busy", {"models.preset", "training.epochs"}),
        (
            {"precision": "fp32"},
            "compute_bound",
            "busy",
            {"training.mixed_precision", "models.preset", "training.epochs"},
        ),
        ({"throttled_power": 0.9}, "compute_bound", "power_limit", {"models.preset", "training.epochs"}),
        ({"throttled_thermal": 0.5}, "compute_bound", "thermal", set()),
        (AMPERE, "compute_bound", "busy", {"models.preset", "training.epochs"}),
        (
            {**AMPERE, "throttled_thermal": 0.5, "power_share": 0.4},
            "compute_bound",
            "thermal",
            set(),
        ),
        # The GPU is always running some kernel, and does next to nothing.
        (
            {"gpu_utilization": 1.0, "sm_activity": 0.2, "power_share": 0.3, "pack_ms": 2.0},
            "launch_bound",
            "small_packs",
            {"training.batch_size", "training.min_steps_per_epoch"},
        ),
        (
            {**AMPERE, "power_share": 0.3, "num_packs_per_step": 8.0, "pack_limit_binds": "setting"},
            "launch_bound",
            "small_packs",
            {"training.micro_batch_size"},
        ),
        (
            {"sm_activity": 0.3, "num_packs_per_step": 8.0, "pack_limit_binds": "memory"},
            "memory_bound",
            "small_packs",
            {
                "training.mixed_precision",
                "training.target_memory_usage",
                "dataset.placement",
                "models.preset",
            },
        ),
        # Packs are small for lack of memory and fill the GPU all the same.
        (
            {"num_packs_per_step": 8.0, "num_memory_events": 5},
            "compute_bound",
            "busy",
            {"models.preset", "training.epochs"},
        ),
        ({"dram_activity": 0.8}, "memory_bound", "bandwidth", {"training.mixed_precision", "models.preset"}),
        (
            {**AMPERE, "vram_busy_share": 0.9},
            "memory_bound",
            "bandwidth",
            {"training.mixed_precision", "models.preset"},
        ),
        ({**AMPERE, "vram_busy_share": 0.9, "power_share": 0.3}, "launch_bound", "small_packs", None),
        ({"data_wait_share": 0.4, "sm_activity": 0.9}, "compute_bound", "busy", None),  # it was fed in time
        ({"data_wait_share": 0.4, "sm_activity": 0.4}, "data_wait", "uneven", None),
        (
            {"data_wait_share": 0.4, "data_load_share": 0.95},
            "data_wait",
            "slow_workers",
            {"dataset.num_workers", "dataset.max_workers"},
        ),
        ({"data_wait_share": 0.4, "num_workers": 0}, "data_wait", "no_workers", {"dataset.num_workers"}),
        ({"data_wait_share": 0.4, "placement": "mapped"}, "data_wait", "disk", {"dataset.placement"}),
        (
            {"data_wait_share": 0.4, "machine_cpu_share": 0.97},
            "data_wait",
            "cpus_full",
            {"dataset.placement"},
        ),
        (
            {"sm_activity": 0.02, "power_share": 0.1, "training_cpus": 0.05},
            "idle",
            "nothing_runs",
            {"resources.hang_timeout_s"},
        ),
        (
            {"sm_activity": 0.02, "training_cpus": 0.1, "machine_cpu_share": 0.99},
            "idle",
            "crowded_out",
            set(),
        ),
        ({"sm_activity": 0.4, "training_cpus": 0.5}, "unknown", "mixed", set()),
        ({"swap_bytes_per_s": 5e7, "data_wait_share": 0.5}, "memory_bound", "swapping", None),
    ],
)
def test_on_a_gpu(changes: dict[str, Any], bottleneck: str, cause: str, settings: set[str] | None) -> None:
    verdict = judge(Signals(**{**GPU, **changes}))
    assert (verdict.bottleneck, verdict.cause) == (bottleneck, cause), verdict.reason
    assert settings is None or set(verdict.settings) == settings


@pytest.mark.parametrize(
    ("changes", "bottleneck", "cause"),
    [
        ({}, "compute_bound", "busy"),
        ({"num_threads": 1, "training_cpus": 1.0, "machine_cpu_share": 0.15}, "compute_bound", "few_threads"),
        ({"num_cpus": 1, "num_threads": None, "training_cpus": 0.95}, "compute_bound", "busy"),
        # Two hardware threads per core: a thread for each core is all that training can use.
        ({"num_cpus": 16, "num_cores": 8, "machine_cpu_share": 0.5}, "compute_bound", "busy"),
        ({"num_cpus": 16, "num_cores": 8, "num_threads": None}, "compute_bound", "busy"),
        ({"training_cpus": 1.05, "machine_cpu_share": 0.2}, "launch_bound", "small_packs"),
        ({"training_cpus": 2.0, "machine_cpu_share": 0.98}, "idle", "crowded_out"),
        ({"training_cpus": 0.03, "machine_cpu_share": 0.02}, "idle", "nothing_runs"),
        ({"training_cpus": 0.5, "machine_cpu_share": 0.1}, "unknown", "mixed"),
        ({"data_wait_share": 0.3}, "data_wait", "cpus_full"),
        ({"data_wait_share": 0.3, "machine_cpu_share": 0.4}, "data_wait", "uneven"),
        ({"major_faults_per_s": 900.0}, "memory_bound", "paging"),
        ({"major_faults_per_s": 900.0, "placement": "mapped"}, "compute_bound", "busy"),
        ({"swap_bytes_per_s": 2e7}, "memory_bound", "swapping"),
        # GPU figures of a machine whose GPU is not used for training say nothing.
        ({"sm_activity": 0.0, "power_share": 0.05, "gpu_utilization": 0.0}, "compute_bound", "busy"),
    ],
)
def test_on_cpus(changes: dict[str, Any], bottleneck: str, cause: str) -> None:
    verdict = judge(Signals(**{**CPU, **changes}))
    assert (verdict.bottleneck, verdict.cause) == (bottleneck, cause), verdict.reason


def test_what_was_not_measured_is_named() -> None:
    assert judge(Signals(device="cuda", data_wait_share=0.01)).missing == (
        "training_cpus",
        "sm_activity or power_share",
    )
    on_cpu = judge(Signals(device="cpu"))
    assert on_cpu.missing == ("data_wait_share", "training_cpus", "num_cpus")
    assert on_cpu.reason == (
        "Not measured: how long training waited for packs; how busy training kept the CPUs; "
        "how many CPUs there are."
    )


def test_the_reason_gives_the_measurements() -> None:
    verdict = judge(Signals(**{**GPU, "sm_activity": 0.2, "power_share": 0.31, "pack_ms": 2.04}))
    assert verdict.reason == (
        "Packs are too small: one thread was kept busy handing them out. 1.0 CPUs were busy while the GPU "
        "was not (20% of its multiprocessors active, 31% of its power limit drawn, utilisation 98%), 2.0 ms "
        "per pack."
    )
    assert verdict.numbers["sm_activity"] == 0.2
