"""The machine as people see it: resource samples of the last moments."""

from collections.abc import Collection
from datetime import datetime

from core.events.telemetry import ResourceSample
from core.planning.live.view import GpuView, ResourcesView


def resources_view(moments: Collection[list[ResourceSample]], now: datetime) -> ResourcesView:
    """Resource samples as people see them.

    Args:
        moments: Samples of each moment, oldest first, one per GPU; the last is now.
        now: The time.
    """
    last = list(moments)[-1]
    machine = last[0]
    return ResourcesView(
        cpu_percent=machine.cpu_percent,
        num_cpus=machine.num_cpus,
        ram_used_mib=machine.ram_used_mib,
        ram_total_mib=machine.ram_total_mib,
        disk_free_mib=machine.disk_free_mib,
        gpus=tuple(_gpu_view(gpu, moments) for gpu in last if gpu.gpu_index is not None),
        cpu_history=tuple(moment[0].cpu_percent for moment in moments),
        ram_history=tuple(_percent(moment[0].ram_used_mib, moment[0].ram_total_mib) for moment in moments),
        seconds_ago=tuple(
            round(max(0.0, (now - moment[0].occurred_at).total_seconds()), 1) for moment in moments
        ),
    )


def _gpu_view(now: ResourceSample, moments: Collection[list[ResourceSample]]) -> GpuView:
    same = [next((gpu for gpu in moment if gpu.gpu_uuid == now.gpu_uuid), None) for moment in moments]
    return GpuView(
        index=now.gpu_index or 0,
        name=now.gpu_name or "",
        utilization_percent=now.gpu_utilization_percent,
        vram_used_mib=now.vram_used_mib,
        vram_total_mib=now.vram_total_mib,
        temperature_c=now.gpu_temperature_c,
        power_w=now.gpu_power_w,
        power_limit_w=now.gpu_power_limit_w,
        utilization_history=tuple(gpu.gpu_utilization_percent if gpu else None for gpu in same),
        vram_history=tuple(_percent(gpu.vram_used_mib, gpu.vram_total_mib) if gpu else None for gpu in same),
    )


def _percent(used: float | None, total: float | None) -> float | None:
    return None if used is None or not total else round(100.0 * used / total, 1)
