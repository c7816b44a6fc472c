"""A simulated plan: the event log and the telemetry that a real one leaves behind, from one seed.

Two datasets train at once. The first dataset's student runs out of GPU memory once and recovers; the second
one's fusion fails for good. Rows are quarantined, one capture is refused, and a test folder has one class.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from core.events.catalogue import (
    CaptureRefused,
    CapturesDigested,
    ChainFinished,
    ChainStarted,
    CheckpointWritten,
    EpochFinished,
    Fact,
    GraphsBuilt,
    ModelSaved,
    PhaseFailed,
    PhaseFinished,
    PhaseSkipped,
    PhaseStarted,
    PlanCreated,
    PlanFinished,
    RowsQuarantined,
    SharedCapturesFound,
    ThresholdCalibrated,
    to_event,
)
from core.events.event import Event
from core.events.resource_facts import (
    ConfigRecommended,
    InputAdjusted,
    PackLimitChanged,
    PackLimitChosen,
    StorePlaced,
)
from core.events.telemetry import ResourceSample, TelemetryWriter
from settings.app import Settings
from tests.sample_scores import evaluation, validation

PLAN_ID = "plan-20261103-0915-7f3a"
START = datetime(2026, 11, 3, 9, 15, tzinfo=UTC)
PHASES = ("graphs", "teacher", "student", "fusion", "evaluation")
MODELS = (
    "teacher_vgae",
    "teacher_gat",
    "student_vgae",
    "student_gat",
    "fusion",
    "mlp_fusion",
    "id_frequency",
)
FOLDERS = (
    "test_01_known_vehicle_known_attack",
    "test_02_unknown_vehicle_known_attack",
    "test_03_known_vehicle_unknown_attack",
    "test_04_unknown_vehicle_unknown_attack",
    "test_05_suppress",
    "test_06_masquerade",
)
MACHINES: dict[bool, dict[str, Any]] = {
    True: {
        "cpu_model": "AMD EPYC 7543 32-Core Processor",
        "num_cpus": 16,
        "ram_total_mib": 131_072.0,
        "platform": "Linux-6.1.0-x86_64",
        "python_version": "3.11.7",
        "torch_version": "2.13.0+cu130",
        "gpus": [
            {
                "index": 0,
                "name": "NVIDIA GeForce RTX 3090",
                "vram_total_mib": 24_576.0,
                "driver": "580.65",
                "compute_capability": [8, 6],
            }
        ],
        "device": "cuda",
        "device_name": "NVIDIA GeForce RTX 3090",
        "precision": "bf16",
    },
    False: {
        "cpu_model": "AMD Ryzen 7 5800U",
        "num_cpus": 8,
        "ram_total_mib": 15_872.0,
        "platform": "Linux-6.1.0-x86_64",
        "python_version": "3.11.7",
        "torch_version": "2.13.0+cpu",
        "gpus": [],
        "device": "cpu",
        "device_name": "AMD Ryzen 7 5800U",
        "precision": "fp32",
    },
}
_PHASE_MODELS = {
    "graphs": (),
    "teacher": ("teacher_vgae", "teacher_gat"),
    "student": ("student_vgae", "student_gat"),
    "fusion": ("fusion",),
    "evaluation": (),
}
_FILES = {
    "teacher": "best_teacher_model_{}.pth",
    "student": "final_student_model_{}.pth",
    "fusion": "fusion_agent_{}.pth",
}
_SAVED = {**_PHASE_MODELS, "fusion": ("fusion", "mlp_fusion", "id_frequency")}
_PARAMETERS = {
    "teacher_vgae": 1_710_000,
    "teacher_gat": 1_100_000,
    "student_vgae": 86_000,
    "student_gat": 55_000,
    "fusion": 32_000,
    "mlp_fusion": 17_000,
    "id_frequency": 128,
}
_SKILL = dict(zip(MODELS, (0.62, 0.93, 0.58, 0.90, 0.91, 0.89, 0.71), strict=True))


@dataclass
class SampleLog:
    """Collects facts with the times at which they happened."""

    plan_id: str
    gpu: bool
    rng: random.Random
    start: datetime
    scores: str
    facts: list[tuple[float, Fact]] = field(default_factory=list)

    def say(self, at_s: float, fact: Fact) -> None:
        self.facts.append((at_s, fact))

    def events(self) -> list[Event]:
        """All facts as events, in order of time, with ids and positions as a log gives them."""
        ordered = sorted(self.facts, key=lambda fact: fact[0])
        return [
            to_event(self.plan_id, fact)._replace(
                event_id=f"{position:032x}",
                position=position,
                occurred_at=self.start + timedelta(seconds=at_s),
            )
            for position, (at_s, fact) in enumerate(ordered)
        ]


def sample_events(
    plan_id: str = PLAN_ID,
    datasets: Sequence[str] = ("hcrl_sa", "set_01"),
    folders: Sequence[str] = FOLDERS[:4],
    *,
    gpu: bool = True,
    failures: bool = True,
    seed: int = 7,
    start: datetime = START,
    scores: str = "",
) -> list[Event]:
    """The events of a whole plan; models score windows in each plan in their own way, or as `scores` says."""
    log = SampleLog(plan_id, gpu, random.Random(seed), start, scores or plan_id)
    settings = Settings(models={"preset": "published"}) if gpu else Settings()
    steps = [
        {
            "dataset": dataset,
            "phase": phase,
            "action": "run",
            "reason": "no model yet" if phase in ("graphs", "teacher") else "its parent model changes",
            "settings_digest": _digest(dataset, phase),
        }
        for dataset in datasets
        for phase in PHASES
    ]
    log.say(
        0.0,
        PlanCreated(
            steps=steps,
            settings=settings.model_dump(mode="json"),
            machine=MACHINES[gpu],
            force=False,
            previous=[],
        ),
    )
    failed = False
    end_s = 0.0
    for index, dataset in enumerate(datasets):
        trouble = failures and index == 1
        chain_end = _chain(
            log, dataset, folders, start_s=2.0 + index, oom=failures and index == 0, bug=trouble
        )
        failed |= trouble
        end_s = max(end_s, chain_end)
    log.say(
        end_s + 0.5,
        ConfigRecommended(
            device_name=MACHINES[gpu]["device_name"],
            settings={"training": {"batch_size": 4096, "micro_batch_size": 1024, "epochs": 15}},
            reasons=[
                "hcrl_sa student ran out of GPU memory with micro-batches of 2048 graphs, not with 1024.",
                "The best epoch of teacher_gat was its last: 15 epochs instead of 10.",
            ],
        ),
    )
    log.say(
        end_s + 1.0,
        PlanFinished(status="failed" if failed else "completed", duration_s=round(end_s + 1.0, 3)),
    )
    return log.events()


def _chain(
    log: SampleLog, dataset: str, folders: Sequence[str], *, start_s: float, oom: bool, bug: bool
) -> float:
    rng = log.rng
    log.say(start_s, ChainStarted(dataset=dataset))
    _data(log, dataset, folders, start_s, trouble=bug)
    now = start_s + 0.5
    device = "cuda" if log.gpu else "cpu"
    precision = "bf16" if log.gpu else "fp32"
    for phase in PHASES:
        micro = 2048
        if bug and phase == "evaluation":
            log.say(
                now,
                PhaseSkipped(dataset=dataset, phase=phase, reason="fusion failed"),
            )
            continue
        for attempt in (1, 2):
            fails = attempt == 1 and ((oom and phase == "student") or (bug and phase == "fusion"))
            log.say(
                now,
                PhaseStarted(
                    dataset=dataset,
                    phase=phase,
                    attempt=attempt,
                    device=device,
                    precision=precision,
                    micro_batch_size=micro,
                    num_workers=6,
                    prefetch_factor=2,
                ),
            )
            began = now
            _memory(log, dataset, phase, now, shortage=oom and phase == "teacher")
            now = _epochs(log, dataset, phase, now, num_epochs=2 if fails else 10)
            if not fails:
                _finish(log, dataset, phase, attempt, began, now)
                break
            kind, message = (
                ("cuda_oom", "CUDA out of memory: tried to allocate 512 MiB, 213 MiB free of 24 576 MiB")
                if oom
                else ("bug", "ValueError: replay buffer holds no transition <script>alert(1)</script>")
            )
            log.say(
                now,
                PhaseFailed(
                    dataset=dataset,
                    phase=phase,
                    attempt=attempt,
                    kind=kind,
                    message=message,
                    micro_batch_size=micro,
                ),
            )
            if bug:
                break
            micro //= 2
            now += 5.0
        if phase == "evaluation":
            _evaluations(log, dataset, folders, now - 1.0)
        now += 1.0 + rng.random()
    log.say(
        now,
        ChainFinished(
            dataset=dataset, status="failed" if bug else "completed", duration_s=round(now - start_s, 3)
        ),
    )
    return now


def _data(log: SampleLog, dataset: str, folders: Sequence[str], start_s: float, *, trouble: bool) -> None:
    paths = [
        f"data/{dataset}/train_02_with_attacks/DoS-1.csv",
        *(f"data/{dataset}/{f}/1.csv" for f in folders),
    ]
    log.say(
        start_s + 1.0,
        CapturesDigested(
            dataset=dataset,
            data_digest=_digest(dataset, "data"),
            captures=[
                {
                    "path": path,
                    "role": "test" if "test_" in path else "with_attacks",
                    "folder": path.split("/")[2],
                    "num_bytes": 2_900_000 + 1000 * number,
                    "mtime_ns": 1_700_000_000_000_000_000,
                    "sha256": _digest(dataset, path),
                }
                for number, path in enumerate(paths)
            ],
        ),
    )
    if trouble:
        log.say(
            start_s + 2.0,
            RowsQuarantined(
                dataset=dataset,
                path=paths[0],
                num_rows=37,
                num_frames=90_169,
                reasons={"bad hex payload": 30, "timestamp goes back": 7},
                examples=[{"line": 812, "reason": "bad hex payload", "text": "1.02,0316,GG12"}],
            ),
        )
        log.say(
            start_s + 2.5,
            CaptureRefused(
                dataset=dataset,
                path=paths[-1],
                reason="12.4 % of its rows are bad, more than data.max_quarantined_fraction (5 %)",
            ),
        )
        log.say(
            start_s + 3.0,
            SharedCapturesFound(
                dataset=dataset,
                captures=[
                    {
                        "path": paths[1],
                        "other_dataset": "hcrl_sa",
                        "other_path": "data/hcrl_sa/test_01/1.csv",
                        "sha256": _digest("a", "b"),
                    }
                ],
            ),
        )
    log.say(
        start_s + 12.0,
        GraphsBuilt(
            dataset=dataset,
            path=f"cache/{dataset}",
            graphs_digest=_digest(dataset, "graphs"),
            split_digest=_digest(dataset, "split"),
            num_frames=4_200_000,
            num_graphs=42_000,
            num_nodes=1_243_200,
            num_edges=1_848_000,
            num_attack_graphs=7_140,
            splits={"train": 24_100, "val": 6_000, "test": 11_700, "embargo": 200},
            duration_s=9.6,
            cached=False,
        ),
    )


def _memory(log: SampleLog, dataset: str, phase: str, now: float, *, shortage: bool) -> None:
    """Where graphs lie, how large packs may be, and perhaps that one had to be made smaller within a step."""
    if not _PHASE_MODELS[phase]:
        return
    log.say(
        now + 0.1,
        StorePlaced(
            dataset=dataset,
            phase=phase,
            placement="pinned" if log.gpu else "resident",
            num_bytes=30_000_000_000,
            room_bytes=18_000_000_000,
            reason="the store is larger than the GPU memory that is free",
        ),
    )
    limit = {"graphs": 482, "nodes": 20_000, "edges": 30_000}
    for model in _PHASE_MODELS[phase]:
        log.say(
            now + 0.2,
            PackLimitChosen(
                dataset=dataset,
                phase=phase,
                model=model,
                limit=limit,
                most=limit,
                binds="step",
                source="probed",
                memory={"room_mib": 20_000.0, "base_mib": 300.0, "node_kib": 600.0, "edge_kib": 200.0},
                key="/".join(("device", model, "data", "torch", "bf16")),
            ),
        )
    if shortage:
        log.say(
            now + 0.4,
            PackLimitChanged(
                dataset=dataset,
                phase=phase,
                model="teacher_vgae",
                epoch=0,
                step=2,
                stage="backward",
                reason="fragmentation",
                before=limit,
                after={name: most // 2 for name, most in limit.items()},
                allocated_mib=15_000.0,
                reserved_mib=23_500.0,
            ),
        )


def _input(log: SampleLog, dataset: str, phase: str, model: str, epoch: int, now: float) -> dict[str, Any]:
    """Workers and prefetch are raised in the first two epochs; what an epoch says of it."""
    if not log.gpu:
        return {"num_packs": 50, "num_workers": 0, "prefetch_factor": 2, "num_adjustments": 0}
    levels = [(6, 2), (9, 3), (10, 4), (10, 4)]
    before, after = levels[min(epoch, 2)], levels[min(epoch, 2) + 1]
    if epoch < 2:
        log.say(
            now - 1.0,
            InputAdjusted(
                dataset=dataset,
                phase=phase,
                model=model,
                epoch=epoch,
                step=25,
                reason="starved",
                num_workers=after[0],
                prefetch_factor=after[1],
                num_workers_before=before[0],
                prefetch_factor_before=before[1],
                gpu_percent=62.0,
                ram_percent=31.0,
                data_wait_s=0.9,
                data_load_s=6.0,
                compute_s=1.6,
            ),
        )
    return {
        "data_load_s": 6.5,
        "num_packs": 50,
        "num_workers": after[0],
        "prefetch_factor": after[1],
        "num_adjustments": int(epoch < 2),
        "gpu_percent": 91.0,
        "ram_percent": 32.0,
    }


def _epochs(log: SampleLog, dataset: str, phase: str, now: float, num_epochs: int) -> float:
    for model in _PHASE_MODELS[phase]:
        level = 0.35 + 0.4 * log.rng.random()
        for epoch in range(num_epochs):
            duration_s = (11.0 if "teacher" in model else 4.0) * (0.9 + 0.2 * log.rng.random())
            now += duration_s
            train = level * math.exp(-(epoch + 1) / 3.0) + 0.04
            log.say(
                now,
                EpochFinished(
                    dataset=dataset,
                    phase=phase,
                    model=model,
                    epoch=epoch,
                    train_loss=round(train, 6),
                    val_loss=round(train * (1.1 + 0.05 * log.rng.random()), 6),
                    val_metric=round(1 - train, 6) if model.endswith("gat") else None,
                    learning_rate=1e-3,
                    num_steps=50,
                    duration_s=round(duration_s, 3),
                    graphs_per_s=round(24_100 / duration_s, 1),
                    data_wait_s=0.2,
                    **_input(log, dataset, phase, model, epoch, now),
                ),
            )
            log.say(
                now + 0.05,
                CheckpointWritten(
                    dataset=dataset,
                    phase=phase,
                    model=model,
                    epoch=epoch,
                    num_steps=None,
                    path=f"checkpoints/{dataset}/{model}-{epoch:04}.pt",
                    sha256=_digest(dataset, f"{model}{epoch}"),
                ),
            )
    return now + {"graphs": 12.0, "evaluation": 12.0}.get(phase, 0.5)


def _finish(log: SampleLog, dataset: str, phase: str, attempt: int, began: float, now: float) -> None:
    if phase in _FILES:
        log.say(
            now - 0.2,
            ModelSaved(
                dataset=dataset,
                phase=phase,
                path=f"saved_models/{_FILES[phase].format(dataset)}",
                sha256=_digest(dataset, phase + "model", str(log.start)),
                data_digest=_digest(dataset, "data"),
                settings_digest=_digest(dataset, phase),
                parent_sha256="",
                num_parameters={
                    model: _PARAMETERS[model] for model in _SAVED.get(phase, _PHASE_MODELS[phase])
                },
            ),
        )
    log.say(
        now,
        PhaseFinished(
            dataset=dataset,
            phase=phase,
            attempt=attempt,
            duration_s=round(now - began, 3),
            peak_memory_mib=round(6000 + 9000 * log.rng.random(), 1) if log.gpu else 2100.0,
        ),
    )


def _evaluations(log: SampleLog, dataset: str, folders: Sequence[str], now: float) -> None:
    for model in MODELS:
        threshold = round(0.3 + 0.3 * log.rng.random(), 4)
        log.say(
            now - 8.0, ThresholdCalibrated(dataset=dataset, model=model, threshold=threshold, val_mcc=0.9)
        )
        seed = f"{log.scores}/{dataset}/{model}"
        log.say(now - 7.0, validation(dataset, model, seed, _SKILL[model], threshold))
        for number, folder in enumerate(folders):
            skill = _SKILL[model] * (1.0 if "known_vehicle_known" in folder else 0.9) - 0.1 * log.rng.random()
            for fact in evaluation(dataset, model, folder, number, seed + folder, skill, threshold):
                log.say(now - 6.0, fact)


def write_telemetry(
    telemetry: Path, events: Sequence[Event], *, gpu: bool = True, interval_s: float = 2.0
) -> None:
    """Resource samples over the time of a plan, one file per dataset as the sampler lays them out."""
    plan_id = events[0].stream
    datasets = sorted({str(e.payload["dataset"]) for e in events if "dataset" in e.payload})
    duration_s = (events[-1].occurred_at - events[0].occurred_at).total_seconds()
    samples = [
        ResourceSample(**row) for row in _samples(events[0].occurred_at, duration_s, interval_s, gpu=gpu)
    ]
    for dataset in datasets:
        TelemetryWriter(telemetry, plan_id, dataset).write(samples)


def _samples(start: datetime, duration_s: float, interval_s: float, *, gpu: bool) -> Iterator[dict[str, Any]]:
    rng = random.Random(3)
    for number in range(int(duration_s / interval_s)):
        busy = 0.5 + 0.4 * math.sin(number / 17.0) + 0.1 * rng.random()
        yield {
            "occurred_at": start + timedelta(seconds=number * interval_s),
            "cpu_percent": 100.0 * min(1.0, busy),
            "ram_used_mib": 14_000.0 + 40.0 * number**0.5 if gpu else 6_000.0 + 1000 * busy,
            "ram_total_mib": MACHINES[gpu]["ram_total_mib"],
            "process_rss_mib": 2_200.0 + 300 * busy,
            "disk_free_mib": 410_000.0 - number,
            "gpu_index": 0 if gpu else None,
            "gpu_name": MACHINES[True]["device_name"] if gpu else None,
            "gpu_utilization_percent": 80.0 * busy if gpu else None,
            "vram_used_mib": 9_000.0 + 4000 * busy if gpu else None,
            "vram_total_mib": 24_576.0 if gpu else None,
            "gpu_power_w": 120.0 + 200 * busy if gpu else None,
            "gpu_temperature_c": 45.0 + 25 * busy if gpu else None,
            "num_cpus": MACHINES[gpu]["num_cpus"],
            "training_cpu_percent": 100.0 if gpu else 640.0 * busy,
            "cuda_index": 0 if gpu else None,
            "gpu_uuid": "GPU-7d2a" if gpu else None,
            "gpu_power_limit_w": 350.0 if gpu else None,
        }


def _digest(*parts: str) -> str:
    return random.Random("/".join(parts)).randbytes(32).hex()
