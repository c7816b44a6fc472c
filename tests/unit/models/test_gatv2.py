import numpy as np
import pytest
import torch
from torch_geometric.nn import GATv2Conv
from torch_geometric.nn import GraphNorm as PygGraphNorm

from core.models.batch import GraphBatch
from core.models.gatv2 import GATv2Layer
from core.models.segments import segment_mean, spread
from core.models.vgae import GraphNorm
from tests.synthetic import make_store
from tests.training_helpers import first_batch


def _pair(heads: int, concat: bool) -> tuple[GATv2Layer, GATv2Conv]:
    torch.manual_seed(0)
    peer = GATv2Conv(35, 6, heads=heads, concat=concat, edge_dim=11, add_self_loops=False)
    ours = GATv2Layer(35, 6, heads, 11, concat=concat, dropout=0.3)
    with torch.no_grad():
        peer.bias.normal_()
        ours.lin.weight.copy_(torch.cat([peer.lin_l.weight, peer.lin_r.weight]))
        ours.lin.bias.copy_(torch.cat([peer.lin_l.bias, peer.lin_r.bias]))
        ours.lin_edge.weight.copy_(peer.lin_edge.weight)
        ours.att.copy_(peer.att[0])
        ours.bias.copy_(peer.bias)
    return ours, peer


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("concat", [True, False])
def test_layer_and_its_gradients_equal_gatv2conv_of_pyg(heads: int, concat: bool) -> None:
    batch = first_batch(make_store(12), 12)
    ours, peer = _pair(heads, concat)
    x, x_peer = (batch.x.clone().requires_grad_() for _ in range(2))
    out = ours(x, batch.edges, batch.edge_attr)
    expected = peer(x_peer, torch.stack([batch.edges.source, batch.edges.target]), batch.edge_attr)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)

    weight = torch.randn_like(out)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    linear = torch.cat([peer.lin_l.weight.grad, peer.lin_r.weight.grad])
    pairs = [
        (x.grad, x_peer.grad),
        (ours.lin.weight.grad, linear),
        (ours.lin_edge.weight.grad, peer.lin_edge.weight.grad),
        (ours.att.grad, peer.att.grad[0]),
        (ours.bias.grad, peer.bias.grad),
    ]
    for ours_grad, peer_grad in pairs:
        torch.testing.assert_close(ours_grad, peer_grad, rtol=1e-3, atol=1e-4)


def test_dropout_drops_attention_by_the_numbers_it_is_given_and_its_gradient_follows() -> None:
    batch = first_batch(make_store(20), 2)
    layer, _ = _pair(2, concat=True)
    layer = layer.double()
    x = batch.x.double().requires_grad_()
    uniform = torch.rand(len(batch.edge_attr), 2, generator=torch.Generator().manual_seed(1))
    edge_attr = batch.edge_attr.double()
    nothing = layer(x, batch.edges, edge_attr, torch.ones_like(uniform))
    torch.testing.assert_close(nothing, layer(x, batch.edges, edge_attr) / 0.7 + layer.bias * (1 - 1 / 0.7))
    everything = layer(x, batch.edges, edge_attr, torch.zeros_like(uniform))
    torch.testing.assert_close(everything, layer.bias.expand_as(everything))
    # The softmax runs in float32: a coarse step, and one number per input is enough.
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(layer(x, batch.edges, edge_attr, uniform).sin().sum(), x)
    with torch.no_grad():
        up, down = (
            layer(x + sign * 1e-3 * direction, batch.edges, edge_attr, uniform).sin().sum()
            for sign in (1, -1)
        )
    assert float((gradient * direction).sum()) == pytest.approx(float(up - down) / 2e-3, rel=1e-2)


def _graphs(batch: GraphBatch) -> tuple[torch.Tensor, torch.Tensor]:
    return batch.graph, batch.node_ptr


def test_graph_norm_equals_that_of_pyg() -> None:
    batch = first_batch(make_store(12), 12)
    ours, peer = GraphNorm(35), PygGraphNorm(35)
    with torch.no_grad():
        for a, b in ((ours.weight, peer.weight), (ours.bias, peer.bias), (ours.mean_scale, peer.mean_scale)):
            a.copy_(b.normal_())
    torch.testing.assert_close(
        ours(batch.x, *_graphs(batch)), peer(batch.x, batch.graph), rtol=1e-4, atol=1e-5
    )


def test_segment_functions_have_the_right_gradients() -> None:
    counts = torch.tensor([3, 0, 4])
    ptr = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    segment = torch.repeat_interleave(counts)
    values = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: segment_mean(v, segment, ptr), values)
    totals = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: spread(v, segment, ptr), totals)
    assert np.allclose(segment_mean(values, segment, ptr)[1].detach(), 0)
