"""How much packs may hold: what is measured, what is known, what binds, and that probing leaves no trace."""

import random
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.events.resource_facts import PackLimitChosen
from core.models.gat import Gat
from core.models.vgae import Vgae
from core.training import budget
from core.training.budget import Demand, choose_budget, guard_packs, limit_key
from core.training.memory_model import MemoryModel
from core.training.objectives import GatObjective, VgaeObjective
from core.training.packs import KnownLimit, PackLimit, largest_step
from core.training.probing import _measure, _size, bound_memory, probe_memory
from core.training.seeds import seeded
from core.training.step import Objective
from settings.models import ModelSettings
from tests.synthetic import make_store
from tests.training_helpers import CPU, Recorder, flat, graph_data, make_run

STORE = make_store(80, num_ids=40)
DATA = graph_data(STORE)
Y = torch.from_numpy(STORE.y.astype(np.int64))
ALL = np.arange(80)
MIB = 2**20


def objective(kind: str, preset: str = "small", size: str = "teacher", jump: str = "max") -> Objective:
    sizes = getattr(ModelSettings.model_validate({"preset": preset}), size)
    if kind == "vgae":
        return VgaeObjective(seeded(lambda: Vgae(sizes.vgae, sizes.ids, 0.1), 0), 0.1)
    gat = sizes.gat.model_copy(update={"jumping_knowledge": jump})
    return GatObjective(seeded(lambda: Gat(gat, sizes.ids, 0.1), 0), Y, 0.1)


@pytest.mark.parametrize("kind", ["vgae", "gat"])
def test_probing_leaves_everything_as_it_was(kind: str) -> None:
    probed, plain = objective(kind), objective(kind)
    probed.module.register_buffer("counter", torch.zeros(2))
    forward = type(probed.module).forward

    def counting(*args: Any) -> Any:
        probed.module.counter.add_(torch.rand(2))  # type: ignore[operator]
        random.random(), np.random.rand()
        return forward(probed.module, *args)

    probed.module.forward = counting
    probed.module.eval()
    given = [torch.full_like(p, 7.0) for p in probed.module.parameters()]
    for p, gradient in zip(probed.module.parameters(), given, strict=True):
        p.grad = gradient
    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    assert probe_memory(probed, DATA, CPU, ALL)
    assert random.getstate() == before[0]
    assert str(np.random.get_state()) == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert not probed.module.training
    assert all(p.grad is g for p, g in zip(probed.module.parameters(), given, strict=True))
    state = probed.module.state_dict()
    assert torch.equal(state.pop("counter"), torch.zeros(2))
    assert np.array_equal(flat(state), flat(plain.module.state_dict()))


@pytest.mark.parametrize("kind", ["vgae", "gat"])
@pytest.mark.parametrize("size", ["teacher", "student"])
def test_the_measured_model_foretells_packs_that_were_not_measured(kind: str, size: str) -> None:
    trained = objective(kind, size=size)
    model = probe_memory(trained, DATA, CPU, ALL)
    assert model is not None
    base = 4 * sum(p.numel() for p in trained.module.parameters())
    for pack in (ALL[:12], ALL, np.argsort(DATA.num_nodes(ALL))[:30]):
        taken = _measure(trained, DATA, CPU, pack) + base
        assert 0.97 * taken <= model.bytes(_size(DATA, pack)) <= 1.35 * taken


@pytest.mark.parametrize("kind", ["vgae", "gat"])
@pytest.mark.parametrize("preset", ["small", "published"])
@pytest.mark.parametrize(("size", "jump"), [("teacher", "max"), ("student", "cat"), ("teacher", "lstm")])
def test_no_pack_takes_more_than_the_bound(kind: str, preset: str, size: str, jump: str) -> None:
    trained = objective(kind, preset, size, jump)
    for num_ids in (12, 120):
        data = graph_data(make_store(16, num_ids=num_ids))
        graphs = np.arange(16)
        bound = bound_memory(trained.module, int(data.num_nodes(graphs).max()))
        assert bound.bytes(_size(data, graphs)) > 2 * _measure(trained, data, CPU, graphs)


def test_one_large_window_among_small_ones_does_not_fool_the_model() -> None:
    large = graph_data(make_store(40, num_ids=200))
    trained = objective("vgae", size="student")
    by_nodes = np.argsort(-large.num_nodes(np.arange(40)))
    model = probe_memory(trained, large, CPU, np.arange(40))
    assert model is not None
    mixed = np.concatenate([by_nodes[:1], by_nodes[-20:]])  # every graph is padded to the largest
    taken = _measure(trained, large, CPU, mixed)
    assert model.bytes(_size(large, mixed)) > 0.97 * taken


def test_the_price_of_graphs_nodes_and_edges_is_told_apart_and_never_too_low() -> None:
    true = MemoryModel(1e6, 500.0, 20.0, 3.0)
    sizes = [PackLimit(*size) for size in ((8, 300, 700), (8, 250, 900), (8, 90, 200), (32, 1100, 2500))]
    sizes += [PackLimit(32, 900, 3300), PackLimit(32, 400, 900)]
    found = MemoryModel.fit(sizes, [true.bytes(size) for size in sizes])
    assert asdict(found) == pytest.approx(asdict(true), rel=1e-3)
    noisy = [true.bytes(size) * (1.05 if i % 2 else 0.95) for i, size in enumerate(sizes)]
    found = MemoryModel.fit(sizes, noisy)
    assert all(found.bytes(size) >= taken * 0.999 for size, taken in zip(sizes, noisy, strict=True))
    assert min(asdict(found).values()) >= 0
    assert MemoryModel.from_event(found.to_event()) == found


@pytest.mark.parametrize("room", [1e6, 3e6, 1e8])
def test_every_pack_within_a_limit_fits_the_room_it_was_made_for(room: float) -> None:
    model = MemoryModel(5e5, 1000.0, 400.0, 60.0)
    limit = model.limit(room, mean_nodes=29.6, mean_edges=74.0)
    assert limit.graphs >= 1
    assert model.bytes(replace(limit, nodes=limit.nodes - 1, edges=limit.edges - 1)) <= room
    assert model.bytes(limit.doubled()) > room


LARGEST = PackLimit(80, 2400, 6000)
DEMAND = Demand(LARGEST, 30.0, 75.0, PackLimit(4096))
PRICE = MemoryModel(1e6, 0.0, 10_000.0, 1_000.0)
BOUND = MemoryModel(1e7, 0.0, 100_000.0, 10_000.0)


def never() -> MemoryModel:
    raise AssertionError("probed without need")


def known(limit: PackLimit, most: PackLimit, memory: dict[str, float] | None = None) -> KnownLimit:
    return KnownLimit(limit, most, memory or {}, "memory")


@pytest.mark.parametrize(
    ("demand", "room", "probe", "own", "history", "expected"),
    [
        (DEMAND, 1e9, never, None, None, (PackLimit(4096), "step", "bound")),
        (replace(DEMAND, cap=PackLimit(8)), 1e9, never, None, None, (PackLimit(8), "setting", "bound")),
        (DEMAND, 1e8, lambda: PRICE, None, None, (PackLimit(4096), "step", "probed")),
        (DEMAND, 1.6e7, lambda: PRICE, None, None, (PackLimit(40, 1200, 3000), "memory", "probed")),
        (DEMAND, 1e5, lambda: None, None, None, (PackLimit(1), "memory", "probed")),
        (
            DEMAND,
            1e5,
            never,
            known(PackLimit(9, 90, 900), PackLimit(9, 90, 900)),
            None,
            (PackLimit(9, 90, 900), "memory", "history"),
        ),
        (
            replace(DEMAND, cap=PackLimit(4)),
            1e9,
            never,
            known(PackLimit(9, 90, 900), PackLimit(9, 90, 900)),
            None,
            (PackLimit(4, 90, 900), "setting", "history"),
        ),
        (
            DEMAND,
            1.6e7,
            never,
            None,
            known(PackLimit(9), PackLimit(9), PRICE.to_event()),
            (PackLimit(40, 1200, 3000), "history", "history"),
        ),
        (
            DEMAND,
            1.6e7,
            never,
            None,
            known(PackLimit(5, 150, 400), PackLimit(9, 300, 800), PRICE.to_event()),
            (PackLimit(5, 150, 400), "history", "history"),
        ),
        (
            DEMAND,
            1e9,
            never,
            None,
            known(PackLimit(5, 150, 400), PackLimit(4096)),
            (PackLimit(5, 150, 400), "history", "history"),
        ),
    ],
    ids=[
        "plenty",
        "set",
        "measured plenty",
        "measured scarce",
        "hardly anything",
        "this plan before",
        "this plan before, with less set since",
        "measured in another plan",
        "measured and lowered in another plan",
        "lowered in another plan",
    ],
)
def test_what_binds_is_named(
    demand: Demand,
    room: float,
    probe: Callable[[], MemoryModel | None],
    own: KnownLimit | None,
    history: KnownLimit | None,
    expected: tuple[PackLimit, str, str],
) -> None:
    found = choose_budget(demand, room, BOUND, probe, own, history)
    assert (found.limit, found.binds, found.source) == expected
    assert found.most.holds(found.limit)


def test_the_largest_of_each_step_is_counted() -> None:
    steps = [np.array([3, 1]), np.array([0]), np.array([2, 2, 2])]
    nodes, edges = np.array([100, 20, 3, 40]), np.array([1, 2, 30, 4])
    assert largest_step(steps, lambda g: nodes[g], lambda g: edges[g]) == PackLimit(3, 100, 90)


def test_a_training_says_what_its_packs_may_hold_and_grows_only_where_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, free = Recorder(), [8 * MIB]
    monkeypatch.setattr(budget, "free_bytes", lambda device: free[0])
    trained = objective("gat")
    key = limit_key("some CPU", "m", trained.module, "digest", CPU)
    guard = guard_packs(
        make_run(tmp_path, recorder), trained, DATA, CPU, [ALL[:40], ALL[40:]], key, 4096, 0.87
    )
    (told,) = recorder.of(PackLimitChosen)
    assert (told.binds, told.source) == ("memory", "probed")
    assert 1 < told.limit["graphs"] < 40
    assert guard.limit == PackLimit(**told.limit)
    assert told.memory["room_mib"] < 0.87 * 8
    assert told.key == f"some CPU/m:{sum(p.numel() for p in trained.module.parameters())}/digest/" + "/".join(
        [torch.__version__, "float32"]
    )
    taken = _measure(trained, DATA, CPU, np.argsort(-DATA.num_nodes(ALL))[: told.limit["nodes"] // 40])
    assert taken <= 0.87 * 8 * MIB
    assert guard._fits(guard.limit)
    free[0] //= 2
    assert not guard._fits(guard.limit)
