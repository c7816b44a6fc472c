"""What no measurements may make of a verdict."""

from dataclasses import fields, replace

from hypothesis import given
from hypothesis import strategies as st

from core.resources.verdict import Signals, judge
from settings.app import Settings

share = st.none() | st.floats(0.0, 1.0)
number = st.none() | st.floats(0.0, 1e9)
count = st.none() | st.integers(0, 256)
signals = st.builds(
    Signals,
    device=st.sampled_from(["cuda", "cpu"]),
    precision=st.sampled_from([None, "fp32", "bf16"]),
    duration_s=st.floats(0.0, 1e6),
    data_wait_share=share,
    data_load_share=share,
    num_workers=count,
    prefetch_factor=count,
    placement=st.sampled_from([None, "resident", "pinned", "mapped"]),
    num_packs_per_step=st.none() | st.floats(1.0, 64.0),
    pack_ms=number,
    pack_limit_binds=st.sampled_from([None, "step", "setting", "memory", "history"]),
    num_memory_events=st.integers(0, 100),
    gpu_utilization=share,
    sm_activity=share,
    power_share=share,
    dram_activity=share,
    vram_busy_share=share,
    throttled_thermal=share,
    throttled_power=share,
    num_cpus=st.none() | st.integers(1, 256),
    num_threads=st.none() | st.integers(1, 256),
    training_cpus=st.none() | st.floats(0.0, 256.0),
    machine_cpu_share=share,
    ram_share=share,
    swap_bytes_per_s=number,
    major_faults_per_s=number,
)


@given(signals, share)
def test_gpu_utilisation_decides_nothing(measured: Signals, utilization: float | None) -> None:
    one, other = judge(measured), judge(replace(measured, gpu_utilization=utilization))
    assert (one.bottleneck, one.cause, one.change) == (other.bottleneck, other.cause, other.change)


@given(st.sampled_from(["cuda", "cpu"]), st.floats(0.0, 1.0))
def test_gpu_utilisation_alone_is_no_verdict(device: str, utilization: float) -> None:
    verdict = judge(Signals(device=device, gpu_utilization=utilization))
    assert verdict.bottleneck == "unknown"
    assert verdict.missing


@given(signals)
def test_a_verdict_rests_on_numbers_it_gives_and_names_settings_that_exist(measured: Signals) -> None:
    verdict = judge(measured)
    assert verdict.reason.endswith(".")
    assert "None" not in verdict.reason
    assert verdict.numbers == {
        field.name: value for field in fields(Signals) if (value := getattr(measured, field.name)) is not None
    }
    assert bool(verdict.change) == (verdict.bottleneck != "unknown")
    assert bool(verdict.missing) == (verdict.cause == "not_measured")
    for name in " or ".join(verdict.missing).split(" or "):
        assert not name or getattr(measured, name) is None
    for setting in verdict.settings:
        group, name = setting.split(".")
        assert name in type(getattr(Settings(), group)).model_fields


@given(signals)
def test_each_verdict_has_its_evidence(measured: Signals) -> None:
    verdict = judge(measured)
    gpu_works = measured.sm_activity if measured.sm_activity is not None else measured.power_share
    match verdict.bottleneck:
        case "data_wait":
            assert (measured.data_wait_share or 0.0) > 0.0
        case "launch_bound":
            assert (measured.training_cpus or 0.0) > 0.5
            assert measured.device == "cpu" or (gpu_works is not None and gpu_works < 1.0)
        case "compute_bound":
            busy = gpu_works if measured.device == "cuda" else measured.training_cpus
            assert (busy or 0.0) > 0.0 or (measured.throttled_thermal or 0.0) > 0.0
        case "memory_bound":
            assert (
                (measured.swap_bytes_per_s or 0.0) > 0.0
                or (measured.major_faults_per_s or 0.0) > 0.0
                or (measured.dram_activity or measured.vram_busy_share or 0.0) > 0.5
                or (measured.num_packs_per_step or 0.0) > 1.0
            )
        case "idle":
            full = (measured.machine_cpu_share or 0.0) > 0.5
            assert measured.training_cpus is not None
            assert measured.training_cpus < 0.5 or full
        case "unknown":
            assert verdict.cause in {"not_measured", "mixed"}


@given(signals, st.floats(0.15, 1.0), st.none() | st.floats(0.0, 0.8))
def test_training_that_waits_for_data_is_never_called_slow(
    measured: Signals, waited: float, activity: float | None
) -> None:
    waiting = replace(
        measured,
        data_wait_share=waited,
        sm_activity=activity,
        swap_bytes_per_s=None,
        major_faults_per_s=None,
    )
    assert judge(waiting).bottleneck == "data_wait"
