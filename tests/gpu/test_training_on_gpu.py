from pathlib import Path

import numpy as np
import pytest
import torch

from core.events.catalogue import ModelEvaluated, ModelSaved
from core.models.gat import Gat
from core.models.vgae import Vgae
from core.training.seeds import seeded
from settings.models import ModelSettings
from tests.synthetic import make_store, write_store
from tests.training_helpers import graph_data, quick_settings, run_chain

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
SIZES = ModelSettings.model_validate({"preset": "small"}).teacher
PHASES = ("teacher", "student", "fusion", "evaluation")


def test_a_batch_from_the_resident_store_equals_that_of_the_cpu() -> None:
    store = make_store(40)
    graphs = np.array([7, 3, 30])
    on_gpu, on_cpu = graph_data(store, "cuda"), graph_data(store)
    assert on_gpu.home.type == "cuda"
    gpu, cpu = on_gpu.batch(graphs), on_cpu.batch(graphs)
    for name in ("x", "node_id", "graph", "node_ptr", "edge_attr"):
        torch.testing.assert_close(getattr(gpu, name).cpu(), getattr(cpu, name), msg=name)
    assert torch.equal(gpu.edges.source.cpu(), cpu.edges.source)
    assert torch.equal(gpu.edges.target.cpu(), cpu.edges.target)


def test_models_and_gradients_equal_those_of_the_cpu() -> None:
    store = make_store(40)
    graphs = np.arange(12)
    for build in (lambda: Gat(SIZES.gat, SIZES.ids, 0.0), lambda: Vgae(SIZES.vgae, SIZES.ids, 0.0)):
        results = []
        for device in ("cpu", "cuda"):
            model = seeded(build, 0).to(device)
            output = model(graph_data(store, device).batch(graphs))
            values = output.logits if isinstance(model, Gat) else torch.stack(list(output.errors), 1)
            torch.autograd.backward(values.square().sum())
            results.append(
                [values.detach().cpu()] + [p.grad.cpu() for p in model.parameters() if p.grad is not None]
            )
        assert len(results[0]) == len(results[1])
        for on_cpu, on_gpu in zip(*results, strict=True):
            torch.testing.assert_close(on_gpu, on_cpu, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("mixed_precision", [True, False])
def test_a_chain_learns_on_the_gpu(tmp_path: Path, mixed_precision: bool) -> None:
    settings = quick_settings(
        device="cuda", epochs=6, min_steps_per_epoch=15, mixed_precision=mixed_precision, dqn={"episodes": 5}
    )
    store = write_store(tmp_path / "store", make_store(240, strength=6.0))
    recorder = run_chain(tmp_path, store, settings, *PHASES)
    assert len(recorder.of(ModelSaved)) == 3
    auroc = {fact.model: fact.metrics["auroc"] for fact in recorder.of(ModelEvaluated)}
    for model in ("teacher_vgae", "teacher_gat", "student_gat", "fusion"):
        value = auroc[model]
        assert value is not None
        assert value > 0.85, auroc


def test_a_step_recovers_from_a_real_out_of_memory(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", make_store(600, strength=6.0))
    settings = quick_settings(device="cuda", epochs=1, min_steps_per_epoch=1, patience=1)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + 96 * 2**20) / total))
    try:
        recorder = run_chain(tmp_path, store, settings, "teacher")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(recorder.of(ModelSaved)) == 1
