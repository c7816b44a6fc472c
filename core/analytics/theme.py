"""Colours of dashboards, in a light and a dark set, and the one Vega configuration that uses them.

Charts name colours as CSS variables, so a page switches theme without drawing anything again; a picture
is drawn with the light set put in their place.
"""

from typing import Any

LIGHT = {
    "page": "#f6f7f9",
    "surface": "#ffffff",
    "ink": "#171a1f",
    "muted": "#565d69",
    "line": "#dde1e7",
    "accent": "#1f5fbf",
    "good": "#15713c",
    "bad": "#c0261f",
    "warn": "#8a5a00",
    "graphs": "#8a93a1",
    "teacher": "#1f5fbf",
    "student": "#0b8378",
    "fusion": "#5e1496",
    "evaluation": "#b26a00",
    "vgae": "#1f5fbf",
    "gat": "#c2530a",
    "baseline": "#6d7582",
}
DARK = {
    "page": "#111418",
    "surface": "#1a1e24",
    "ink": "#e9ecf1",
    "muted": "#a4acb9",
    "line": "#343b46",
    "accent": "#79acff",
    "good": "#5fce8c",
    "bad": "#ff7f77",
    "warn": "#efb54e",
    "graphs": "#7d8796",
    "teacher": "#79acff",
    "student": "#4fcabd",
    "fusion": "#a85fe6",
    "evaluation": "#efb54e",
    "vgae": "#79acff",
    "gat": "#ff9d57",
    "baseline": "#9aa3b1",
}
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"


def colour(name: str) -> str:
    """The CSS variable of a colour of this theme."""
    if name not in LIGHT:
        raise KeyError(f"no colour {name} in the theme")
    return f"var(--{name})"


def css_variables(palette: dict[str, str]) -> str:
    """CSS declarations of a set of colours."""
    return " ".join(f"--{name}: {value};" for name, value in palette.items())


def with_colours(spec: Any, palette: dict[str, str]) -> Any:
    """Put a set of colours in place of the variables, at any depth of a chart's specification."""
    if isinstance(spec, dict):
        return {key: with_colours(inner, palette) for key, inner in spec.items()}
    if isinstance(spec, list):
        return [with_colours(inner, palette) for inner in spec]
    if isinstance(spec, str) and spec.startswith("var(--"):
        return palette.get(spec[6:-1], spec)
    return spec


def vega_config() -> dict[str, Any]:
    """Vega configuration of every chart."""
    text = {
        "labelFont": FONT,
        "titleFont": FONT,
        "labelColor": colour("muted"),
        "titleColor": colour("muted"),
    }
    return {
        "font": FONT,
        "background": colour("surface"),
        "view": {"stroke": None},
        "axis": text
        | {
            "domainColor": colour("line"),
            "gridColor": colour("line"),
            "tickColor": colour("line"),
            "titleFontWeight": "normal",
            "labelFontSize": 11,
            "titleFontSize": 11,
        },
        "axisLeft": {"minExtent": 32},
        "mark": {"aria": False},
        "legend": text | {"labelFontSize": 12, "symbolSize": 90},
        "title": {"color": colour("ink"), "font": FONT, "fontSize": 13, "anchor": "start", "frame": "group"},
        "text": {"color": colour("ink"), "font": FONT},
    }
