"""The rungs of the placement ladder on a machine with an NVIDIA GPU."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from core.can.graph_store import GraphStore, open_graph_store
from core.can.scaling import Scaler
from core.events.catalogue import ModelSaved
from core.events.resource_facts import StorePlaced
from core.training.graph_data import GraphData
from core.training.packs import PackLimit
from core.training.pipeline import Pipeline
from core.training.placement import LADDER, Rung
from settings.app import load_settings
from tests.input_helpers import read_all, tensors
from tests.synthetic import make_store, write_store
from tests.training_helpers import QUICK, flat, run_chain

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


@pytest.fixture
def store(tmp_path: Path) -> GraphStore:
    return open_graph_store(write_store(tmp_path / "store", make_store(400)))


def _data(store: GraphStore, rung: Rung) -> GraphData:
    return GraphData(store, Scaler.fit(store, 10.0), torch.device("cuda"), rung)


@pytest.mark.parametrize("num_workers", [0, 3])
@pytest.mark.parametrize("rung", LADDER)
def test_every_rung_gives_the_same_batches_on_the_device(
    store: GraphStore, rung: Rung, num_workers: int
) -> None:
    plain = GraphData(store, Scaler.fit(store, 10.0), torch.device("cpu"))
    steps = np.split(np.random.default_rng(0).permutation(400), 8)
    seen = 0
    with closing(Pipeline(_data(store, rung), PackLimit(7), num_workers)) as pipeline:
        for step, start, stop, batch in read_all(pipeline, steps):
            expected = tensors(plain.batch(steps[step][start:stop]))
            for found, wanted in zip(tensors(batch), expected, strict=True):
                if isinstance(found, torch.Tensor):
                    assert found.is_cuda
                    torch.testing.assert_close(found.cpu(), wanted)
                else:
                    assert found == wanted
            seen += stop - start
    assert seen == 400


def test_pinned_memory_is_not_used_again_before_its_copy_is_done(store: GraphStore) -> None:
    """Batches are read while the device is still busy with what was queued before their copies."""
    data, steps = _data(store, "pinned"), np.split(np.arange(400), 50)
    plain = GraphData(store, Scaler.fit(store, 10.0), torch.device("cpu"))
    with closing(Pipeline(data, PackLimit(8), 4, 4)) as pipeline:
        torch.cuda._sleep(2_000_000_000)  # type: ignore[no-untyped-call]
        kept = [batch.x for _, _, _, batch in read_all(pipeline, steps)]
    torch.cuda.synchronize()
    for x, graphs in zip(kept, steps, strict=True):
        assert torch.equal(x.cpu(), plain.batch(graphs).x)


def test_only_the_pack_in_use_is_on_the_device(store: GraphStore) -> None:
    data, steps = _data(store, "pinned"), [np.arange(400)] * 20
    before = torch.cuda.memory_allocated()
    with closing(Pipeline(data, PackLimit(400), 4, 4)) as pipeline:
        for _, _, _, batch in read_all(pipeline, steps):
            torch.cuda.synchronize()
            assert torch.cuda.memory_allocated() - before <= 2.5 * batch.num_bytes


def test_a_phase_comes_to_the_same_weights_from_every_rung(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "store", make_store(90, strength=6.0))
    weights = {}
    for rung in LADDER:
        settings = load_settings(
            training={**QUICK, "device": "cuda", "deterministic": True, "epochs": 2},
            dataset={"placement": rung, "num_workers": 2},
        )
        told = run_chain(tmp_path / rung, folder, settings, "teacher")
        assert [fact.placement for fact in told.of(StorePlaced)] == [rung]
        payload = torch.load(told.of(ModelSaved)[0].path, weights_only=True, map_location="cpu")
        weights[rung] = flat(payload["vgae"] | payload["gat"])
    assert np.array_equal(weights["pinned"], weights["mapped"])
    np.testing.assert_allclose(weights["resident"], weights["mapped"], rtol=1e-3, atol=1e-4)
