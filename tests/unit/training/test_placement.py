import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from core.can.graph_store import open_graph_store
from core.can.scaling import Scaler
from core.training.graph_data import GraphData
from core.training.placement import LADDER, Placement, Rung, choose_placement, climb_down
from tests.input_helpers import same_batch
from tests.synthetic import make_store, write_store

GIB = 2**30
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("num_bytes", "free_vram", "free_ram", "expected"),
    [
        (1 * GIB, 10 * GIB, 10 * GIB, "resident"),
        (4 * GIB, 10 * GIB, 0, "resident"),
        (4 * GIB + 1, 10 * GIB, 11 * GIB, "pinned"),
        (4 * GIB + 1, 10 * GIB, 10 * GIB, "mapped"),
        (0, 0, 0, "resident"),
    ],
)
def test_the_first_rung_with_room_is_taken(
    num_bytes: int, free_vram: int, free_ram: int, expected: Rung
) -> None:
    placement = choose_placement("auto", num_bytes, free_vram, free_ram)
    assert placement.rung == expected
    assert placement.num_bytes == num_bytes
    assert placement.room_bytes == int(0.4 * free_vram)
    assert "40% of the free" in placement.reason


@pytest.mark.parametrize("wanted", LADDER)
def test_a_rung_that_was_asked_for_is_taken_whatever_is_free(wanted: Rung) -> None:
    placement = choose_placement(wanted, GIB, 0, 0)
    assert (placement.rung, placement.reason) == (wanted, "set by dataset.placement")


def test_memory_that_runs_out_after_all_leads_to_the_next_rung() -> None:
    tried = []

    def read(rung: Rung) -> str:
        tried.append(rung)
        if rung == "resident":
            raise torch.OutOfMemoryError("CUDA out of memory")
        if rung == "pinned":
            raise MemoryError
        return "arrays"

    placement, arrays = climb_down(Placement("resident", 5, 9, "it fits"), read)
    assert (tried, arrays) == (list(get_args(Rung)), "arrays")
    assert placement == Placement("mapped", 5, 9, "memory ran out when pinned")


@pytest.mark.parametrize(
    ("rung", "error"), [("resident", RuntimeError("something else")), ("mapped", MemoryError())]
)
def test_other_errors_and_those_of_the_last_rung_are_raised(rung: Rung, error: Exception) -> None:
    def read(rung: Rung) -> None:
        raise error

    with pytest.raises(type(error)):
        climb_down(Placement(rung, 5, 9, "why"), read)


def test_all_rungs_give_the_same_batches_and_only_the_mapped_one_reads_the_file(tmp_path: Path) -> None:
    store = open_graph_store(write_store(tmp_path / "s", make_store(30)))
    scaler = Scaler.fit(store, 10.0)
    ladder = {rung: GraphData(store, scaler, CPU, rung) for rung in LADDER}
    graphs = np.random.default_rng(0).permutation(30)
    batches = {rung: data.batch(graphs) for rung, data in ladder.items()}
    assert all(same_batch(batch, batches["mapped"]) for batch in batches.values())
    assert {rung: data.placement.rung for rung, data in ladder.items()} == {rung: rung for rung in LADDER}
    in_file = {rung: data._x.data_ptr() == store.x.ctypes.data for rung, data in ladder.items()}
    assert in_file == {"resident": False, "pinned": False, "mapped": True}


def test_a_small_store_is_resident_and_one_that_is_in_ram_is_not_copied() -> None:
    store = make_store(10)
    data = GraphData(store, Scaler.fit(store, 10.0), CPU)
    assert data.placement.rung == "resident"
    assert data.placement.num_bytes == sum(
        a.nbytes for a in (store.x, store.edge_attr, store.edge_index, store.node_id)
    )
    assert data._x.data_ptr() == store.x.ctypes.data


def test_another_scaler_shares_the_arrays() -> None:
    store = make_store(10)
    scaler = Scaler.fit(store, 10.0)
    other = Scaler(scaler.node_mean + 1, scaler.node_std, scaler.edge_mean, scaler.edge_std, 10.0)
    data = GraphData(store, scaler, CPU)
    twin, alone = data.with_scaler(other), GraphData(store, other, CPU)
    graphs = np.arange(10)
    assert same_batch(twin.batch(graphs), alone.batch(graphs))
    assert not same_batch(data.batch(graphs), alone.batch(graphs))
    assert twin._x is data._x


@pytest.mark.faults
def test_a_store_that_does_not_fit_a_real_limit_of_memory_is_read_from_disk(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "s", make_store(20_000, num_ids=40))
    script = f"""
import resource, psutil, torch, numpy as np
from pathlib import Path
from core.can.graph_store import open_graph_store
from core.can.scaling import Scaler
from core.training.graph_data import GraphData
torch.set_num_threads(1)
store = open_graph_store(Path({str(folder)!r}))
scaler = Scaler(*([np.zeros(n), np.ones(n)][i] for n in (35, 11) for i in (0, 1)), 10.0)
small = store.x.nbytes // 4
limit = psutil.Process().memory_info().data + small
resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
forced = GraphData(store, scaler, torch.device("cpu"), "resident")
chosen = GraphData(store, scaler, torch.device("cpu"))
print(forced.placement.rung, forced.placement.reason, "|", chosen.placement.rung)
print(len(chosen.batch(np.arange(10)).node_ptr))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split("\n")[:2] == ["mapped memory ran out when pinned | mapped", "11"]
