"""What colours and symbols mean, in charts and in their legends."""

from collections.abc import Iterable
from dataclasses import dataclass

from core.analytics.metrics import BASELINES
from core.analytics.theme import colour

PHASE_COLOURS = ("graphs", "teacher", "student", "fusion", "evaluation")
_SHAPES = {"teacher": "triangle-up", "student": "circle", "fusion": "diamond", "mlp": "square", "id": "cross"}


@dataclass(frozen=True)
class Key:
    """An entry of a legend; a symbol is a shape of Vega's, ``line`` or ``dashes``."""

    name: str
    ink: str
    symbol: str
    filled: bool = True


def model_colour(model: str) -> str:
    """A model's colour: by family, and one grey for all baselines."""
    if model in BASELINES:
        return colour("baseline")
    family = model.rpartition("_")[2]
    return colour(family if family in ("vgae", "gat", "fusion") else "accent")


def model_shape(model: str) -> str:
    """A model's symbol: by its part in the chain."""
    return _SHAPES.get(model.partition("_")[0], "circle")


def phase_keys(*, failures: bool) -> list[Key]:
    """What the colours of phases mean."""
    keys = [Key(name, colour(name), "square") for name in PHASE_COLOURS]
    return [*keys, Key("failed attempt", colour("bad"), "square")] if failures else keys


def model_keys(models: Iterable[str]) -> list[Key]:
    """What the symbols of models mean."""
    return [
        Key(
            f"{name} (baseline)" if name in BASELINES else name,
            model_colour(name),
            model_shape(name),
            filled=name not in BASELINES,
        )
        for name in models
    ]


def loss_keys() -> list[Key]:
    """What the lines of losses mean."""
    return [
        Key("training", colour("graphs"), "dashes", filled=False),
        Key("validation", colour("accent"), "line", filled=False),
        Key("best epoch", colour("accent"), "circle"),
    ]
