"""What the next attempt of a phase is made with, and whether there is one: a pure fold of the log.

=============== ======================================================================================
failure         what the next attempt changes
=============== ======================================================================================
cuda_oom        half the graphs per pack
fragmentation   an allocator with growing segments; from the second on also half the graphs per pack
host_oom        half the graphs per pack, half the threads that gather them, half of what they hold ready
hang            no such threads, if the training thread was waiting for one of them; else nothing
cuda_error      nothing: a new process has a new CUDA context, as every attempt after a failure has
killed          nothing
data_error, bug there is no next attempt
=============== ======================================================================================
"""

from collections.abc import Mapping
from dataclasses import dataclass

from core.planning.phases import GRAPHS, STUDENT, TEACHER
from core.planning.plan_state import PhaseState
from core.resources.failures import OOM_KINDS, retryable
from core.training.batch_plan import num_steps
from settings.app import Settings

MAX_RETRIES = 50
"""Of a phase within one run of its chain, whatever progress it makes."""
_LONGEST_WAIT_S = 30.0
_INPUT_FILES = ("pipeline.py", "gather_threads.py")
"""Where the training thread waits for those that gather packs."""


@dataclass(frozen=True)
class Attempt:
    """Settings of one attempt of a phase.

    Attributes:
        number: Which attempt it is, from 1.
        wait_s: Seconds to wait before it, so that whatever disturbs may pass; longer and longer without
            progress.
        micro_batch_size: Most graphs per forward/backward.
        num_workers: Threads that gather packs, to begin with; the most there may be if `is_cautious`.
        prefetch_factor: Packs held ready per thread, likewise.
        is_cautious: Whether the input may not grow beyond that.
        growing_segments: Whether torch's CUDA allocator grows its segments.
        choices: What differs from the settings, each with its reason, for people.
    """

    number: int
    wait_s: float
    micro_batch_size: int
    num_workers: int
    prefetch_factor: int
    is_cautious: bool = False
    growing_segments: bool = False
    choices: tuple[str, ...] = ()

    def settings(self, planned: Settings) -> Settings:
        """The plan's settings with what this attempt changes of the input."""
        changes = {"num_workers": self.num_workers, "prefetch_factor": self.prefetch_factor}
        if self.is_cautious:
            changes |= {"max_workers": self.num_workers, "max_prefetch_factor": self.prefetch_factor}
        return planned.model_copy(update={"dataset": planned.dataset.model_copy(update=changes)})

    def environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Variables that its process needs besides those that are set."""
        if not self.growing_segments:
            return {}
        names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # torch 2.9 renamed it
        given = next((environment[name] for name in names if environment.get(name)), "")
        kept = [entry for entry in given.split(",") if entry and not entry.startswith("expandable_segments")]
        return dict.fromkeys(names, ",".join([*kept, "expandable_segments:True"]))


def choose_attempt(phase: str, state: PhaseState, settings: Settings, num_train: int | None) -> Attempt:
    """Choose the settings of a phase's next attempt.

    Args:
        phase: The phase.
        state: How it fared so far.
        settings: What the plan goes by.
        num_train: Training windows; None as long as there are no graphs.
    """
    dataset, ooms = settings.dataset, [kind for kind in state.failure_kinds if kind in OOM_KINDS]
    choices: list[str] = []
    asked = settings.training.micro_batch_size or settings.training.batch_size
    wait_s = min(_LONGEST_WAIT_S, 2.0 ** (state.num_fruitless - 1)) if state.status == "failed" else 0.0
    if phase == GRAPHS:  # it has neither packs nor threads that gather them
        return Attempt(state.attempts + 1, wait_s, asked, dataset.num_workers, dataset.prefetch_factor)
    micro_batch_size = _micro_batch_size(asked, state, settings, num_train)
    if micro_batch_size < asked:
        times = f"{len(ooms)} attempts" if len(ooms) > 1 else "an attempt"
        choices.append(f"at most {micro_batch_size} graphs per pack: {times} ran out of memory ({ooms[-1]})")
    growing_segments = "fragmentation" in ooms
    if growing_segments:
        choices.append("CUDA memory in growing segments: it was free, but not in one piece (fragmentation)")
    num_workers, prefetch_factor = dataset.num_workers, dataset.prefetch_factor
    if halvings := ooms.count("host_oom"):
        num_workers, prefetch_factor = num_workers >> halvings, max(1, prefetch_factor >> halvings)
        choices.append(
            f"{num_workers} input threads with {prefetch_factor} packs each, and no more: the machine ran "
            "out of memory (host_oom)"
        )
    if is_stuck := any(map(_waits_for_input, state.failures)):
        num_workers = 0
        choices.append("no input threads: training hung waiting for one")
    return Attempt(
        number=state.attempts + 1,
        wait_s=wait_s,
        micro_batch_size=micro_batch_size,
        num_workers=num_workers,
        prefetch_factor=prefetch_factor,
        is_cautious=bool(halvings) or is_stuck,
        growing_segments=growing_segments,
        choices=tuple(choices),
    )


def may_retry(phase: str, state: PhaseState, settings: Settings, num_train: int | None) -> bool:
    """Whether a phase that failed is to be tried again.

    ``training.max_retries`` attempts in a row may end without progress (a checkpoint written); a lack of
    memory does not count as long as the next attempt takes less of it, unless it struck before a model was to
    be trained: smaller packs are no cure then. 0 means no retries at all.

    Args:
        phase: The phase.
        state: How it fared so far.
        settings: What the plan goes by.
        num_train: Training windows; None as long as there are no graphs.
    """
    max_retries = settings.training.max_retries
    if not max_retries or not state.failures or not retryable(state.failure_kinds[-1]):
        return False
    had_packs = state.pack_graphs is not None or phase not in (TEACHER, STUDENT)
    if state.failure_kinds[-1] in OOM_KINDS and phase != GRAPHS and had_packs:
        following = choose_attempt(phase, state, settings, num_train)
        if following.micro_batch_size < state.micro_batch_size:
            return True
    return state.num_fruitless <= max_retries


def _micro_batch_size(asked: int, state: PhaseState, settings: Settings, num_train: int | None) -> int:
    """Half of what a pack really held, each time that memory was lacking."""
    kinds = state.failure_kinds
    halvings = sum(kind in OOM_KINDS for kind in kinds) - ("fragmentation" in kinds)
    if not halvings or num_train is None:
        return asked
    training = settings.training
    in_a_step = -(-num_train // num_steps(num_train, training.batch_size, training.min_steps_per_epoch))
    smaller = min(asked, in_a_step) >> halvings
    if state.lacking_graphs:
        smaller = min(smaller, state.lacking_graphs // 2)
    return max(1, smaller)


def _waits_for_input(failure: tuple[str, str]) -> bool:
    kind, message = failure
    return kind == "hang" and any(name in message for name in _INPUT_FILES)
