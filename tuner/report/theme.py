"""Colours and layout shared by every figure, so that a format or a role looks the same everywhere."""

from __future__ import annotations

import html
from collections.abc import Iterable

import plotly.graph_objects as go

from search_spaces.formats import FORMATS

INK = "#1f2933"
MUTED = "#5d6b78"
GRID = "#e6eaee"
TRIAL = "#a9b6c4"
FRONT = "#0a64a4"
RECOMMENDED = "#c74e00"
REFERENCE = "#1f2933"
UNIFORM = "#7a4fbf"
BASELINE = "#8a6a00"
SEED = "#8d99a6"
SAMPLER = "#2f6fb3"
PAPER = "#ffffff"
#: From little to much of a third objective: one hue, so that lightness alone tells, to every eye.
SHADES = [[0.0, "#0b3a63"], [0.5, "#3d8fc6"], [1.0, "#b9dcf2"]]
#: What the colours of the figures become on a dark page; those of formats stay.
NIGHT = {
    INK: "#e3e8ed",
    MUTED: "#a3b0bc",
    GRID: "#2c353e",
    "#c3ccd5": "#4a5661",
    "#ccd4dc": "#4a5661",
    "#f1f3f5": "#232c34",
    "#dde2e8": "#5a6672",
    TRIAL: "#66737f",
    FRONT: "#5fb3ea",
    RECOMMENDED: "#ff9a52",
    UNIFORM: "#b79bf0",
    BASELINE: "#e0bd4f",
    SAMPLER: "#6fa8dc",
    PAPER: "#1b2229",
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
AXIS = {
    "gridcolor": GRID,
    "zeroline": False,
    "linecolor": "#c3ccd5",
    "ticks": "outside",
    "tickcolor": "#c3ccd5",
    "ticklen": 4,
    "title": {"standoff": 10, "font": {"size": 13, "color": MUTED}},
    "tickfont": {"size": 12, "color": MUTED},
}

# In the order of the table of formats.
_FORMAT_COLOURS = ("#dde2e8", "#8cbbe0", "#f2a541", "#2f6fb3", "#1f8a70", "#8fd0b8", "#c8452f", "#e5989b")
_SPARE_COLOURS = ("#7a4fbf", "#b0578d", "#6b705c", "#3d405b")
STEPS = ("#2f6fb3", "#8cbbe0", "#1f8a70", "#f2a541", "#7a4fbf", "#c8452f", "#a9b6c4")


def format_colour(name: str) -> str:
    """Colour of a format; the same in every figure, also for formats that this module does not know."""
    colours = dict(zip(FORMATS, _FORMAT_COLOURS, strict=False))  # formats beyond them take spare ones
    if name in colours:
        return colours[name]
    return _SPARE_COLOURS[sum(name.encode()) % len(_SPARE_COLOURS)]


def format_order(names: Iterable[str]) -> list[str]:
    """The distinct formats, in the order of the registry, unknown ones last."""
    known = list(FORMATS)
    return sorted(set(names), key=lambda name: (known.index(name) if name in known else len(known), name))


def plain(text: str) -> str:
    """Escapes text for a figure: plotly reads a subset of HTML in titles, labels and hovers."""
    return html.escape(text, quote=False)


def shorten(text: str, limit: int) -> str:
    """Cuts the middle out of a text longer than `limit` characters; both ends tell layers apart."""
    if len(text) <= limit:
        return text
    tail = (limit - 1) * 2 // 3
    return f"{text[: limit - 1 - tail]}…{text[-tail:]}"


def distinct_names(names: Iterable[str], limit: int) -> list[str]:
    """Shortened names that stay different from each other (a number is appended where they would not)."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        short = shorten(name, limit)
        seen[short] = seen.get(short, 0) + 1
        out.append(short if seen[short] == 1 else f"{short} ({seen[short]})")
    return out


def base_figure(height: int, *, left: int = 64, right: int = 24, top: int = 24, bottom: int = 56) -> go.Figure:
    """An empty figure in the report's style.

    Args:
        height: Pixels.
        left: Margin in pixels, as the other three.
        right: Margin.
        top: Margin.
        bottom: Margin.
    """
    return go.Figure(
        layout={
            "template": None,
            "height": height,
            "margin": {"l": left, "r": right, "t": top, "b": bottom},
            "paper_bgcolor": PAPER,
            "plot_bgcolor": PAPER,
            "font": {"family": FONT, "size": 13, "color": INK},
            "hoverlabel": {"align": "left", "bgcolor": PAPER, "font": {"size": 12, "family": FONT}},
            "legend": {"font": {"size": 12}, "orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "xaxis": AXIS,
            "yaxis": AXIS,
        }
    )
