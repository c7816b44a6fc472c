import numpy as np
import torch

from core.can.graph_store import GraphStore
from core.can.scaling import Scaler
from tests.synthetic import make_store
from tests.training_helpers import graph_data


def _nodes(store: GraphStore, graph: int) -> slice:
    return slice(store.node_ptr[graph], store.node_ptr[graph + 1])


def test_a_batch_holds_the_chosen_graphs_scaled_and_with_self_loops() -> None:
    store = make_store(20)
    scaler = Scaler.fit(store, 10.0)
    graphs = np.array([4, 11, 2])
    batch = graph_data(store).batch(graphs)
    assert batch.num_graphs == 3
    assert batch.max_nodes == max(np.diff(store.node_ptr)[graphs])
    for place, graph in enumerate(graphs):
        rows, first = _nodes(store, int(graph)), int(batch.node_ptr[place])
        own = batch.graph == place
        np.testing.assert_allclose(batch.x[own], scaler.scale_nodes(store.x[rows]), rtol=1e-4, atol=1e-5)
        assert np.array_equal(batch.node_id[own], store.node_id[rows])

        here = (batch.graph[batch.edges.source] == place).numpy()
        ends = torch.stack([batch.edges.source, batch.edges.target])[:, here].numpy() - first
        num_nodes, kept = rows.stop - rows.start, slice(store.edge_ptr[graph], store.edge_ptr[graph + 1])
        expected = np.concatenate([store.edge_index[:, kept], np.tile(np.arange(num_nodes), (2, 1))], 1)
        attr = np.concatenate([scaler.scale_edges(store.edge_attr[kept]), np.zeros((num_nodes, 11))])
        found = np.concatenate([ends, batch.edge_attr[here].numpy().T])
        wanted = np.concatenate([expected, attr.T])
        order_found, order_wanted = (np.lexsort(np.round(a[::-1], 3)) for a in (found, wanted))
        np.testing.assert_allclose(found[:, order_found], wanted[:, order_wanted], rtol=1e-3, atol=1e-4)


def test_edges_of_a_batch_are_sorted_by_target_and_stay_inside_their_graph() -> None:
    batch = graph_data(make_store(20)).batch(np.arange(20))
    assert (batch.edges.target.diff() >= 0).all()
    assert torch.equal(batch.graph[batch.edges.source], batch.graph[batch.edges.target])


def test_extended_ids_keep_bit_31() -> None:
    store = make_store(20)
    store.node_id[:] |= np.uint32(1 << 31)
    assert (graph_data(store).batch(np.arange(20)).node_id >= 1 << 31).all()


def test_micro_batches_share_the_random_numbers_of_their_step() -> None:
    data = graph_data(make_store(20))
    graphs = np.array([3, 1, 8, 15, 7])
    noise = data.draw_noise(graphs, 3, 2, seed=5)
    nodes, edges = (np.concatenate([[0], n(graphs).cumsum()]) for n in (data.num_nodes, data.num_edges))
    whole = noise.give(data.batch(graphs), 0, 0)
    parts = [noise.give(data.batch(graphs[i : i + 2]), nodes[i], edges[i]) for i in (0, 2, 4)]
    uniform, normal = [p.edge_uniform for p in parts], [p.node_normal for p in parts]
    assert whole.edge_uniform is not None
    assert whole.node_normal is not None
    assert torch.equal(torch.cat([u for u in uniform if u is not None]), whole.edge_uniform)
    assert torch.equal(torch.cat([n for n in normal if n is not None]), whole.node_normal)
    assert torch.equal(data.draw_noise(graphs, 3, 2, seed=5).edge_uniform, noise.edge_uniform)
