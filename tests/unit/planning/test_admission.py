"""What a phase asks for, where it may run, and what its process is held to."""

import pytest

from core.analytics.histograms import Range
from core.analytics.history import PhaseEstimate
from core.events.catalogue import Fact, PhaseFailed, to_event
from core.events.resource_facts import PhaseAdmitted
from core.planning.admission import (
    Placement,
    Request,
    cpu_limit,
    cpu_request,
    limits_for,
    machine_limits,
    place,
    vram_limit,
    vram_request,
)
from core.planning.live.decisions import sentences
from core.planning.plan_state import PLAN_STATE
from core.resources.machine import Machine, probe_machine
from settings.app import load_settings
from settings.scheduling import SchedulingSettings
from settings.training import TrainingSettings
from tests.fake_nvml import Board, FakeNvml, Slice
from tests.machines import CPU_MACHINE, gpu, machine
from tests.unit.planning.test_attempt import created

CARD = gpu("NVIDIA RTX 3090", 24_576.0)
SCHEDULING = SchedulingSettings(host="box", cuda_context_mib=768, vram_headroom_mib=512)


def estimate(high_mib: float) -> PhaseEstimate:
    peak = Range(high_mib / 2, high_mib / 1.5, high_mib)
    return PhaseEstimate(3, "2026-11-01", 1.0, None, Range(1, 1, 1), high_mib, None, peak)


def admitted(slots: int, gpu_uuid: str = "GPU-a") -> PhaseAdmitted:
    return PhaseAdmitted(
        dataset="car",
        phase="teacher",
        limit="can-vram-GPU-a",
        slots=slots,
        device_name="NVIDIA RTX 3090",
        gpu_uuid=gpu_uuid,
        vram_limit_mib=slots - 768,
        waited_s=75.0,
        reason="r",
    )


def failed(kind: str) -> PhaseFailed:
    return PhaseFailed(dataset="car", phase="teacher", attempt=1, kind=kind, message="m", micro_batch_size=1)


@pytest.mark.parametrize(
    ("peak_mib", "lacking_mib", "most_mib", "slots"),
    [
        (None, None, 0, 24_064),  # never measured: the whole card
        (float("inf"), None, 0, 24_064),
        (5_000.2, None, 0, 5_769),  # the highest to expect, and what a process takes besides
        (0.4, None, 0, 832),
        (40_000, None, 0, 24_064),  # never more than there is
        (5_000, 6_000, 0, 12_000),  # more than what was too little
        (5_000, 20_000, 0, 24_064),
        (5_000, 1_000, 0, 5_768),
        (None, None, 8_000, 8_768),  # no more than the plan allows its tensors
    ],
)
def test_a_phase_asks_for_the_highest_peak_to_expect(
    peak_mib: float | None, lacking_mib: int | None, most_mib: int, slots: int
) -> None:
    known = None if peak_mib is None else estimate(peak_mib)
    request = vram_request(CARD, 24_064, known, lacking_mib, SCHEDULING, most_mib)
    assert (request.slots, request.gpu) == (slots, CARD)
    assert request.basis


def test_tensors_and_what_a_process_takes_besides_fit_into_what_was_granted() -> None:
    placement = place(Request("l", 5_768, CARD), 3.0, SCHEDULING)
    assert placement.vram_limit_mib == 5_000
    settings = placement.settings(load_settings())
    assert settings.resources.vram_limit_mib == 5_000
    assert place(Request("l", 5_768, CARD), 3.0, SCHEDULING, most_mib=2_000).vram_limit_mib == 2_000


def test_a_process_sees_no_gpu_but_its_own() -> None:
    a, b = Board("GPU-a"), Board("GPU-b", slices=[Slice("MIG-1", 1)])
    (_, slice_) = probe_machine(FakeNvml(a, b)).gpus
    assert Placement(Request("l", 1, slice_), 0.0).environment() == {"CUDA_VISIBLE_DEVICES": "MIG-1"}
    on_cpu = Placement(Request("l", 1), 0.0)
    assert on_cpu.environment() == {}
    assert on_cpu.settings(load_settings()) == load_settings()


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["GPU-a", "MIG-1", "MIG-2"]),
        ("1", ["MIG-1", "MIG-2"]),
        ("MIG-2,GPU-a", ["MIG-2", "GPU-a"]),
        ("GPU-a", ["GPU-a"]),
        ("", []),
    ],
)
def test_a_worker_uses_every_gpu_and_slice_that_it_is_left(
    visible: str | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    nvml = FakeNvml(Board("GPU-a"), Board("GPU-b", slices=[Slice("MIG-1", 1), Slice("MIG-2", 2)]))
    gpus = probe_machine(nvml, every_slice=True).gpus
    assert [found.uuid for found in gpus] == expected
    limits = limits_for("teacher", TrainingSettings(device="cuda"), machine(*gpus), SCHEDULING)
    assert list(limits) == [vram_limit(uuid) for uuid in expected]


def test_graphs_and_training_on_processors_ask_for_cores() -> None:
    on_gpu = machine(CARD)
    for phase, device, found in (
        ("graphs", "auto", on_gpu),
        ("teacher", "cpu", on_gpu),
        ("teacher", "auto", CPU_MACHINE),
    ):
        training = TrainingSettings.model_validate({"device": device})
        assert limits_for(phase, training, found, SCHEDULING) == {"can-cpu-box": None}
    assert cpu_request(8, 3, SCHEDULING).slots == 3
    assert cpu_request(8, 0, SCHEDULING).slots == 8  # all of them
    assert cpu_request(2, 16, SCHEDULING).slots == 2  # of a plan that was made on a larger machine


def test_the_limits_of_a_machine_leave_some_vram_to_others() -> None:
    found = machine_limits(probe_machine_with(Board("GPU-a", vram_total_mib=24_576)), SCHEDULING)
    assert found == {
        "can-cpu-box": 4,
        "can-vram-GPU-a": 24_064,
        "can-cpu-box-turn": 1,
        "can-vram-GPU-a-turn": 1,
    }
    assert cpu_limit(SchedulingSettings()).startswith("can-cpu-")
    assert vram_limit("MIG-GPU-a/1/0") == "can-vram-MIG-GPU-a-1-0"  # as drivers before 470 named slices


def probe_machine_with(*boards: Board) -> Machine:
    return machine(*probe_machine(FakeNvml(*boards), every_slice=True).gpus)


@pytest.mark.parametrize(
    ("facts", "lacking_mib"),
    [
        ([admitted(6_000), failed("cuda_oom")], 6_000),
        ([admitted(6_000), failed("fragmentation"), admitted(12_000)], 6_000),
        ([admitted(6_000), failed("host_oom")], None),
        ([admitted(6_000), failed("killed")], None),
        ([admitted(2, gpu_uuid=""), failed("cuda_oom")], None),
        ([failed("cuda_oom")], None),
    ],
)
def test_the_log_says_how_much_vram_was_too_little(facts: list[Fact], lacking_mib: int | None) -> None:
    events = [to_event("p", fact) for fact in (created(), *facts)]
    assert PLAN_STATE.fold(events).phases["car", "teacher"].lacking_mib == lacking_mib


def test_people_are_told_what_was_granted() -> None:
    ((tone, where, text),) = sentences(admitted(6_000))
    assert (tone, where) == ("info", "car teacher")
    assert text == "gets 6000 MiB of NVIDIA RTX 3090 after 1 min 15 s"
