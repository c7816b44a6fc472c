"""Scoring reads every graph once, in order, whoever gathers and whatever fits."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from core.errors import GraphStoreError
from core.events.catalogue import EpochFinished, ModelSaved
from core.events.resource_facts import InputAdjusted, PackLimitChanged, StorePlaced
from core.models.batch import GraphBatch
from core.training.scoring import Reader
from settings.app import load_settings
from tests.input_helpers import HookedData, Indices, gather_threads, same_batch, wait_until
from tests.synthetic import make_store, write_store
from tests.training_helpers import CPU, QUICK, Recorder, flat, graph_data, run_chain

STORE = make_store(40)
GRAPHS = np.random.default_rng(0).permutation(40)
NAMES = {"dataset": "d", "phase": "evaluation", "size": "teacher"}


@pytest.mark.parametrize("num_workers", [0, 3])
def test_packs_that_do_not_fit_are_halved_and_no_graph_is_read_twice(num_workers: int) -> None:
    recorder, plain = Recorder(), graph_data(STORE)

    def compute(graphs: Indices, batch: GraphBatch) -> list[int]:
        assert same_batch(batch, plain.batch(graphs))
        if len(graphs) > (5 if 30 in graphs else 12):
            raise torch.OutOfMemoryError("no room")
        return [int(graph) for graph in graphs]

    data = HookedData(STORE, lambda graphs: time.sleep(0.001))
    reader = Reader(data, CPU, 20, NAMES, recorder, num_workers)
    packs = reader.map(compute, GRAPHS, "gat")
    assert [graph for pack in packs for graph in pack] == GRAPHS.tolist()
    first, second = (fact.after["graphs"] for fact in recorder.of(PackLimitChanged))
    assert second <= first // 2 == 5
    assert {fact.stage for fact in recorder.of(PackLimitChanged)} == {"evaluation"}
    wait_until(lambda: not gather_threads())


@pytest.mark.parametrize("num_workers", [0, 3])
def test_an_error_that_is_no_lack_of_memory_ends_the_reading_and_its_threads(num_workers: int) -> None:
    def fail(graphs: Indices) -> None:
        if GRAPHS[30] in graphs:
            raise GraphStoreError("damaged")

    reader = Reader(HookedData(STORE, fail), CPU, 8, NAMES, Recorder(), num_workers)
    with pytest.raises(GraphStoreError, match="damaged"):
        reader.map(lambda graphs, batch: None, GRAPHS, "gat")
    wait_until(lambda: not gather_threads())


def test_a_phase_says_where_it_reads_from_and_comes_to_the_same_weights_from_everywhere(
    tmp_path: Path,
) -> None:
    store = write_store(tmp_path / "store", make_store(90, strength=6.0))
    weights, told = {}, {}
    for placement in ("auto", "pinned", "mapped"):
        settings = load_settings(
            training={**QUICK, "epochs": 2, "adaptive_adjustment_interval": 3},
            dataset={"placement": placement, "num_workers": 2},
        )
        told[placement] = run_chain(tmp_path / placement, store, settings, "teacher")
        (saved,) = told[placement].of(ModelSaved)
        payload = torch.load(saved.path, weights_only=True)
        weights[placement] = flat(payload["vgae"] | payload["gat"])
    for placement, recorder in told.items():
        assert np.array_equal(weights[placement], weights["auto"])
        (placed,) = recorder.of(StorePlaced)
        resident = placement == "auto"
        assert placed.placement == ("resident" if resident else placement)
        assert placed.num_bytes > 0
        epochs = recorder.of(EpochFinished)
        assert all((epoch.num_workers == 0) == resident for epoch in epochs)
        assert all(epoch.ram_percent is not None for epoch in epochs)
        adjusted = recorder.of(InputAdjusted)
        assert sum(epoch.num_adjustments or 0 for epoch in epochs) == len(adjusted)
        assert not (resident and adjusted)
    wait_until(lambda: not gather_threads())
