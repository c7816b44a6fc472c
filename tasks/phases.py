"""A Prefect task per phase; ``core.planning.chain`` does the work, the failure class decides retries."""

from collections.abc import Mapping
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from core.errors import TrainingProcessError
from core.planning.chain import Chain
from core.planning.phases import EVALUATION, FUSION, GRAPHS, STUDENT, TEACHER
from core.resources.failures import retryable

RETRY_DELAY_S = 1.0


def is_curable(_task: Task[..., Any], _task_run: TaskRun, state: State[Any]) -> bool:
    """Whether another attempt can cure a failed one: not bad data, not a bug."""
    error = state.data if isinstance(state.data, BaseException) else None
    return isinstance(error, TrainingProcessError) and retryable(error.kind)


def _phase_task(phase: str, name: str, description: str) -> Task[[Chain], None]:
    @task(
        name=name,
        description=description,
        cache_policy=NO_CACHE,
        retry_condition_fn=is_curable,
        retry_delay_seconds=RETRY_DELAY_S,
    )
    def run_phase(chain: Chain) -> None:
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
