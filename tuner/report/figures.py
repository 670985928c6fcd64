"""Figures about the layers: which format each front scheme gives them, and how sensitive they are."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from search_spaces.layers import Layer
from search_spaces.sensitivity import SensitivityTable
from tuner.report import theme
from tuner.report.theme import plain
from tuner.report.view import Run
from tuner.search.records import FrontMember
from tuner.terminal import units

_NAME = 46  # characters of a layer's name beside an axis
_ROW = 15  # pixels


def bit_width_map(run: Run, layers: Sequence[Layer]) -> go.Figure | None:
    """Layers (rows, in model order) x front schemes (columns, from the cheapest), coloured by format.

    Args:
        run: The run; its front must not be empty for a figure.
        layers: The model's layers; those that no scheme mentions are left out.
    """
    if not run.members:
        return None
    schemes = [member.record.allocation for member in run.shown]
    mentioned = dict.fromkeys(name for scheme in schemes for name in scheme.formats)
    by_name = {layer.name: layer for layer in layers}
    rows = [layer.name for layer in layers if layer.name in mentioned]
    rows += [name for name in mentioned if name not in by_name]
    if not rows:
        return None
    formats = theme.format_order(fmt for scheme in schemes for fmt in scheme.formats.values())
    code = {name: index for index, name in enumerate(formats)}
    cells = [[scheme.formats.get(row) for scheme in schemes] for row in rows]
    figure = theme.base_figure(96 + _ROW * len(rows), left=318, right=24, top=84, bottom=12)
    figure.add_heatmap(
        z=[[None if fmt is None else code[fmt] for fmt in line] for line in cells],
        x=list(range(len(schemes))),
        y=list(range(len(rows))),
        zmin=-0.5,
        zmax=len(formats) - 0.5,
        colorscale=_steps(formats),
        showscale=False,
        xgap=2,
        ygap=1,
        hovertext=[
            [_cell_text(run, column, row, fmt, by_name.get(row)) for column, fmt in enumerate(line)]
            for row, line in zip(rows, cells, strict=True)
        ],
        hoverinfo="text",
    )
    for fmt in formats:
        marker = {"symbol": "square", "size": 12, "color": theme.format_colour(fmt)}
        figure.add_scatter(x=[None], y=[None], mode="markers", name=plain(fmt), marker=marker)
    unit = run.objectives.axis.unit
    ticks = [
        f"{'★ ' if m.recommended else ''}{m.record.name}<br>{_cost(run, m)} {unit}"
        + f"<br>{units.change(run.standing(m).change)}"
        for m in run.shown
    ]
    size = 12 if len(ticks) <= 14 else 10 if len(ticks) <= 22 else 8
    figure.update_xaxes(
        side="top",
        tickmode="array",
        tickvals=list(range(len(ticks))),
        ticktext=ticks,
        tickfont={"size": size, "color": theme.INK},
        tickangle=0,
        showgrid=False,
        range=[-0.5, len(ticks) - 0.5],
    )
    figure.update_yaxes(
        tickmode="array",
        tickvals=list(range(len(rows))),
        ticktext=[plain(name) for name in theme.distinct_names(rows, _NAME)],
        tickfont={"size": 10.5, "color": theme.INK},
        showgrid=False,
        range=[len(rows) - 0.5, -0.5],
    )
    figure.update_layout(legend={"y": 1 + 54 / (_ROW * len(rows)), "traceorder": "normal"})
    return figure


def _cost(run: Run, member: FrontMember) -> str:
    return run.objectives.axis.text(run.standing(member).cost)


def _steps(formats: Sequence[str]) -> list[list[float | str]]:
    scale: list[list[float | str]] = []
    for index, name in enumerate(formats):
        colour = theme.format_colour(name)
        scale += [[index / len(formats), colour], [(index + 1) / len(formats), colour]]
    return scale


def _cell_text(run: Run, column: int, row: str, fmt: str | None, layer: Layer | None) -> str:
    name = run.shown[column].record.name
    text = f"<b>{plain(row)}</b><br>trial {name}: <b>{plain(fmt or 'not in scheme')}</b>"
    if layer is None:
        return text
    shape = " x ".join(map(str, layer.weight_shape))
    return text + f"<br>{plain(layer.op)} {shape}<br>{layer.macs / 1e6:.1f} M MACs, {layer.parameters:,} weights"


def sensitivity_figure(table: SensitivityTable, limit: int = 40) -> go.Figure | None:
    """One row per layer, most sensitive first; one point per format on a logarithmic axis.

    Args:
        table: The measurements.
        limit: Rows drawn; the page's table holds the rest.
    """
    ranked = sorted_layers(table)[:limit]
    if not ranked:
        return None
    positive = [entry.score for entry in table.entries if entry.score > 0]
    floor = min(positive, default=1e-6) / 2
    row = {name: index for index, name in enumerate(ranked)}
    figure = theme.base_figure(110 + 16 * len(ranked), left=318, right=24, top=40, bottom=56)
    ends = {name: [max(e.score, floor) for e in table.entries if e.layer == name] for name in ranked}
    for name, scores in ends.items():
        line = {"x0": min(scores), "x1": max(scores), "y0": row[name], "y1": row[name]}
        figure.add_shape(type="line", **line, line={"color": "#ccd4dc", "width": 2}, layer="below")
    for fmt in theme.format_order(entry.format for entry in table.entries):
        entries = [e for e in table.entries if e.format == fmt and e.layer in row]
        figure.add_scatter(
            x=[max(entry.score, floor) for entry in entries],
            y=[row[entry.layer] for entry in entries],
            mode="markers",
            name=plain(fmt),
            marker={"size": 9, "color": theme.format_colour(fmt), "line": {"width": 0.6, "color": "#ffffff"}},
            hovertext=[f"<b>{plain(e.layer)}</b><br>{plain(e.format)}: {e.score:.4g}" for e in entries],
            hoverinfo="text",
        )
    shown = [score for scores in ends.values() for score in scores]
    figure.update_xaxes(
        type="log", title_text=f"{plain(table.metric)} (0 = same as the reference)", exponentformat="power"
    )
    if max(shown) < 30 * min(shown):
        figure.update_xaxes(dtick="D2")
    figure.update_yaxes(
        tickmode="array",
        tickvals=list(range(len(ranked))),
        ticktext=[plain(name) for name in theme.distinct_names(ranked, _NAME)],
        tickfont={"size": 10.5, "color": theme.INK},
        range=[len(ranked) - 0.4, -0.6],
        showgrid=False,
    )
    return figure


def sorted_layers(table: SensitivityTable) -> list[str]:
    """Layers from the most to the least sensitive by their worst score."""
    worst: dict[str, float] = {}
    for entry in table.entries:
        worst[entry.layer] = max(worst.get(entry.layer, 0.0), entry.score)
    return sorted(worst, key=lambda name: -worst[name])
