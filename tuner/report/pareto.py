"""The Pareto figure: every trial, the front, and what to compare it with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from objectives.objective import MIB, milliseconds
from tuner.report import theme
from tuner.report.labels import place
from tuner.report.theme import plain
from tuner.report.view import Run, percent, points, scores_of
from tuner.search.records import TrialRecord, noise_of

_LEFT, _BOTTOM = 72, 60


@dataclass(frozen=True)
class _Axes:
    """Ranges of the axes; y in points of the accuracy. Points below `low` are drawn on it."""

    left: float
    right: float
    low: float
    high: float

    def pixel(self, x: float, y: float, width: float, height: float) -> tuple[float, float]:
        across = (x - self.left) / (self.right - self.left)
        return across * width, (self.high - max(y, self.low)) / (self.high - self.low) * height


def pareto_figure(run: Run, *, width: int = 1130, compact: bool = False) -> go.Figure:
    """Draws the accuracy against cost for all trials.

    Args:
        run: The run.
        width: Pixels that the figure will about have; labels are placed for it.
        compact: Lower, and with a line of symbols instead of the legend: for a narrow place.
    """
    axes = _axes(run)
    height, top, right = (465 if compact else 600), 64, (90 if run.objectives.shade else 24)
    figure = theme.base_figure(height, left=_LEFT, right=right, top=top, bottom=_BOTTOM)
    front = {member.record.number for member in run.members}
    special = front | {record.number for record in run.complete if _named(record)}
    others = [record for record in run.complete if record.number not in special]
    visible = [r for r in others if not _low(run, r, axes)]
    low = [r for r in others if _low(run, r, axes)]
    kept = [record for record in visible if not run.broken_bounds(record)]
    outside = [record for record in visible if run.broken_bounds(record)]
    _records(figure, run, axes, kept, "trials", {"size": 7, "color": theme.TRIAL, "opacity": 0.85})
    crossed = {"size": 7, "color": theme.TRIAL, "symbol": "x-thin", "line": {"width": 1.4, "color": theme.TRIAL}}
    _records(figure, run, axes, outside, "infeasible: breaks a constraint", crossed)
    _bounds(figure, run)
    if low:
        marker = {"size": 8, "color": theme.TRIAL, "symbol": "triangle-down-open", "line": {"width": 1.3}}
        _records(figure, run, axes, low, "broken or below the axis (drawn on its edge)", marker)
    _front(figure, run, axes)
    hidden = (run.reference, run.recommended.record if run.recommended else None)
    named = [record for record in run.complete if _named(record) and record not in hidden]
    _records(
        figure,
        run,
        axes,
        named,
        "uniform schemes",
        {"size": 10, "color": theme.UNIFORM, "symbol": "square-open"},
    )
    _baselines(figure, run, axes)
    if run.reference is not None:
        marker = {"size": 13, "color": theme.REFERENCE, "symbol": "diamond"}
        _records(figure, run, axes, [run.reference], "reference (unquantized)", marker)
    if run.failed:
        _legend_only(figure, f"failed: {len(run.failed)} (no point; listed under Failures)")
    if run.screened:
        _legend_only(figure, f"screened: {len(run.screened)} (no point; not scored in full)")
    _annotate(
        figure,
        run,
        axes,
        width=width - _LEFT - right,
        height=height - top - _BOTTOM,
        compact=compact,
    )
    images = run.complete[0].scores.accuracy.images if run.complete and run.complete[0].scores else 0
    figure.update_xaxes(title_text=run.cost_title, range=[axes.left, axes.right])
    figure.update_yaxes(
        title_text=f"{run.goal.label} on the {images} search images, points", range=[axes.low, axes.high]
    )
    if compact:
        figure.update_layout(showlegend=False, title=_compact_title(run))
        figure.update_yaxes(title_text=f"{run.goal.label}, points")
    if (shade := run.objectives.shade) is not None:
        title = f"{shade.short or shade.label}<br>{shade.unit}"
        bar = {"title": {"text": title, "font": {"size": 12}}, "thickness": 14, "outlinewidth": 0}
        figure.update_layout(coloraxis={"colorscale": "Viridis", "colorbar": bar})
    return figure


def _compact_title(run: Run) -> dict[str, Any]:
    symbols = [
        (theme.RECOMMENDED, "★ recommended"),
        (theme.FRONT, "● front"),
        (theme.UNIFORM, "□ uniform"),
        (theme.BASELINE, "▲ baseline"),
        (theme.REFERENCE, "◆ reference"),
    ]
    if any(run.broken_bounds(record) for record in run.complete):
        symbols.append((theme.TRIAL, "✕ infeasible"))
    line = "  ".join(f'<span style="color:{colour}">{text}</span>' for colour, text in symbols)
    failed = f", {len(run.failed)} failed" if run.failed else ""
    screened = f", {len(run.screened)} screened" if run.screened else ""
    text = f"<b>Pareto front</b> of {len(run.complete)} trials{screened}{failed}<br><sup>{line}</sup>"
    return {"text": text, "x": 0.02, "y": 0.95, "font": {"size": 15}}


def hover(run: Run, record: TrialRecord) -> str:
    """Text shown over a trial's point."""
    scores = scores_of(record)
    lines = [
        f"<b>trial {record.number}</b> · {plain(record.origin)}",
        plain(record.allocation.summary()),
        f"{run.goal.brief} {percent(run.goal.value(scores))}"
        + (f" ({points(d)})" if (d := run.search_difference(scores)) is not None else ""),
    ]
    if (speedup := run.speedup(scores)) is not None:
        lines.append(f"{milliseconds(scores.latency_ms)} ms, {speedup:.2f}x the reference's speed")
    if scores.latency and (noise := noise_of(scores.latency, scores.latency_ms / scores.latency.ratio)):
        lines.append(noise)
    size = f"{scores.size.weight_bytes / MIB:.2f} MiB weights, {scores.size.average_weight_bits:.1f} bits"
    lines.append(size + (" · broken" if scores.broken else ""))
    lines += [f"{o.label} {o.text(o.value(scores))} {o.unit}" for o in run.objectives.further]
    if broken := run.broken_bounds(record):
        lines.append(f"infeasible: breaks {', '.join(broken)}")
    return "<br>".join(lines)


def _named(record: TrialRecord) -> bool:
    return record.origin == "reference" or record.origin.startswith("uniform:")


def _low(run: Run, record: TrialRecord, axes: _Axes) -> bool:
    return scores_of(record).broken or 100 * run.accuracy(record) < axes.low


def _axes(run: Run) -> _Axes:
    costs = [run.cost(scores_of(r)) for r in run.complete] + [run.baseline_cost(b) for b in run.drawn_baselines]
    maps = [100 * run.accuracy(r) for r in run.complete]
    maps += [100 * b.accuracy for b in run.drawn_baselines]
    if not maps:
        return _Axes(0, 1, 0, 1)
    best = max(maps)
    # The interesting part is the upper end of the front: points far below it are drawn on the edge.
    front = [100 * run.accuracy(m.record) for m in run.members]
    span = max([best - value for value in front if value > best - 4] or [0.0])
    shown = [value for value in maps if value >= best - max(2.2 * span, 3)]
    pad = max(0.08 * (best - min(shown)), 0.3)
    wide = max(max(costs) - min(costs), 0.05 * max(costs), 1e-6)
    return _Axes(max(0.0, min(costs) - 0.08 * wide), max(costs) + 0.08 * wide, max(0.0, min(shown) - pad), best + pad)


def _records(
    figure: go.Figure,
    run: Run,
    axes: _Axes,
    records: Sequence[TrialRecord],
    name: str,
    marker: dict[str, Any],
) -> None:
    if not records:
        return
    if (shade := run.objectives.shade) is not None and marker.get("symbol") is None:
        values = [shade.value(scores_of(record)) for record in records]
        marker = {**marker, "color": values, "coloraxis": "coloraxis"}
    figure.add_scatter(
        x=[run.cost(scores_of(record)) for record in records],
        y=[max(100 * run.accuracy(record), axes.low) for record in records],
        mode="markers",
        name=name,
        marker=marker,
        hovertext=[hover(run, record) for record in records],
        hoverinfo="text",
        cliponaxis=False,
    )


def _staircase(run: Run) -> list[tuple[float, float]]:
    """The members on the front of the two drawn axes alone, from the cheapest; (cost, points of the accuracy)."""
    line: list[tuple[float, float]] = []
    for member in run.members:
        scores = scores_of(member.record)
        accuracy = 100 * run.goal.value(scores)
        if not line or accuracy > line[-1][1]:
            line.append((run.cost(scores), accuracy))
    return line


def _sampled(
    axes: _Axes, line: Sequence[tuple[float, float]], width: float, height: float
) -> list[tuple[float, float]]:
    """Pixels along the front's staircase, for labels to avoid."""
    corners: list[tuple[float, float]] = []
    for x, y in line:
        if corners:
            corners.append((x, corners[-1][1]))
        corners.append((x, y))
    pixels = [axes.pixel(x, y, width, height) for x, y in corners]
    out = []
    for (x0, y0), (x1, y1) in itertools.pairwise(pixels):
        count = int(max(abs(x1 - x0), abs(y1 - y0)) // 9) + 1
        out += [(x0 + (x1 - x0) * k / count, y0 + (y1 - y0) * k / count) for k in range(count)]
    return out


def _front(figure: go.Figure, run: Run, axes: _Axes) -> None:
    if not run.members:
        return
    line = _staircase(run)
    figure.add_scatter(
        x=[x for x, _ in line],
        y=[max(y, axes.low) for _, y in line],
        mode="lines",
        line={"color": theme.FRONT, "width": 1.6, "shape": "hv"},
        hoverinfo="skip",
        showlegend=False,
    )
    records = [m.record for m in run.members if not m.recommended and m.record is not run.reference]
    outline = {"width": 1.2, "color": theme.INK}
    _records(figure, run, axes, records, "front", {"size": 11, "color": theme.FRONT, "line": outline})
    if run.recommended is not None:
        marker = {"size": 18, "color": theme.RECOMMENDED, "symbol": "star", "line": outline}
        _records(figure, run, axes, [run.recommended.record], "recommended", marker)


def _bounds(figure: go.Figure, run: Run) -> None:
    """Lines of the constraints that lie on the drawn axes."""
    bounds = run.objectives.bounds
    line: dict[str, Any] = {"line": {"color": theme.TRIAL, "width": 1.2, "dash": "dash"}, "layer": "below"}
    if run.goal in bounds:
        figure.add_hline(y=100 * bounds[run.goal], **line)
    if run.objectives.axis in bounds:
        figure.add_vline(x=bounds[run.objectives.axis], **line)


def _baselines(figure: go.Figure, run: Run, axes: _Axes) -> None:
    if not run.drawn_baselines:
        return
    texts = [
        f"<b>{plain(b.name)}</b><br>{run.goal.brief} {percent(b.accuracy)}<br>{run.baseline_cost(b):.2f} "
        + run.objectives.axis.unit
        for b in run.drawn_baselines
    ]
    figure.add_scatter(
        x=[run.baseline_cost(b) for b in run.drawn_baselines],
        y=[max(100 * b.accuracy, axes.low) for b in run.drawn_baselines],
        mode="markers",
        name="baselines",
        marker={"size": 12, "color": theme.BASELINE, "symbol": "triangle-up"},
        hovertext=texts,
        hoverinfo="text",
        cliponaxis=False,
    )


def _legend_only(figure: go.Figure, name: str) -> None:
    marker = {"symbol": "x-thin", "size": 8, "line": {"width": 2, "color": theme.RECOMMENDED}}
    figure.add_scatter(x=[None], y=[None], mode="markers", name=name, marker=marker)


def _annotate(figure: go.Figure, run: Run, axes: _Axes, *, width: float, height: float, compact: bool) -> None:
    labels: list[tuple[float, float, str, str]] = []

    def add(x: float, accuracy: float, text: str, colour: str) -> None:
        below = f" ({run.goal.brief} {accuracy:.1f}, below the axis)" if accuracy < axes.low else ""
        labels.append((x, max(accuracy, axes.low), theme.shorten(text, 56) + below, colour))

    def add_record(record: TrialRecord, text: str, colour: str) -> None:
        add(run.cost(scores_of(record)), 100 * run.accuracy(record), text, colour)

    if run.recommended is not None:
        text = f"trial {run.recommended.record.number}, recommended"
        add_record(run.recommended.record, text, theme.RECOMMENDED)
    if run.reference is not None:
        add_record(run.reference, "reference", theme.REFERENCE)
    for baseline in run.drawn_baselines:
        add(run.baseline_cost(baseline), 100 * baseline.accuracy, baseline.name, theme.BASELINE)
    for record in run.complete:
        if record.origin.startswith("uniform:"):
            add_record(record, f"all {record.origin.removeprefix('uniform:')}", theme.UNIFORM)
    for member in run.members:
        if not member.recommended and not _named(member.record) and not (compact and len(run.members) > 12):
            add_record(member.record, str(member.record.number), theme.FRONT)
    obstacles = [axes.pixel(run.cost(scores_of(r)), 100 * run.accuracy(r), width, height) for r in run.complete]
    obstacles += _sampled(axes, _staircase(run), width, height)
    anchors = [axes.pixel(x, y, width, height) for x, y, _, _ in labels]
    offsets = place(anchors, [text for _, _, text, _ in labels], obstacles, (width, height))
    for (x, y, text, colour), (dx, dy) in zip(labels, offsets, strict=True):
        figure.add_annotation(
            x=x,
            y=y,
            ax=dx,
            ay=dy,
            text=plain(text),
            font={"size": 12, "color": colour},
            showarrow=True,
            arrowhead=0,
            arrowwidth=0.8,
            arrowcolor=colour,
            standoff=7,
            borderpad=1,
        )
