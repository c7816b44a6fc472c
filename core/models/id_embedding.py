"""Arbitration ids as vectors.

Attacks inject ids that training never saw, so a lookup table would fail on the very signal: every id,
seen or not, is hashed into a fixed table by several hash functions and is the mean of the rows it meets
(hash embeddings, Svenstrup et al., arXiv 1709.03933, with equal weights).
"""

import torch
from torch import Tensor, nn

from settings.models import IdEmbeddingSettings

_PRIME = 4_294_967_311
"""Above every id, so that no two ids are the same to all hash functions; products still fit 63 bits."""


def hash_ids(node_id: Tensor, probe: int, num_buckets: int) -> Tensor:
    """The bucket of each id under one hash function of a universal family.

    Args:
        node_id: int64 ``[N]`` arbitration ids.
        probe: Which hash function.
        num_buckets: Buckets.

    Returns:
        int64 ``[N]`` in ``[0, num_buckets)``.
    """
    factor, offset = 1_000_003 + 7_368_787 * probe, 97 + 1_299_709 * probe
    return (node_id % _PRIME * factor + offset) % _PRIME % num_buckets


class IdEmbedding(nn.Module):
    """Hash embedding: an id is the mean of its `num_probes` rows of one table.

    Args:
        settings: Buckets, probes and width.
    """

    def __init__(self, settings: IdEmbeddingSettings) -> None:
        super().__init__()
        self.num_probes, self.num_buckets = settings.num_probes, settings.num_buckets
        self.table = nn.Embedding(settings.num_buckets, settings.dim)

    def forward(self, node_id: Tensor) -> Tensor:
        """Embed ids: int64 ``[N]`` -> ``[N, dim]``."""
        buckets = torch.stack(
            [hash_ids(node_id, probe, self.num_buckets) for probe in range(self.num_probes)], 1
        )
        embedded: Tensor = self.table(buckets).mean(1)
        return embedded
