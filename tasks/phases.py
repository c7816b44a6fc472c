"""A Prefect task per phase; ``core.planning.chain`` does the work and decides retries from the log."""

from collections.abc import Mapping
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from core.errors import TrainingProcessError
from core.planning.attempt import MAX_RETRIES
from core.planning.chain import Chain
from core.planning.phases import EVALUATION, FUSION, GRAPHS, STUDENT, TEACHER
from tasks.logs import run_identified


def phase_task(phase: str, chain: Chain) -> Task[[Chain], None]:
    """The task of a phase, tried again as often as the chain's log says that it may be cured."""

    def is_curable(_task: Task[..., Any], _task_run: TaskRun, state: State[Any]) -> bool:
        return isinstance(state.data, TrainingProcessError) and chain.may_retry(phase)

    return PHASE_TASKS[phase].with_options(retry_condition_fn=is_curable)


def _phase_task(phase: str, name: str, description: str) -> Task[[Chain], None]:
    @task(
        name=name,
        task_run_name=f"{name}-{{chain.dataset}}",
        description=description,
        tags=[f"phase:{phase}"],
        cache_policy=NO_CACHE,
        retries=MAX_RETRIES,
    )
    def run_phase(chain: Chain) -> None:
        with run_identified():
            chain.run_phase(phase)

    return run_phase


PHASE_TASKS: Mapping[str, Task[[Chain], None]] = {
    phase: _phase_task(phase, name, description)
    for phase, name, description in (
        (GRAPHS, "build_graphs", "Captures to the flat graph store."),
        (TEACHER, "train_teacher", "Full-size VGAE and GAT."),
        (STUDENT, "distill_student", "Compressed VGAE and GAT, distilled from the teacher."),
        (FUSION, "train_fusion", "DQN agent that weighs the student's VGAE and GAT."),
        (EVALUATION, "evaluate_models", "All models and baselines on every test folder."),
    )
}
