"""Colours that appear together in a chart can be told apart by people who see few of them."""

from itertools import combinations

import pytest

from core.analytics.theme import DARK, LIGHT

# Viénot, Brettel and Mollon 1999, in linear RGB.
SIGHTS = {
    "protanopia": ((0.11238, 0.88762, 0.0), (0.11238, 0.88762, 0.0), (0.00401, -0.00401, 1.0)),
    "deuteranopia": ((0.29275, 0.70725, 0.0), (0.29275, 0.70725, 0.0), (-0.02234, 0.02234, 1.0)),
}
TOGETHER = {
    "families of models": ("vgae", "gat", "fusion", "baseline"),
    "time use": ("gat", "accent", "graphs"),
    "losses": ("graphs", "accent"),
}


def seen(code: str, sight: str) -> tuple[float, float, float]:
    """CIE L*a*b* of a colour as somebody sees it."""
    channels = [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    r, g, b = (sum(w * c for w, c in zip(row, linear, strict=True)) for row in SIGHTS[sight])
    xyz = (
        (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505,
        0.2126 * r + 0.7152 * g + 0.0722 * b,
        (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089,
    )
    x, y, z = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("names", TOGETHER.values(), ids=TOGETHER)
def test_colours_of_one_chart_differ_for_colour_blind_eyes(
    names: tuple[str, ...], palette: dict[str, str], sight: str
) -> None:
    for one, other in combinations(names, 2):
        pairs = zip(seen(palette[one], sight), seen(palette[other], sight), strict=True)
        distance = sum((a - b) ** 2 for a, b in pairs) ** 0.5
        assert distance > 10, (one, other, distance)
