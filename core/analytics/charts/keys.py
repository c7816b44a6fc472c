"""What colours and symbols mean, in charts and in their legends."""

from collections.abc import Iterable
from dataclasses import dataclass

from core.analytics.metrics import BASELINES
from core.analytics.theme import colour
from core.analytics.timeline import MarkKind

PHASE_COLOURS = ("graphs", "teacher", "student", "fusion", "evaluation")
MARK_SHAPES: dict[MarkKind, str] = {
    "failure": "cross",
    "retry": "triangle-right",
    "resume": "diamond",
    "memory": "triangle-down",
    "room": "triangle-up",
    "input": "circle",
}
MARK_COLOURS: dict[MarkKind, str] = {
    "failure": colour("bad"),
    "retry": colour("ink"),
    "resume": colour("ink"),
    "memory": colour("bad"),
    "room": colour("good"),
    "input": colour("accent"),
}
_MARK_NAMES: dict[MarkKind, str] = {
    "failure": "attempt failed",
    "retry": "retry",
    "resume": "plan resumed",
    "memory": "packs made smaller",
    "room": "packs made larger",
    "input": "input adjusted",
}
USE_COLOURS = {"waiting": colour("gat"), "computing": colour("accent"), "validating": colour("graphs")}
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


def model_dash(model: str) -> list[int]:
    """A model's line: by its part in the chain, as two models of a family have one colour."""
    return {"student": [5, 3], "fusion": [2, 2], "mlp": [9, 3, 2, 3], "id": [1, 4]}.get(
        model.partition("_")[0], [1, 0]
    )


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


def line_keys(models: Iterable[str]) -> list[Key]:
    """What the lines of models mean."""
    return [
        Key(name, model_colour(name), "line" if model_dash(name) == [1, 0] else "dashes", filled=False)
        for name in models
    ]


def mark_keys(kinds: Iterable[MarkKind]) -> list[Key]:
    """What the marks of some kinds mean."""
    found = set(kinds)
    return [
        Key(_MARK_NAMES[kind], MARK_COLOURS[kind], shape)
        for kind, shape in MARK_SHAPES.items()
        if kind in found
    ]


def use_keys() -> list[Key]:
    """What the parts of the time of training mean."""
    return [Key(name, ink, "square") for name, ink in USE_COLOURS.items()]


def loss_keys() -> list[Key]:
    """What the lines of losses mean."""
    return [
        Key("training", colour("graphs"), "dashes", filled=False),
        Key("validation", colour("accent"), "line", filled=False),
        Key("best epoch", colour("accent"), "circle"),
    ]
