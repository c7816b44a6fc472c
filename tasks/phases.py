"""A Prefect task per phase; ``core.planning.chain`` does the work, the failure class decides retries."""

from collections.abc import Mapping
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from core.errors import TrainingProcessError
from core.planning.chain import Chain
from core.planning.phases import EVALUATION, FUSION, GRAPHS, STUDENT, TEACHER
from core.resources.process import retryable

RETRY_DELAY_S = 1.0


def is_curable(_task: Task[..., Any], _task_run: TaskRun, state: State[Any]) -> bool:
    """Whether another attempt can cure a failed one: not bad data, not a bug."""
    error = state.data if isinstance(state.data, BaseException) else None
    return isinstance(error, TrainingProcessError) and retryable(error.kind)


@task(cache_policy=NO_CACHE, retry_condition_fn=is_curable, retry_delay_seconds=RETRY_DELAY_S)
def build_graphs(chain: Chain) -> None:
    """Captures to the flat graph store."""
    chain.run_phase(GRAPHS)


@task(cache_policy=NO_CACHE, retry_condition_fn=is_curable, retry_delay_seconds=RETRY_DELAY_S)
def train_teacher(chain: Chain) -> None:
    """Full-size VGAE and GAT."""
    chain.run_phase(TEACHER)


@task(cache_policy=NO_CACHE, retry_condition_fn=is_curable, retry_delay_seconds=RETRY_DELAY_S)
def distill_student(chain: Chain) -> None:
    """Compressed VGAE and GAT, distilled from the teacher."""
    chain.run_phase(STUDENT)


@task(cache_policy=NO_CACHE, retry_condition_fn=is_curable, retry_delay_seconds=RETRY_DELAY_S)
def train_fusion(chain: Chain) -> None:
    """DQN agent that weighs the student's VGAE and GAT."""
    chain.run_phase(FUSION)


@task(cache_policy=NO_CACHE, retry_condition_fn=is_curable, retry_delay_seconds=RETRY_DELAY_S)
def evaluate_models(chain: Chain) -> None:
    """All models and baselines on every test folder."""
    chain.run_phase(EVALUATION)


PHASE_TASKS: Mapping[str, Task[[Chain], None]] = {
    GRAPHS: build_graphs,
    TEACHER: train_teacher,
    STUDENT: distill_student,
    FUSION: train_fusion,
    EVALUATION: evaluate_models,
}
