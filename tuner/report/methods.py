"""Sensitivity methods compared, as the report shows them."""

from __future__ import annotations

from html import escape

import plotly.graph_objects as go

from search_spaces.comparison import Agreement, Comparison
from tuner.report.tables import table_html
from tuner.report.theme import base_figure, plain


def comparison_figure(found: Comparison) -> go.Figure:
    """Each method's rank of the measured layers against the rank of the measured disagreement."""
    ordered = sorted(found.drops, key=lambda entry: -entry.disagreement)
    figure = base_figure(480)
    for ranking in found.rankings:
        known = [(place, d) for place, d in enumerate(ordered, 1) if d.layer in ranking.scores]
        places = sorted((d.layer for _, d in known), key=lambda layer, r=ranking: -r.scores[layer])  # type: ignore[misc]
        figure.add_scatter(
            x=[place for place, _ in known],
            y=[places.index(d.layer) + 1 for _, d in known],
            mode="markers",
            name=plain(f"{ranking.method} ({ranking.format})"),
            text=[plain(d.layer) for _, d in known],
            hovertemplate="%{text}: measured %{x}, ranked %{y}",
        )
    ends = [1, len(ordered)]
    figure.add_scatter(x=ends, y=ends, mode="lines", line={"dash": "dot", "color": "#999"}, showlegend=False)
    figure.update_layout(
        title=plain(f"Rank of {len(ordered)} layers: method against measured disagreement in {found.format}"),
        xaxis_title="measured, 1 the most damage",
        yaxis_title="method, 1 the most sensitive",
        showlegend=True,
    )
    return figure


def comparison_note(found: Comparison) -> str:
    """One sentence: which prior to use, and on what grounds."""
    same = found.not_told_apart
    return (
        f"Use {found.best}: of the methods compared it ranks best what {len(found.drops)} layers did to the "
        f"detections, each alone in {found.format}, on {found.images} images."
        + (f" They are too few to tell it from {', '.join(same)}." if same else "")
    )


def comparison_html(found: Comparison) -> str:
    """Two tables: each method against what was measured, and the methods among themselves."""
    drops = {entry.first: entry for entry in found.against_drop}
    closer = {entry.first: entry for entry in found.against_disagreement}
    rows = [
        (
            "",
            [
                escape(r.method),
                escape(r.format),
                f"{r.seconds:.0f}",
                *_cells(drops[r.method]),
                *_cells(closer[r.method]),
            ],
        )
        for r in found.rankings
    ]
    head = ["method", "scored", "seconds", "mAP drop: Spearman", "Kendall", "disagreement: Spearman", "Kendall"]
    pairs = [
        ("", [escape(f"{p.first} / {p.second}"), str(p.layers), *_cells(p), f"{100 * p.overlap:.0f} %"])
        for p in found.pairs
    ]
    return table_html(head, rows) + table_html(
        ["methods", "layers", "Spearman", "Kendall", "common in the top fifth"], pairs
    )


def _cells(entry: Agreement) -> list[str]:
    return [f"{entry.spearman:+.2f}", f"{entry.kendall:+.2f}"]
