"""The peer of the training benchmarks: the same widths out of PyG's own layers, loader and collation.

GATv2Conv layers (self-loops added in every layer, edges as they come), JumpingKnowledge("lstm"), mean readout
and the same head, trained by the usual loop over a DataLoader of Data objects. Inputs are scaled.
"""

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from core.can.graph_store import NUM_EDGE_FEATURES, NUM_NODE_FEATURES, GraphStore
from core.can.scaling import Scaler
from core.models.id_embedding import IdEmbedding
from settings.models import GatSettings, IdEmbeddingSettings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch_geometric.data import Data
    from torch_geometric.loader import DataLoader
    from torch_geometric.nn import GATv2Conv, JumpingKnowledge, global_mean_pool


class PeerGat(nn.Module):
    """As ``core.models.gat.Gat``, built of PyG's parts."""

    def __init__(self, settings: GatSettings, ids: IdEmbeddingSettings, dropout: float) -> None:
        super().__init__()
        self.ids = IdEmbedding(ids)
        width = settings.hidden * settings.heads
        widths = [NUM_NODE_FEATURES + ids.dim] + [width] * (settings.num_layers - 1)
        self.layers = nn.ModuleList(
            GATv2Conv(w, settings.hidden, settings.heads, edge_dim=NUM_EDGE_FEATURES, dropout=dropout)
            for w in widths
        )
        self.jump = JumpingKnowledge("lstm", width, settings.num_layers)
        head: list[nn.Module] = []
        for _ in range(settings.head_layers - 1):
            head += [nn.Linear(width, width), nn.ReLU()]
        self.head = nn.Sequential(*head, nn.Linear(width, 2))

    def forward(self, batch: Data) -> Tensor:
        """Logits ``[B, 2]``."""
        x = torch.cat([batch.x, self.ids(batch.node_id)], 1)
        outputs = []
        for layer in self.layers:
            x = functional.elu(layer(x, batch.edge_index, batch.edge_attr))
            outputs.append(x)
        logits: Tensor = self.head(global_mean_pool(self.jump(outputs), batch.batch, batch.num_graphs))
        return logits


def peer_dataset(store: GraphStore, scaler: Scaler, graphs: NDArray[np.int64]) -> list[Data]:
    """One Data object per graph, in memory; edges in an arbitrary order, as a graph builder yields them."""
    x, edge_attr = scaler.scale_nodes(store.x), scaler.scale_edges(store.edge_attr)
    rng = np.random.default_rng(0)
    dataset = []
    for graph in graphs:
        nodes = slice(store.node_ptr[graph], store.node_ptr[graph + 1])
        edges = np.arange(store.edge_ptr[graph], store.edge_ptr[graph + 1])
        edges = rng.permutation(edges)
        dataset.append(
            Data(
                x=torch.from_numpy(x[nodes]),
                edge_index=torch.from_numpy(store.edge_index[:, edges].astype(np.int64)),
                edge_attr=torch.from_numpy(edge_attr[edges]),
                node_id=torch.from_numpy(store.node_id[nodes].astype(np.int64)),
                y=int(store.y[graph]),
            )
        )
    return dataset


def peer_epochs(
    model: nn.Module, loader: DataLoader, lr: float, device: str = "cpu", teacher: nn.Module | None = None
) -> Iterator[None]:
    """Endless epochs; with a teacher, distillation that runs it on every batch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    while True:
        model.train()
        for cpu_batch in loader:
            batch = cpu_batch.to(device)
            logits = model(batch)
            loss = functional.cross_entropy(logits, batch.y)
            if teacher is not None:
                with torch.no_grad():
                    soft = (teacher(batch) / 4).softmax(1)
                kd = functional.kl_div((logits / 4).log_softmax(1), soft, reduction="batchmean") * 16
                loss = 0.7 * kd + 0.3 * loss
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        yield


@torch.no_grad()
def peer_predictions(model: nn.Module, loader: DataLoader, device: str = "cpu") -> NDArray[np.int64]:
    """Predicted class of every graph, in the loader's order."""
    model.eval()
    classes: NDArray[np.int64] = torch.cat([model(b.to(device)).argmax(1) for b in loader]).cpu().numpy()
    return classes
