"""Running out of memory, survived: what failed leaves nothing behind and is done again with smaller packs."""

import ctypes
import gc
import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from typing import Any, TypeVar

import torch

from core.errors import TrainingProcessError
from core.events.fact import Emit
from core.events.resource_facts import PackLimitChanged
from core.resources.failures import OOM_KINDS, classify
from core.resources.readings import MIB
from core.training.packs import LimitChange, PackLimit
from core.training.run import Run
from core.training.seeds import remember_random_states
from settings.errors import RetrainError

FIRST_PATIENCE = 50
"""Steps without a lack of memory after which a larger limit is tried."""
MOST_PATIENCE = 1600
"""Tries that fail double the patience up to this."""
_LOOK_EVERY = 10
"""Steps between two looks at the allocator's statistics, which cost tens of microseconds."""
_MANY_RETRIES = 2
"""The allocator emptied its cache so often between two looks: memory is about to run out."""
_LOG = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Shortage:
    """Memory ran out.

    Attributes:
        kind: ``cuda_oom``, ``fragmentation`` or ``host_oom``.
        message: What the allocator said.
        allocated_mib: VRAM in tensors at that moment; None without CUDA.
        reserved_mib: VRAM held by torch for them; None without CUDA.
    """

    kind: str
    message: str
    allocated_mib: float | None
    reserved_mib: float | None


def attempt(work: Callable[[], T], undo: Callable[[], None] = lambda: None) -> T | Shortage:
    """Do some work that may run out of memory.

    Args:
        work: The work; whatever it leaves half done is for `undo` to take back.
        undo: Called only after a lack of memory.

    Returns:
        What the work returned; a `Shortage` if memory ran out, with everything it had filled free again.
    """
    try:
        return work()
    except Exception as error:
        kind = classify(error)
        if isinstance(error, RetrainError) or kind not in OOM_KINDS:
            raise
        shortage = Shortage(kind, str(error) or repr(error), *_vram_mib())
        _clear_frames(error)
    # Outside the handler: until here the exception kept what filled the memory from being freed.
    undo()
    _release_memory()
    return shortage


class PackGuard:
    """Keeps packs within memory: halves what one may hold when it runs out, doubles it when there is room.

    What it does is a function of the steps and of memory. A training that is taken up again repeats the
    changes that the log tells of, at their steps, before it decides anything anew: it gets the same bits.

    Args:
        names: ``dataset``, ``phase`` and ``model``, as events name them.
        emit: Told of every change.
        limit: Most that a pack may hold to begin with.
        most: What it never grows beyond; None for `limit`.
        fits: Whether there is memory for a pack of some size, at the moment.

    Attributes:
        limit: Most that a pack may hold now.
    """

    def __init__(
        self,
        names: Mapping[str, str],
        emit: Emit,
        limit: PackLimit,
        most: PackLimit | None = None,
        fits: Callable[[PackLimit], bool] = lambda size: True,
    ) -> None:
        self.limit = limit
        self._names, self._emit, self._fits = dict(names), emit, fits
        self._most = limit if most is None else most
        self._replay: list[LimitChange] = []
        self._epoch: int | None = None
        self._largest: Callable[[], PackLimit] = lambda: self._most
        self._num_clean, self._patience, self._on_trial = 0, FIRST_PATIENCE, False
        self._num_changes = 0
        self._num_alloc_retries: int | None = None

    @classmethod
    def of(
        cls,
        run: Run,
        limit: PackLimit,
        most: PackLimit | None = None,
        fits: Callable[[PackLimit], bool] = lambda size: True,
    ) -> "PackGuard":
        """For a training: repeats the changes that the log knows of; arguments as of the class."""
        guard = cls(run.names, run.emit, limit, most, fits)
        guard._replay = list(run.known.changes) if run.known else []
        return guard

    def begin(self, epoch: int, largest: Callable[[], PackLimit]) -> None:
        """Say which epoch's steps come next, and how to find what the largest of them holds."""
        self._epoch, self._largest = epoch, largest

    def before_step(self, step: int) -> None:
        """Change the limit between steps if that is due: to be called before each."""
        if self._replay:
            self._repeat_changes(step)
        elif self.limit != self._most and self._num_clean >= self._patience:
            self._try_larger(step)
        if self._num_clean % _LOOK_EVERY == 0:
            self._look_at_allocator(step)

    def after_step(self) -> int:
        """Take note of a step that is done.

        Returns:
            How often the limit was changed since the step before it.
        """
        self._num_clean += 1
        changes, self._num_changes = self._num_changes, 0
        return changes

    def do(
        self,
        work: Callable[[], T],
        where: Callable[[], tuple[str, PackLimit]],
        step: int | None = None,
        model: str | None = None,
        undo: Callable[[], None] = lambda: None,
        remember: Callable[[], Callable[[], None]] = remember_random_states,
    ) -> T:
        """Do some work until memory suffices, from its beginning each time, with a smaller limit each time.

        Args:
            work: The work, within `limit`; it may draw from the global generators.
            where: After it failed: the stage it was in (see ``PackLimitChanged``), and what its pack held.
            step: The step it belongs to; None outside training.
            model: The model, where it is not the one in the names.
            undo: Lets go of what it may have left half done.
            remember: Takes note of all that it draws from or adds to; what it returns brings that back.

        Raises:
            TrainingProcessError: A single graph does not fit.
        """
        while True:
            restore = remember()
            done = attempt(work, undo)
            if not isinstance(done, Shortage):
                return done
            restore()
            stage, held = where()
            model = model or self._names["model"]
            # The rest of a step may be a single graph: then other packs are what filled the memory.
            tight = held if held.graphs > 1 else self.limit.within(self._largest())
            if tight.graphs <= 1:
                raise self._refusal(done, stage, held, model)
            self._change(tight, tight.halved().within(self.limit), done.kind, stage, step, model, done)

    def state_dict(self) -> dict[str, Any]:
        """What the limit's further course depends on."""
        return {
            "limit": astuple(self.limit),
            "num_clean": self._num_clean,
            "patience": self._patience,
            "on_trial": self._on_trial,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave, within the most that holds now."""
        self.limit = PackLimit(*state["limit"]).within(self._most)
        self._num_clean, self._patience = state["num_clean"], state["patience"]
        self._on_trial = state["on_trial"]

    def _repeat_changes(self, step: int) -> None:
        now = (self._epoch, step)
        while self._replay and (self._replay[0].epoch, self._replay[0].step) <= now:
            change = self._replay.pop(0)
            if (change.epoch, change.step) == now:  # earlier ones are in the checkpoint
                self._take(change.after.within(self._most), change.reason)

    def _try_larger(self, step: int) -> None:
        larger = self.limit.doubled().within(self._most)
        largest = self._largest()
        if larger.holds(largest):
            larger = self._most
        if self._fits(larger.within(largest)):
            self._change(self.limit, larger, "room", "between", step, self._names["model"])
        else:
            self._num_clean = 0

    def _look_at_allocator(self, step: int) -> None:
        if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            return
        retries = torch.cuda.memory_stats_as_nested_dict()["num_alloc_retries"]
        before, self._num_alloc_retries = self._num_alloc_retries, retries
        largest = self.limit.within(self._largest())
        if before is not None and retries - before >= _MANY_RETRIES and largest.graphs > 1:
            _release_memory()
            self._change(
                largest, largest.halved(), "allocator_retries", "between", step, self._names["model"]
            )

    def _change(
        self,
        before: PackLimit,
        after: PackLimit,
        reason: str,
        stage: str,
        step: int | None,
        model: str,
        shortage: Shortage | None = None,
    ) -> None:
        self._take(after, reason)
        self._num_changes += 1
        allocated, reserved = _vram_mib()
        if shortage:
            allocated, reserved = shortage.allocated_mib, shortage.reserved_mib
        _LOG.warning("%s: packs hold %s instead of %s (%s, %s)", model, after, before, reason, stage)
        self._emit(
            PackLimitChanged(
                **{**self._names, "model": model},
                epoch=self._epoch,
                step=step,
                stage=stage,
                reason=reason,
                before=before.to_event(),
                after=after.to_event(),
                allocated_mib=allocated,
                reserved_mib=reserved,
            )
        )

    def _take(self, after: PackLimit, reason: str) -> None:
        grows = reason == "room"
        if not grows and self._on_trial and self._num_clean < self._patience:
            self._patience = min(2 * self._patience, MOST_PATIENCE)
        self.limit, self._num_clean, self._on_trial = after, 0, grows
        self._num_alloc_retries = None  # those on the way to a lack of memory are no sign of the next one

    def _refusal(self, shortage: Shortage, stage: str, held: PackLimit, model: str) -> TrainingProcessError:
        vram = "" if shortage.allocated_mib is None else f", {shortage.allocated_mib:.0f} MiB VRAM allocated"
        return TrainingProcessError(
            shortage.kind,
            f"{self._names['dataset']}: {model} ran out of memory ({shortage.kind}, {stage}{vram}) with a "
            f"pack of a single graph of {held.nodes} nodes and {held.edges} edges: free memory, raise "
            "resources.memory_limit_mib or resources.vram_limit_mib if they are set, or choose a smaller "
            f"graph.window or models.preset. {shortage.message}",
        )


def allocate_state(optimizer: torch.optim.Optimizer) -> None:
    """Allocate the state of a fused AdamW, which else does so in its first update.

    A fused update writes in place: with its state there it has nothing left to allocate, so it cannot run out
    of memory half way.
    """
    for group in optimizer.param_groups:
        for weights in group["params"]:
            optimizer.state[weights] = {
                "step": torch.zeros((), device=weights.device),
                "exp_avg": torch.zeros_like(weights),
                "exp_avg_sq": torch.zeros_like(weights),
            }


def _clear_frames(error: BaseException | None) -> None:
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _vram_mib() -> tuple[float, float] | tuple[None, None]:
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return None, None
    return torch.cuda.memory_allocated() / MIB, torch.cuda.memory_reserved() / MIB


def _release_memory() -> None:
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        # glibc keeps what was freed for itself; other C libraries have no such function.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim:
            trim(0)
