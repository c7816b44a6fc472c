"""Memory that runs out at chosen moments: the weights are those of a training that had the new limit."""

import random
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.errors import TrainingProcessError
from core.events.fact import Emit
from core.events.resource_facts import PackLimitChanged
from core.models.batch import GraphBatch
from core.models.gat import Gat
from core.models.vgae import Vgae
from core.training.batch_plan import plan_epoch
from core.training.dqn import FusionAgent, _AgentLearner, train_agent
from core.training.memory import FIRST_PATIENCE, PackGuard, Shortage, attempt
from core.training.mlp_fusion import _MlpLearner, train_mlp
from core.training.objectives import (
    GatDistillationObjective,
    GatObjective,
    TeacherLatents,
    VgaeDistillationObjective,
    VgaeObjective,
)
from core.training.packs import KnownLimit, LimitChange, PackLimit
from core.training.passes import WindowLearner
from core.training.pipeline import Pipeline
from core.training.precision import Precision, one_thread
from core.training.run import Run
from core.training.scoring import Reader, latent_means, score_gat, score_vgae
from core.training.seeds import seeded, step_seed
from core.training.step import Objective, Stepper
from settings.models import FusionSettings, ModelSettings
from settings.training import DqnSettings, TrainingSettings
from tests.synthetic import make_store
from tests.training_helpers import (
    CPU,
    Recorder,
    flat,
    fusion_windows,
    graph_data,
    make_guard,
    make_run,
    make_tuner,
)

SIZES = ModelSettings.model_validate({"preset": "small"})
STORE = make_store(24)
DATA = graph_data(STORE)
Y = torch.from_numpy(STORE.y.astype(np.int64))
ALL = np.arange(24)
FP16 = Precision(torch.device("cpu"), torch.float16)
NUM_STEPS = 3
ERRORS: dict[str, tuple[Exception, str]] = {
    "cuda": (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "cuda_oom"),
    "fragmented": (
        torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total capacity of 23.69 GiB of "
            "which 10.00 MiB is free. Of the allocated memory 20.00 GiB is allocated by PyTorch, and "
            "2.50 GiB is reserved by PyTorch but unallocated."
        ),
        "fragmentation",
    ),
    "cpu": (
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate"),
        "host_oom",
    ),
    "python": (MemoryError(), "host_oom"),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def teacher_vgae() -> Objective:
    sizes = SIZES.teacher
    return VgaeObjective(seeded(lambda: Vgae(sizes.vgae, sizes.ids, 0.2), 3), 0.2)


def teacher_gat() -> Objective:
    sizes = SIZES.teacher
    return GatObjective(seeded(lambda: Gat(sizes.gat, sizes.ids, 0.2), 3), Y, 0.2)


def student_vgae() -> Objective:
    sizes = SIZES.student
    nodes = DATA.num_nodes(ALL)
    latents = TeacherLatents(ALL, nodes, torch.randn(int(nodes.sum()), 8, generator=torch.Generator()).half())
    model = seeded(lambda: Vgae(sizes.vgae, sizes.ids, 0.2), 3)
    return seeded(lambda: VgaeDistillationObjective(model, 0.2, latents), 3)


def student_gat() -> Objective:
    sizes = SIZES.student
    model = seeded(lambda: Gat(sizes.gat, sizes.ids, 0.2), 3)
    logits = torch.randn(24, 2, generator=torch.Generator())
    return GatDistillationObjective(model, Y, 0.2, logits, TrainingSettings().distillation)


OBJECTIVES: dict[str, Callable[[], Objective]] = {
    build.__name__: build for build in (teacher_vgae, teacher_gat, student_vgae, student_gat)
}


class Shortages:
    """Memory that runs out at the given packs of the given steps, once each; it draws numbers before it does.

    Args:
        error: What is raised.
        at: Step -> place of the pack within it (counted anew in every try).
    """

    def __init__(self, error: Exception, at: dict[int, list[int]]) -> None:
        self.error, self.at = error, {step: list(packs) for step, packs in at.items()}
        self.step, self.pack = 0, -1

    def strike(self) -> None:
        self.pack += 1
        if self.at.get(self.step, [])[:1] == [self.pack]:
            self.at[self.step].pop(0)
            self.pack = -1
            random.random(), np.random.rand(), torch.rand(3)
            raise self.error


class FullInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, shortages: Shortages) -> Tensor:
        ctx.shortages = shortages
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.shortages.strike()
        return grad, None


class Injected:
    """An objective whose memory runs out, or a stage around it."""

    def __init__(self, inner: Objective, shortages: Shortages, stage: str) -> None:
        self.inner, self.shortages, self.stage = inner, shortages, stage
        self.module: nn.Module = inner.module
        self.num_edge_uniform, self.num_node_normal = inner.num_edge_uniform, inner.num_node_normal

    def losses(self, batch: GraphBatch, graphs: NDArray[np.int64]) -> Tensor:
        losses = self.inner.losses(batch, graphs)
        if self.stage == "forward":
            self.shortages.strike()
        if self.stage == "backward":
            full: Tensor = FullInBackward.apply(losses, self.shortages)  # type: ignore[no-untyped-call]
            return full
        return losses


def train(
    objective: Objective,
    changes: dict[int, PackLimit] | None = None,
    shortages: Shortages | None = None,
    limit: PackLimit | None = None,
    precision: Precision = CPU,
) -> tuple[NDArray[np.float64], Recorder]:
    """Two epochs; with the limit set at some steps, or with shortages."""
    recorder = Recorder()
    optimizer = torch.optim.AdamW(objective.module.parameters(), lr=0.01, fused=True)
    pipeline = Pipeline(DATA, limit or PackLimit(8))
    guard = make_guard(pipeline.limit, recorder)
    stepper = Stepper(objective, pipeline, optimizer, precision, make_tuner(pipeline), guard)
    for epoch in range(2):
        stepper.begin(epoch, plan_epoch(ALL, seed=0, epoch=epoch, batch_size=8, min_steps=NUM_STEPS))
        for step in range(NUM_STEPS):
            number = epoch * NUM_STEPS + step
            if changes and number in changes:
                guard.limit = changes[number]
            if shortages:
                shortages.step, shortages.pack = number, -1
            stepper.step(step, step_seed(0, epoch, step))
    return flat(objective.module.state_dict()), recorder


def changes_of(recorder: Recorder) -> dict[int, PackLimit]:
    """The last limit of each step."""
    told = recorder.of(PackLimitChanged)
    return {(f.epoch or 0) * NUM_STEPS + (f.step or 0): PackLimit(**f.after) for f in told}


@pytest.mark.parametrize("model", OBJECTIVES)
@pytest.mark.parametrize("stage", ["forward", "backward", "input"])
def test_a_training_that_ran_out_of_memory_has_the_weights_of_one_with_the_new_limit_from_that_step_on(
    model: str, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # At once; and in a later step, when its first pack is done.
    shortages = Shortages(ERRORS["cpu"][0], {1: [0], 4: [1]})
    build = OBJECTIVES[model]
    before = random.getstate(), torch.get_rng_state()
    with monkeypatch.context() as patch:
        if stage == "input":
            gather = DATA.gather

            def full(graphs: NDArray[np.int64]) -> GraphBatch:
                batch = gather(graphs)
                shortages.strike()
                return batch

            patch.setattr(DATA, "gather", full)
        found, recorder = train(Injected(build(), shortages, stage), shortages=shortages)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    told = recorder.of(PackLimitChanged)
    assert [(f.epoch, f.step, f.stage, f.reason) for f in told] == [
        (0, 1, stage, "host_oom"),
        (1, 1, stage, "host_oom"),
    ]
    assert all(PackLimit(**f.after) == PackLimit(**f.before).halved() for f in told)
    assert told[0].before["graphs"] == 8 > told[1].before["graphs"] > 1
    expected, _ = train(build(), changes_of(recorder))
    never_full, _ = train(build())
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, never_full)
    np.testing.assert_allclose(found, never_full, rtol=1e-2, atol=5e-3)


@pytest.mark.parametrize("error", ERRORS)
def test_every_kind_of_shortage_is_recovered_from_and_named(error: str) -> None:
    raised, kind = ERRORS[error]
    shortages = Shortages(raised, {0: [0]})
    _, recorder = train(Injected(teacher_gat(), shortages, "forward"), shortages=shortages)
    assert [f.reason for f in recorder.of(PackLimitChanged)] == [kind]


@pytest.mark.parametrize("precision", [CPU, FP16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("times", [1, 2])
def test_memory_that_runs_out_while_gradients_are_clipped_leaves_no_partial_update(
    monkeypatch: pytest.MonkeyPatch, precision: Precision, times: int
) -> None:
    clip, calls = nn.utils.clip_grad_norm_, iter(range(99))

    def full(parameters: Any, norm: float) -> Tensor:
        if next(calls) in range(2, 2 + times):
            for parameter in list(parameters)[::2]:
                parameter.grad = None  # half done
            raise ERRORS["cuda"][0]
        return clip(parameters, norm)

    with monkeypatch.context() as patch:
        patch.setattr(nn.utils, "clip_grad_norm_", full)
        found, recorder = train(teacher_gat(), precision=precision)
    assert len(recorder.of(PackLimitChanged)) == times
    assert np.array_equal(found, train(teacher_gat(), changes_of(recorder), precision=precision)[0])


def test_the_first_update_has_nothing_left_to_allocate() -> None:
    objective = teacher_gat()
    optimizer = torch.optim.AdamW(objective.module.parameters(), lr=0.01, fused=True)
    pipeline = Pipeline(DATA, PackLimit(8))
    stepper = Stepper(objective, pipeline, optimizer, CPU, make_tuner(pipeline), make_guard(pipeline.limit))
    held = {
        id(state[name]) for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq", "step")
    }
    stepper.begin(0, [ALL])
    stepper.step(0, seed=1)
    used = {
        id(state[name]) for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq", "step")
    }
    assert used == held
    assert len(held) == 3 * len(list(objective.module.parameters()))


def test_an_error_that_is_no_lack_of_memory_is_raised() -> None:
    shortages = Shortages(ValueError("a bug"), {0: [0]})
    with pytest.raises(ValueError, match="a bug"):
        train(Injected(teacher_gat(), shortages, "forward"), shortages=shortages)


def test_a_single_graph_that_does_not_fit_is_refused_with_its_size_and_the_cause() -> None:
    shortages = Shortages(ERRORS["cuda"][0], {0: [0]})
    with pytest.raises(
        TrainingProcessError,
        match=r"m ran out of memory \(cuda_oom, backward\).*of a single "
        r"graph of \d+ nodes and \d+ edges.*Tried to allocate 2.00 GiB",
    ) as caught:
        train(Injected(teacher_gat(), shortages, "backward"), shortages=shortages, limit=PackLimit(1))
    assert caught.value.kind == "cuda_oom"


def test_what_filled_the_memory_is_free_before_the_next_try() -> None:
    filled: list[weakref.ref[Tensor]] = []

    def below() -> None:
        values = torch.ones(1000)
        filled.append(weakref.ref(values))
        raise ERRORS["cuda"][0].with_traceback(None)

    def work() -> None:
        kept = torch.ones(1000)
        filled.append(weakref.ref(kept))
        try:
            below()
        except RuntimeError as error:
            raise MemoryError from error

    undone = []
    assert isinstance(attempt(work, lambda: undone.append([ref() for ref in filled])), Shortage)
    assert undone == [[None, None]]


WINDOWS = fusion_windows(60, 0), fusion_windows(20, 1)
FUSION = TrainingSettings(
    lr=0.01, min_steps_per_epoch=3, dqn=DqnSettings(episodes=3, batch_size=16, replay_capacity=100)
)


def train_fusion(name: str, run: Run) -> NDArray[np.float64]:
    if name == "agent":
        return flat(train_agent(run, *WINDOWS, FusionSettings(hidden=8), FUSION).network.state_dict())
    return flat(train_mlp(run, *WINDOWS, FusionSettings(hidden=8), FUSION).state_dict())


@pytest.mark.parametrize("name", ["agent", "mlp"])
@pytest.mark.parametrize("stage", ["input", "forward", "backward"])
def test_a_fusion_network_that_ran_out_of_memory_has_the_weights_of_one_with_the_new_limit(
    name: str, stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner: type[WindowLearner] = {"agent": _AgentLearner, "mlp": _MlpLearner}[name]  # type: ignore[assignment]
    doing: Any = {
        "input": (learner, "examples"),
        "forward": (learner, "loss"),
        "backward": (torch.autograd, "backward"),
    }[stage]
    works, calls = getattr(*doing), iter(range(9999))

    def full(*args: Any) -> Any:
        done = works(*args)  # the replay buffer is filled, gradients are there: and then it fails
        if next(calls) in {5, 6, 9}:
            raise ERRORS["python"][0]
        return done

    recorder = Recorder()
    with monkeypatch.context() as patch:
        patch.setattr(doing[0], doing[1], full)
        found = train_fusion(name, make_run(tmp_path / "full", recorder, 1e9))
    told = recorder.of(PackLimitChanged)
    assert [f.after["graphs"] for f in told] == [8, 4, 2]
    assert {f.stage for f in told} == {stage}

    in_force = {(f.epoch, f.step): f.after["graphs"] for f in told}
    update = WindowLearner.step

    def step(self: WindowLearner, index: int, seed: int) -> Tensor:
        if graphs := in_force.get((self.guard._epoch, index)):
            self.guard.limit = PackLimit(graphs, 0, 0)
        return update(self, index, seed)

    monkeypatch.setattr(WindowLearner, "step", step)
    assert np.array_equal(found, train_fusion(name, make_run(tmp_path / "limited", Recorder(), 1e9)))


def test_validation_of_a_fusion_network_goes_on_in_smaller_packs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train_fusion("agent", make_run(tmp_path / "a", Recorder(), 1e9))
    weigh = FusionAgent.weigh

    def full(self: FusionAgent, state: Tensor) -> Tensor:
        if len(state) > 6:
            raise ERRORS["python"][0]
        return weigh(self, state)

    monkeypatch.setattr(FusionAgent, "weigh", full)
    recorder = Recorder()
    assert np.array_equal(train_fusion("agent", make_run(tmp_path / "b", recorder, 1e9)), expected)
    assert {f.stage for f in recorder.of(PackLimitChanged)} == {"evaluation"}


def reader(recorder: Emit, micro_batch_size: int = 8) -> Reader:
    names = {"dataset": "d", "phase": "teacher", "size": "teacher"}
    return Reader(DATA, CPU, micro_batch_size, names, recorder)


def test_scores_are_in_order_when_memory_ran_out_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = SIZES.teacher
    vgae = seeded(lambda: Vgae(sizes.vgae, sizes.ids, 0.0), 1)
    gat = seeded(lambda: Gat(sizes.gat, sizes.ids, 0.0), 1)
    graphs = ALL[::-1].copy()
    quiet = Recorder()
    expected = (
        score_vgae(vgae, reader(quiet), graphs).errors,
        score_gat(gat, reader(quiet), graphs).logits,
        latent_means(vgae, reader(quiet), graphs).float().numpy(),
    )
    assert not quiet.facts
    forward: Any = nn.Module.__call__
    recorder = Recorder()
    left = {"vgae": 1, "gat": 1}

    def full(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        kind = type(self).__name__.lower()
        if isinstance(self, Vgae | Gat) and len(args[0].node_ptr) > 3 and args[0].num_graphs == 8:
            left[kind] -= 1
            if left[kind] == -1:
                raise ERRORS["cpu"][0]
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(nn.Module, "__call__", full)
    found_vgae = score_vgae(vgae, reader(recorder), graphs).errors
    found_gat = score_gat(gat, reader(recorder), graphs).logits
    np.testing.assert_allclose(found_vgae, expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found_gat, expected[1], rtol=1e-4, atol=1e-5)
    told = recorder.of(PackLimitChanged)
    assert [(f.model, f.stage, f.epoch, f.step) for f in told] == [
        ("teacher_vgae", "evaluation", None, None),
        ("teacher_gat", "evaluation", None, None),
    ]
    assert [(f.before["graphs"], f.after["graphs"]) for f in told] == [(8, 4), (8, 4)]


def test_a_scored_graph_that_does_not_fit_is_refused() -> None:
    def full(_: NDArray[np.int64], batch: GraphBatch) -> None:
        raise ERRORS["cpu"][0]

    with pytest.raises(TrainingProcessError, match=r"teacher_gat .*host_oom, evaluation.*single graph"):
        reader(Recorder()).map(full, ALL, "gat")


def clean_steps(guard: PackGuard, num: int, start: int = 0) -> int:
    for step in range(start, start + num):
        guard.before_step(step)
        guard.do(lambda: None, lambda: ("forward", PackLimit(4)), step)
        guard.after_step()
    return start + num


def fail(guard: PackGuard, step: int) -> None:
    errors = iter([ERRORS["cuda"][0]])

    def work() -> None:
        for error in errors:
            raise error

    guard.before_step(step)
    guard.do(work, lambda: ("forward", guard.limit), step)
    guard.after_step()


def test_the_limit_grows_back_when_there_is_room_and_a_failed_try_waits_twice_as_long() -> None:
    recorder, room = Recorder(), [False]
    guard = PackGuard(
        {"dataset": "d", "phase": "p", "model": "m"},
        recorder,
        PackLimit(8, 80, 800),
        fits=lambda size: room[0],
    )
    guard.begin(0, lambda: PackLimit(8, 80, 800))
    fail(guard, 0)
    step = clean_steps(guard, 3 * FIRST_PATIENCE, 1)
    assert guard.limit == PackLimit(4, 40, 400)  # there was never room
    room[0] = True
    step = clean_steps(guard, FIRST_PATIENCE, step)
    assert guard.limit == PackLimit(8, 80, 800)
    fail(guard, step)  # no, there was not
    assert guard.limit == PackLimit(4, 40, 400)
    step = clean_steps(guard, 2 * FIRST_PATIENCE - 1, step + 1)
    assert guard.limit == PackLimit(4, 40, 400)
    clean_steps(guard, 2, step)
    assert guard.limit == PackLimit(8, 80, 800)
    assert [f.reason for f in recorder.of(PackLimitChanged)] == ["cuda_oom", "room", "cuda_oom", "room"]
    assert recorder.of(PackLimitChanged)[1].stage == "between"
    clean_steps(guard, 3 * FIRST_PATIENCE, step)
    assert guard.limit == PackLimit(8, 80, 800)  # and never beyond


def test_a_limit_that_holds_the_largest_step_grows_to_the_most_there_is() -> None:
    guard = make_guard(PackLimit(4096))
    guard.begin(0, lambda: PackLimit(8, 80, 800))
    guard.limit = PackLimit(4, 40, 400)
    clean_steps(guard, FIRST_PATIENCE + 1)
    assert guard.limit == PackLimit(4096)


def test_a_resumed_guard_grows_at_the_same_step() -> None:
    def begun() -> PackGuard:
        guard = make_guard(PackLimit(8, 80, 800))
        guard.begin(0, lambda: PackLimit(8, 80, 800))
        return guard

    whole, cut = begun(), begun()
    for guard in (whole, cut):
        fail(guard, 0)
        clean_steps(guard, 20, 1)
    resumed = begun()
    resumed.load_state_dict(cut.state_dict())
    for step in range(21, 100):
        for guard in (whole, resumed):
            clean_steps(guard, 1, step)
        assert whole.limit == resumed.limit
    assert whole.limit == PackLimit(8, 80, 800)


def test_changes_that_the_log_knows_are_repeated_at_their_steps_without_a_word(tmp_path: Path) -> None:
    shortages = Shortages(ERRORS["cpu"][0], {1: [0, 1]})
    expected, told = train(Injected(student_gat(), shortages, "forward"), shortages=shortages)
    known = tuple(
        LimitChange(f.epoch or 0, f.step or 0, f.reason, PackLimit(**f.after))
        for f in told.of(PackLimitChanged)
    )
    recorder = Recorder()
    most = PackLimit(8)
    run = make_run(tmp_path, recorder)
    run = Run(
        run.dataset,
        run.phase,
        run.model,
        run.checkpoints,
        recorder,
        KnownLimit(most, most, {}, "step", known),
    )
    objective = student_gat()
    optimizer = torch.optim.AdamW(objective.module.parameters(), lr=0.01, fused=True)
    pipeline = Pipeline(DATA, most)
    stepper = Stepper(objective, pipeline, optimizer, CPU, make_tuner(pipeline), PackGuard.of(run, most))
    for epoch in range(2):
        stepper.begin(epoch, plan_epoch(ALL, seed=0, epoch=epoch, batch_size=8, min_steps=NUM_STEPS))
        for step in range(NUM_STEPS):
            stepper.step(step, step_seed(0, epoch, step))
    assert np.array_equal(flat(objective.module.state_dict()), expected)
    assert not recorder.facts


def test_an_allocator_that_keeps_emptying_its_cache_is_given_less_before_memory_runs_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    retries = [0]
    cuda = torch.cuda
    monkeypatch.setattr(cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(cuda, "memory_stats_as_nested_dict", lambda: {"num_alloc_retries": retries[0]})
    for name in ("memory_allocated", "memory_reserved"):
        monkeypatch.setattr(cuda, name, lambda: 3 * 2**20)
    monkeypatch.setattr(cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(cuda, "get_rng_state", lambda: None)
    recorder = Recorder()
    guard = make_guard(PackLimit(8, 80, 800), recorder)
    guard.begin(0, lambda: PackLimit(8, 80, 800))
    step = clean_steps(guard, 20)
    retries[0] += 5
    clean_steps(guard, 10, step)
    (told,) = recorder.of(PackLimitChanged)
    assert (told.reason, told.stage, told.allocated_mib) == ("allocator_retries", "between", 3.0)
    assert guard.limit == PackLimit(4, 40, 400)
