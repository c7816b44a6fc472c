"""Ids keep apart where it matters."""

import torch

from core.models.id_embedding import hash_ids


def test_no_29_bit_id_is_the_same_as_its_11_bit_neighbours_under_every_hash() -> None:
    short = torch.arange(2048)
    extended = short | 2**31
    for shift in (0, 1, 2):
        hashed = [(hash_ids(extended, p, 2048), hash_ids(short + shift, p, 2048)) for p in range(2)]
        same = torch.stack([a == b for a, b in hashed])
        assert same.all(0).float().mean() < 0.01
