"""Settings for the next plan follow from what was measured."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.analytics.advice.evidence import gather
from core.analytics.observations import PlanRecord, record_plan
from core.analytics.recommendations import config_yaml, device_slug, recommend
from core.analytics.telemetry import TelemetrySummary
from core.events.event import Event
from core.events.resource_facts import ConfigRecommended
from settings.app import Settings, load_settings
from tests.sample_log import PLAN_ID, sample_events

BUSY = TelemetrySummary(
    num_samples=900,
    duration_s=900.0,
    cpu_percent=70.0,
    ram_peak_mib=20_000.0,
    ram_total_mib=131_072.0,
    gpu_utilization_percent=91.0,
)


def changed(events: Iterable[Event], event_type: str, /, **fields: Any) -> list[Event]:
    """The same events with some fields of one type replaced."""
    return [e._replace(payload={**e.payload, **fields}) if e.type == event_type else e for e in events]


def advise(
    events: Iterable[Event],
    telemetry: TelemetrySummary = BUSY,
    *,
    training: dict[str, Any] | None = None,
    before: Sequence[PlanRecord] = (),
    **groups: Any,
) -> ConfigRecommended:
    settings = Settings(training={"batch_size": 256, **(training or {})}, **groups)
    planned = {**settings.model_dump(mode="json"), "models": {"preset": settings.models.preset}}
    plan = record_plan(changed(events, "plan_created", settings=planned))
    assert plan
    return recommend(gather(plan, before, telemetry, settings))


def of_retries(events: Iterable[Event]) -> list[Event]:
    """The same events as an earlier release told them, which knew no recovery within a step."""
    return [event for event in events if event.type != "pack_limit_changed"]


def healthy(peak_mib: float = 9_000.0, *, gpu: bool = True) -> list[Event]:
    """A plan without failures whose models were best well before their last epoch."""
    events = sample_events(failures=False, gpu=gpu)
    events = changed(events, "phase_finished", peak_memory_mib=peak_mib)
    events = changed(events, "epoch_finished", gpu_percent=None)  # resource samples say it
    return [
        e._replace(payload={**e.payload, "val_loss": abs(e.payload["epoch"] - 7.0)})
        if e.type == "epoch_finished"
        else e
        for e in events
    ]


def reasons(fact: ConfigRecommended) -> str:
    return "\n".join(fact.reasons)


def test_running_out_of_memory_recommends_the_micro_batch_that_went_through() -> None:
    events = changed(of_retries(sample_events()), "graphs_built", splits={"train": 204_800})
    fact = advise(events, training={"batch_size": 4096})
    assert fact.settings["training"]["micro_batch_size"] == 1024
    assert "hcrl_sa student ran out of GPU memory with packs of 2048 graphs, and went through with 1024" in (
        reasons(fact)
    )


def test_running_out_of_memory_for_good_recommends_half_of_what_failed() -> None:
    events = changed(of_retries(sample_events()), "phase_failed", kind="host_oom", micro_batch_size=64)
    events = [e for e in events if not (e.type == "phase_finished" and e.payload["phase"] == "student")]
    assert advise(events).settings["training"]["micro_batch_size"] == 32


def test_a_nearly_full_device_recommends_a_smaller_micro_batch() -> None:
    fact = advise(healthy(peak_mib=23_000.0))
    assert fact.settings["training"]["micro_batch_size"] == 128
    assert "22.5 GiB of 24.0 GiB (94%), above 85%" in reasons(fact)


def test_full_ram_recommends_a_smaller_micro_batch() -> None:
    fact = advise(healthy(), dataclasses.replace(BUSY, ram_peak_mib=120_000.0))
    assert fact.settings["training"]["micro_batch_size"] == 128
    assert "RAM was used up to 92%" in reasons(fact)


def test_an_empty_device_recommends_a_larger_micro_batch_where_one_was_set() -> None:
    fact = advise(healthy(peak_mib=2_000.0), training={"micro_batch_size": 64})
    assert fact.settings["training"]["micro_batch_size"] == 128


def test_an_idle_gpu_recommends_a_larger_batch_but_keeps_the_floor_of_steps() -> None:
    idle = dataclasses.replace(BUSY, gpu_utilization_percent=20.0)
    assert (
        advise(healthy(2_000.0), idle, training={"batch_size": 128}).settings["training"]["batch_size"] == 256
    )
    # 24 100 training graphs at 50 steps an epoch allow 482 graphs a batch.
    assert (
        advise(healthy(2_000.0), idle, training={"batch_size": 400}).settings["training"]["batch_size"] == 482
    )
    fact = advise(healthy(2_000.0), idle, training={"batch_size": 4096})
    assert fact.settings["training"]["batch_size"] == 4096
    assert "no batch above 482 graphs at 50 steps" in reasons(fact)


def test_an_idle_gpu_without_room_keeps_its_batch() -> None:
    fact = advise(healthy(12_000.0), dataclasses.replace(BUSY, gpu_utilization_percent=20.0))
    assert fact.settings["training"]["batch_size"] == 256
    assert "leaves no room" in reasons(fact)


def test_a_busy_gpu_keeps_its_batch() -> None:
    fact = advise(healthy())
    assert fact.settings["training"]["batch_size"] == 256
    assert "91 %" in reasons(fact)


def test_models_best_in_their_last_epoch_get_more_epochs() -> None:
    fact = advise(sample_events(failures=False))
    assert fact.settings["training"]["epochs"] == 15
    assert "trains all of them anew" in reasons(fact)


def test_models_that_all_stop_early_get_fewer_epochs() -> None:
    fact = advise(healthy(), training={"epochs": 100})
    assert fact.settings["training"]["epochs"] == 13
    assert "Early stopping ended every model after 10 of 100" in reasons(fact)


def test_idle_cpus_recommend_all_of_them() -> None:
    idle = dataclasses.replace(BUSY, cpu_percent=30.0, gpu_utilization_percent=None)
    fact = advise(healthy(2_000.0, gpu=False), idle, training={"num_threads": 2})
    assert fact.settings["training"]["num_threads"] == 0
    assert "2 of 8 cores" in reasons(fact)
    crowded = advise(healthy(2_000.0, gpu=False), idle, training={"num_threads": 64})
    assert crowded.settings["training"]["num_threads"] == 0


def test_hardware_threads_beyond_the_cores_are_not_recommended() -> None:
    created, *others = healthy(2_000.0, gpu=False)
    machine = {**created.payload["machine"], "num_cpus": 16, "num_cores": 8}
    events = [created._replace(payload={**created.payload, "machine": machine}), *others]
    half_used = dataclasses.replace(BUSY, cpu_percent=50.0, gpu_utilization_percent=None)
    assert "cores" not in reasons(advise(events, half_used, training={"num_threads": 8}))
    assert "4 of 8 cores" in reasons(advise(events, half_used, training={"num_threads": 4}))


@pytest.mark.parametrize(("num", "duration_s", "expected"), [(5, 6.0, 0.1), (100_000, 100_000.0, 4.0)])
def test_too_few_or_too_many_samples_change_the_interval(
    num: int, duration_s: float, expected: float
) -> None:
    fact = advise(healthy(), dataclasses.replace(BUSY, num_samples=num, duration_s=duration_s))
    assert fact.settings["resources"]["sample_interval_s"] == expected


def test_without_history_the_devices_profile_is_the_start() -> None:
    fact = advise(sample_events()[:1], TelemetrySummary())
    assert fact.settings["training"]["batch_size"] == 4096
    assert fact.settings["training"]["dqn"]["replay_capacity"] == 300_000
    assert fact.settings["models"] == {"preset": "published"}
    assert "No phase has finished training" in reasons(fact)
    cpu = advise(sample_events(gpu=False)[:1], TelemetrySummary())
    assert cpu.settings["models"] == {"preset": "small"}


def test_what_the_user_set_is_kept() -> None:
    fact = advise(
        healthy(),
        training={"lr": 0.01},
        data={"datasets": {"mine": {"folder": "elsewhere"}}},
        models={"student": {**Settings().models.student.model_dump(), "ids": {"dim": 4}}},
    )
    assert fact.settings["training"]["lr"] == 0.01
    assert fact.settings["data"]["datasets"]["mine"]["folder"] == "elsewhere"
    assert fact.settings["models"]["student"]["ids"]["dim"] == 4


@pytest.mark.parametrize("gpu", [True, False])
@pytest.mark.parametrize("num_events", [1, 100, None])
def test_the_generated_file_loads_back_and_says_why(
    tmp_path: Path, gpu: bool, num_events: int | None
) -> None:
    fact = advise(sample_events(gpu=gpu)[:num_events])
    path = tmp_path / f"{device_slug(fact.device_name)}.yaml"
    path.write_text(config_yaml(fact, PLAN_ID), encoding="utf-8")
    loaded = load_settings(path)
    assert loaded.training.batch_size == fact.settings["training"]["batch_size"]
    assert fact.reasons[0].split()[0] in path.read_text(encoding="utf-8")


def test_a_reason_cannot_leave_its_comment(tmp_path: Path) -> None:
    fact = ConfigRecommended(
        device_name="a\nb: c", settings={"training": {"epochs": 3}}, reasons=["x\ndata: {}"]
    )
    path = tmp_path / "c.yaml"
    path.write_text(config_yaml(fact, "p"), encoding="utf-8")
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == {"training": {"epochs": 3}}


def test_a_device_names_a_file() -> None:
    assert device_slug("NVIDIA GeForce RTX 3090") == "nvidia-geforce-rtx-3090"
    assert device_slug("../..") == "unknown-device"
