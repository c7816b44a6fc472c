import numpy as np
import torch

from core.models.gat import Gat
from core.models.vgae import Vgae
from core.training.objectives import (
    GatDistillationObjective,
    GatObjective,
    TeacherLatents,
    VgaeDistillationObjective,
    VgaeObjective,
    distillation_loss,
    reconstruction_loss,
)
from core.training.scoring import Reader, latent_means
from settings.models import ModelSettings
from settings.training import DistillationSettings
from tests.synthetic import make_store
from tests.training_helpers import CPU, graph_data

SIZES = ModelSettings.model_validate({"preset": "small"}).student


def test_distillation_compares_classes_not_the_batch() -> None:
    student, teacher = torch.tensor([[2.0, -1.0]]), torch.tensor([[-1.0, 3.0]])
    alone = distillation_loss(student, teacher, 4.0)
    # A batch of one has a loss ...
    assert alone.item() > 0.1
    # ... and what else is in the batch does not change it.
    others = torch.randn(6, 2)
    batch = distillation_loss(torch.cat([student, others]), torch.cat([teacher, others]), 4.0)
    assert batch.shape == (7,)
    torch.testing.assert_close(batch[0], alone[0])
    torch.testing.assert_close(batch[1:], torch.zeros(6), atol=1e-6, rtol=0)


def test_distillation_loss_is_the_tempered_divergence_of_the_formula() -> None:
    student, teacher = torch.randn(5, 2), torch.randn(5, 2)
    p, q = (teacher / 3).softmax(1), (student / 3).softmax(1)
    expected = 9 * (p * (p / q).log()).sum(1)
    torch.testing.assert_close(distillation_loss(student, teacher, 3.0), expected)


def test_student_loss_mixes_soft_targets_and_task() -> None:
    store = make_store(20)
    y = torch.from_numpy(store.y.astype(np.int64))
    model, graphs = Gat(SIZES.gat, SIZES.ids, 0.0).eval(), np.array([5, 2, 6])
    logits = torch.randn(20, 2)
    batch = graph_data(store).batch(graphs)

    def loss(alpha: float) -> torch.Tensor:
        settings = DistillationSettings(temperature=4.0, alpha=alpha)
        return GatDistillationObjective(model, y, 0.0, logits, settings).losses(batch, graphs)

    task = GatObjective(model, y, 0.0).losses(batch, graphs)
    soft = distillation_loss(model(batch).logits, logits[graphs], 4.0)
    torch.testing.assert_close(loss(0.0), task)
    torch.testing.assert_close(loss(0.7), 0.7 * soft + 0.3 * task)


def test_vgae_loss_is_averaged_over_graphs_not_nodes() -> None:
    store = make_store(12)
    data, graphs = graph_data(store), np.arange(12)
    model = Vgae(SIZES.vgae, SIZES.ids, 0.0).eval()
    losses = VgaeObjective(model, 0.0).losses(data.batch(graphs), graphs)
    alone = [VgaeObjective(model, 0.0).losses(data.batch(graphs[i : i + 1]), graphs)[0] for i in range(12)]
    torch.testing.assert_close(losses, torch.stack(alone))


def test_cached_latents_are_those_of_the_teacher_whatever_the_order_of_the_batch() -> None:
    store = make_store(12)
    data, known = graph_data(store), np.array([1, 4, 5, 9])
    teacher = Vgae(SIZES.vgae, SIZES.ids, 0.0).eval()
    cached = TeacherLatents(known, data.num_nodes(known), latent_means(teacher, Reader(data, CPU, 3), known))
    graphs = np.array([9, 1, 5])
    with torch.no_grad():
        expected, _ = teacher.encode(data.batch(graphs))
    torch.testing.assert_close(cached.of(graphs, torch.device("cpu")), expected, rtol=2e-3, atol=2e-3)


def test_vgae_student_trains_a_projection_to_the_teachers_width() -> None:
    store = make_store(20)
    data, graphs = graph_data(store), np.arange(6)
    nodes = data.num_nodes(graphs)
    latents = TeacherLatents(graphs, nodes, torch.zeros(int(nodes.sum()), 13, dtype=torch.float16))
    objective = VgaeDistillationObjective(Vgae(SIZES.vgae, SIZES.ids, 0.0), 0.0, latents)
    objective.module.eval()
    batch = data.batch(graphs)
    losses = objective.losses(batch, graphs)
    torch.autograd.backward(losses.sum())
    assert objective.projection.weight.grad is not None
    assert objective.projection.weight.shape == (13, SIZES.vgae.latent)
    with torch.no_grad():
        output = objective.model(batch)
        distance = objective.projection(output.mean).square().mean(1)  # the teacher's latents are 0
        per_graph = torch.stack([part.mean() for part in distance.split(nodes.tolist())])
        torch.testing.assert_close(losses, 0.5 * per_graph + 0.5 * reconstruction_loss(output))
