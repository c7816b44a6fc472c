import numpy as np
import pytest
import torch

from core.can import graph_store
from core.models import batch
from core.models.fusion import NUM_STATE, FusionNetwork
from core.models.gat import Gat
from core.models.id_embedding import IdEmbedding, hash_ids
from core.models.vgae import Vgae
from settings.models import FusionSettings, GatSettings, IdEmbeddingSettings, ModelSettings
from tests.synthetic import make_store
from tests.training_helpers import first_batch, graph_data

SIZES = ModelSettings.model_validate({"preset": "small"}).teacher
PUBLISHED = ModelSettings.model_validate({"preset": "published"})


def test_models_take_the_features_of_the_graph_store() -> None:
    assert (batch.NUM_NODE_FEATURES, batch.NUM_EDGE_FEATURES) == (
        graph_store.NUM_NODE_FEATURES,
        graph_store.NUM_EDGE_FEATURES,
    )


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("size", "vgae", "gat"), [("teacher", 1.71e6, 1.10e6), ("student", 86e3, 55e3)])
def test_published_sizes_have_nearly_the_published_parameters(size: str, vgae: float, gat: float) -> None:
    sizes = getattr(PUBLISHED, size)
    lstm = sizes.gat.model_copy(update={"jumping_knowledge": "lstm"})
    assert _count(Vgae(sizes.vgae, sizes.ids, 0.0)) == pytest.approx(vgae, rel=0.06)
    assert _count(Gat(lstm, sizes.ids, 0.0)) == pytest.approx(gat, rel=0.02)


def test_seen_and_unseen_ids_of_both_widths_get_an_embedding() -> None:
    embedding = IdEmbedding(IdEmbeddingSettings(num_buckets=64, num_probes=2, dim=5))
    ids = torch.tensor([0, 0x7FF, 0x1FFFFFFF | 0x80000000, 0xFFFFFFFF])
    assert embedding(ids).shape == (4, 5)
    assert torch.isfinite(embedding(ids)).all()
    assert torch.equal(embedding(ids), embedding(ids))


def test_probes_tell_apart_ids_that_collide_in_one_hash() -> None:
    ids = torch.arange(2048)
    first, second = (hash_ids(ids, probe, 512) for probe in (0, 1))
    both = len(np.unique(first * 512 + second))
    assert len(np.unique(first)) < 600 < both
    # An 11-bit id and a 29-bit id of equal value are different nodes.
    short, extended = hash_ids(torch.tensor([5, 5 | 0x80000000]), 0, 2048).tolist()
    assert short != extended


@pytest.mark.parametrize("jump", ["max", "lstm", "cat"])
def test_gat_gives_two_logits_and_an_embedding_per_graph(jump: str) -> None:
    settings = GatSettings.model_validate(SIZES.gat.model_dump() | {"jumping_knowledge": jump})
    model = Gat(settings, SIZES.ids, 0.0).eval()
    output = model(first_batch(make_store(20), 9))
    assert output.logits.shape == (9, 2)
    assert output.embedding.shape[0] == 9


def test_vgae_gives_three_errors_per_graph_and_a_latent_per_node() -> None:
    model = Vgae(SIZES.vgae, SIZES.ids, 0.0).eval()
    graphs = first_batch(make_store(20), 9)
    output = model(graphs)
    assert output.mean.shape == (len(graphs.x), SIZES.vgae.latent)
    for values in (*output.errors, output.divergence):
        assert values.shape == (9,)
        assert (values >= 0).all()


def test_scores_of_a_graph_do_not_depend_on_its_batch() -> None:
    store = make_store(20)
    data = graph_data(store)
    torch.manual_seed(0)
    vgae, gat = Vgae(SIZES.vgae, SIZES.ids, 0.0).eval(), Gat(SIZES.gat, SIZES.ids, 0.0).eval()
    together, alone = data.batch(np.array([3, 7, 1])), data.batch(np.array([7]))
    torch.testing.assert_close(gat(together).logits[1], gat(alone).logits[0])
    for a, b in zip(vgae(together).errors, vgae(alone).errors, strict=True):
        torch.testing.assert_close(a[1], b[0])


def test_neighbour_error_is_low_for_a_latent_that_reproduces_the_edges() -> None:
    model = Vgae(SIZES.vgae, SIZES.ids, 0.0).eval()
    graphs = first_batch(make_store(20), 4)
    errors = model(graphs).errors.neighbour
    assert (errors < 50).all()
    assert torch.isfinite(errors).all()


def test_fusion_network_maps_the_state_to_one_value_per_action() -> None:
    network = FusionNetwork(FusionSettings(hidden=16), 21)
    assert network(torch.rand(5, NUM_STATE)).shape == (5, 21)
