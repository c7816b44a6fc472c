"""What a chain decides from the log."""

from pathlib import Path

import pytest

from core.errors import TrainingError
from core.events.catalogue import (
    CapturesDigested,
    Fact,
    GraphsBuilt,
    ModelSaved,
    PhaseFailed,
    PlanCreated,
    to_event,
)
from core.events.log import EventLog
from core.planning.chain import Chain
from core.training.job import PhaseJob
from settings.app import load_settings
from settings.layout import Layout


def created() -> PlanCreated:
    steps = [
        {"dataset": "car", "phase": phase, "action": "run", "reason": "r", "settings_digest": "d"}
        for phase in ("graphs", "teacher", "student")
    ]
    settings = load_settings(training={"batch_size": 4096}).model_dump(mode="json", exclude={"tracking"})
    return PlanCreated(steps=steps, settings=settings, machine={}, force=False, previous=[])


def digested(digest: str) -> CapturesDigested:
    return CapturesDigested(dataset="car", data_digest=digest, captures=[])


def built(store: str, train: int = 1000) -> GraphsBuilt:
    return GraphsBuilt(
        dataset="car",
        path=f"elsewhere/{store}",
        graphs_digest=store,
        split_digest="s",
        num_frames=1,
        num_graphs=1,
        num_nodes=1,
        num_edges=1,
        num_attack_graphs=1,
        splits={"train": train, "val": 1, "test": 1, "embargo": 0},
        duration_s=1.0,
        cached=False,
    )


def saved(phase: str, sha256: str) -> ModelSaved:
    return ModelSaved(
        dataset="car",
        phase=phase,
        path="p",
        sha256=sha256,
        data_digest="d",
        settings_digest="s",
        parent_sha256="",
        num_parameters={},
    )


def out_of_memory() -> PhaseFailed:
    return PhaseFailed(
        dataset="car", phase="teacher", attempt=1, kind="host_oom", message="m", micro_batch_size=1
    )


def append(output_dir: Path, plan: str, *facts: Fact) -> None:
    EventLog(Layout(output_dir).events).append([to_event(plan, fact) for fact in facts])


def attempt_job(chain: Chain, phase: str) -> PhaseJob:
    return chain.job(phase, chain.next_attempt(phase))


def test_a_plan_taken_up_again_goes_by_its_own_captures_graphs_and_models_not_by_newer_ones(
    tmp_path: Path,
) -> None:
    append(
        tmp_path, "older", created(), digested("old captures"), built("old graphs"), saved("teacher", "old")
    )
    append(
        tmp_path, "newer", created(), digested("new captures"), built("new graphs"), saved("teacher", "new")
    )
    job = attempt_job(Chain(tmp_path, "older", "car"), "student")
    assert (job.data_digest, job.store.name, job.parent_sha256) == ("old captures", "old graphs", "old")


def test_a_parent_that_this_plan_did_not_train_is_the_newest_one(tmp_path: Path) -> None:
    append(tmp_path, "first", created(), digested("c"), built("g"), saved("teacher", "trained before"))
    append(tmp_path, "second", created(), digested("c"), built("g"))
    assert attempt_job(Chain(tmp_path, "second", "car"), "student").parent_sha256 == "trained before"


def test_a_job_without_graphs_is_refused(tmp_path: Path) -> None:
    append(tmp_path, "plan", created())
    with pytest.raises(TrainingError, match="no graphs"):
        attempt_job(Chain(tmp_path, "plan", "car"), "teacher")


def test_every_lack_of_memory_halves_what_a_step_really_held(tmp_path: Path) -> None:
    append(tmp_path, "plan", created(), digested("c"), built("g", train=1000))
    chain = Chain(tmp_path, "plan", "car")
    assert attempt_job(chain, "teacher").micro_batch_size == 4096
    append(tmp_path, "plan", out_of_memory())
    assert attempt_job(chain, "teacher").micro_batch_size == 10  # 1000 graphs in 50 steps, halved
    append(tmp_path, "plan", out_of_memory())
    job = attempt_job(chain, "teacher")
    assert job.micro_batch_size == 5
    assert (job.settings.dataset.num_workers, job.settings.dataset.max_workers) == (1, 1)
    assert attempt_job(chain, "student").micro_batch_size == 4096
