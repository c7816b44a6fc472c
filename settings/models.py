"""Sizes of the models (published ones and a small preset for CPU machines)."""

from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ModelWrapValidatorHandler, model_validator

from settings.group import Group
from settings.tree import merge


class IdEmbeddingSettings(Group):
    """Hash embedding of arbitration ids."""

    num_buckets: int = Field(default=2048, ge=2, description="Rows of the hash table.")
    num_probes: int = Field(default=2, ge=1, description="Hash functions; their rows are averaged.")
    dim: int = Field(default=16, ge=1, description="Width of the embedding.")


class VgaeSettings(Group):
    """Variational graph autoencoder."""

    hidden: tuple[int, ...] = Field(
        description="Widths of the GATv2 encoder layers; the last feeds the latent."
    )
    heads: int = Field(ge=1, description="Attention heads of each encoder layer; averaged.")
    latent: int = Field(ge=1, description="Width of the latent space.")


class GatSettings(Group):
    """Supervised graph attention classifier."""

    hidden: int = Field(ge=1, description="Width per head.")
    heads: int = Field(ge=1, description="Attention heads of each layer.")
    num_layers: int = Field(ge=1, description="GATv2 layers.")
    head_layers: int = Field(ge=1, description="Linear layers of the classifier head.")
    jumping_knowledge: Literal["max", "lstm", "cat"] = Field(
        default="max",
        description="How layer outputs are joined. The papers use lstm; max is as good and 20 times faster.",
    )


class FusionSettings(Group):
    """DQN fusion agent."""

    hidden: int = Field(ge=1, description="Width of the three hidden layers.")


class ModelSizes(Group):
    """One of the two sizes: teacher or student."""

    ids: IdEmbeddingSettings = Field(default_factory=IdEmbeddingSettings)
    vgae: VgaeSettings
    gat: GatSettings
    fusion: FusionSettings


_PRESETS: dict[str, dict[str, ModelSizes]] = {
    "published": {
        "teacher": ModelSizes(
            vgae=VgaeSettings(hidden=(480, 240, 64), heads=4, latent=64),
            gat=GatSettings(hidden=42, heads=4, num_layers=3, head_layers=4),
            fusion=FusionSettings(hidden=256),
        ),
        "student": ModelSizes(
            ids=IdEmbeddingSettings(dim=12),
            vgae=VgaeSettings(hidden=(80, 40, 16), heads=1, latent=16),
            gat=GatSettings(hidden=9, heads=4, num_layers=2, head_layers=2),
            fusion=FusionSettings(hidden=128),
        ),
    },
    "small": {
        "teacher": ModelSizes(
            ids=IdEmbeddingSettings(num_buckets=512),
            vgae=VgaeSettings(hidden=(64, 32), heads=2, latent=16),
            gat=GatSettings(hidden=16, heads=4, num_layers=3, head_layers=3),
            fusion=FusionSettings(hidden=128),
        ),
        "student": ModelSizes(
            ids=IdEmbeddingSettings(num_buckets=512, dim=8),
            vgae=VgaeSettings(hidden=(32, 16), heads=1, latent=8),
            gat=GatSettings(hidden=8, heads=2, num_layers=2, head_layers=2),
            fusion=FusionSettings(hidden=64),
        ),
    },
}


class ModelSettings(Group):
    """Teacher and student sizes; a preset fills what is not given."""

    preset: Literal["published", "small"] = Field(
        default="small", description="`published` for GPU machines, `small` for CPU machines and the demo."
    )
    teacher: ModelSizes
    student: ModelSizes

    @model_validator(mode="wrap")
    @classmethod
    def _fill_from_preset(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, dict):
            return handler(data)
        preset = data.get("preset")
        sizes = _PRESETS.get(preset if isinstance(preset, str) else "small", _PRESETS["small"])
        filled = handler(merge({name: size.model_dump() for name, size in sizes.items()}, data))
        _forget_all_but(filled, data)
        return filled


def _forget_all_but(group: BaseModel, given: Any) -> None:
    """Let nothing count as given but what was: another preset may take the place of the rest."""
    if not isinstance(given, dict):
        return
    group.model_fields_set.intersection_update(given)
    for name in type(group).model_fields:
        if isinstance(inner := getattr(group, name), BaseModel):
            _forget_all_but(inner, given.get(name, {}))
