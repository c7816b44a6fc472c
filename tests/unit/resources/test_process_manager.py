"""System status from any process."""

import os
from pathlib import Path

from core.resources.process_manager import ProcessManager
from core.resources.process_state import ProcessId, ProcessState, now
from settings.layout import Layout


def test_status_can_be_asked_for_without_monitoring_or_an_output_directory(tmp_path: Path) -> None:
    status = ProcessManager(tmp_path / "missing").get_system_status()
    current = status["current_resources"]
    assert current["gpu_utilization_percent"] is None or 0 <= current["gpu_utilization_percent"] <= 100
    assert current["cpu_percent"] is not None
    assert 0 < current["ram_used_mib"] < current["ram_total_mib"]
    assert (status["processes"], status["num_samples"]) == ([], 1)
    assert not (tmp_path / "missing").exists()


def test_monitoring_gathers_samples_and_can_be_begun_and_ended_again(tmp_path: Path) -> None:
    manager = ProcessManager(tmp_path, interval_s=0.01)
    for _ in range(2):
        with manager:
            manager.start_monitoring()  # it does already
            while (status := manager.get_system_status())["num_samples"] < 3:
                pass
            assert manager.is_monitoring
        assert not manager.is_monitoring
    assert status["average_resources"]["ram_total_mib"] == status["current_resources"]["ram_total_mib"]
    assert manager.get_system_status()["num_samples"] >= 3  # what was measured is kept


def test_training_processes_are_part_of_the_status_and_of_the_machines_figures(tmp_path: Path) -> None:
    own = ProcessId.of(os.getpid())
    folder = Layout(tmp_path).process_logs
    folder.mkdir(parents=True)
    ProcessState("p-car", own, "p-car.log", process=own, activity="working", progress_at=now()).write(folder)
    status = ProcessManager(tmp_path).get_system_status()
    (process,) = status["processes"]
    assert (process["name"], process["pid"], process["state"]) == ("p-car", os.getpid(), "working")
    assert status["current_resources"]["training_num_processes"] >= 1
